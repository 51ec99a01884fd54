"""Claims: a relay holds messages for a time, in which no other relay delivers them or others of their keys.

A claim is a lease: a column of the row, and not a lock. So no transaction is open while messages are delivered, and the
messages of a relay that was killed or stopped are free when its time is over.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    cast,
    delete,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.types import Integer, Text, Uuid

from ..dialects import dialect_named
from ..dialects.queueing import later_of, now_of, seconds_value
from .message import DeadLetter, OutboxMessage
from .table import DEAD, LONGEST, PENDING


class Candidate(NamedTuple):
    """The position and the lane of a message that may be claimed."""

    position: int
    lane: int | None


class Claimed(NamedTuple):
    """A message of a claim, its position in the table, and the number of deliveries that have failed."""

    position: int
    failures: int
    message: OutboxMessage


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message of a claim was delivered."""

    claim: UUID
    position: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A delivery has failed. ``delay`` is the time to the next attempt, in seconds; None: the message is given up."""

    claim: UUID
    position: int
    delay: float | None
    error: str


@dataclass(frozen=True, slots=True)
class Released:
    """A message of a claim is free again. ``tried``: it is unknown whether it was delivered."""

    claim: UUID
    position: int
    tried: bool


Outcome = Delivered | Failed | Released


@lru_cache
def _candidates(table: Table, dialect: str) -> Select[int, int | None]:
    """The positions and lanes of the next messages, in order. A parameter ``batch`` limits their number.

    A key is blocked as long as any of its messages is held by a relay, or waits for its next attempt. The statistics
    of a queue are always out of date, so the statement is one for which PostgreSQL needs none: a subquery by the small
    index of the held rows, which it hashes, and the index of the pending rows, in order.
    """
    now, columns = now_of(dialect), table.c
    blocked = select(columns.lane).where(columns.available_at > now, columns.lane.is_not(None))
    return (
        select(columns.position, columns.lane)
        .where(_is_available(table, dialect), or_(columns.lane.is_(None), columns.lane.not_in(blocked)))
        .order_by(columns.position)
        .limit(bindparam("batch", type_=Integer()))
    )


@lru_cache
def _taking(table: Table, dialect: str) -> Update:
    """An UPDATE that claims the messages at these ``positions``, without those that other transactions have locked."""
    columns = table.c
    among = dialect_named(dialect).among(columns.position, columns.position.type, "positions")
    locked = select(columns.position).where(among, _is_available(table, dialect)).with_for_update(skip_locked=True)
    values = {"claim": bindparam("claim_id", type_=Uuid()), "attempt": columns.attempt + 1}
    taking = update(table).where(columns.position.in_(locked))
    return taking.values(**values, available_at=later_of(dialect, "lease")).returning(*_read_columns(table))


def _is_available(table: Table, dialect: str) -> ColumnElement[bool]:
    # The status is a constant, so that a plan for any parameters can use the index of pending messages.
    pending = table.c.status == literal_column(f"'{PENDING}'")
    return and_(pending, or_(table.c.available_at.is_(None), table.c.available_at <= now_of(dialect)))


def _read_columns(table: Table) -> list[ColumnElement[object]]:
    """The columns in the order of `_message`. The payload is read as text, whatever the engine makes of JSON."""
    columns = table.c
    names = (columns.position, columns.failures, columns.id, columns.topic, columns.key)
    return [*names, cast(columns.payload, Text()), columns.tenant_id, columns.created_at, columns.attempt]


def _message(row: Sequence[object]) -> Claimed:
    position, failures, message_id, topic, key, payload, tenant_id, created_at, attempt = row
    message = OutboxMessage(message_id, topic, key, json.loads(payload), tenant_id, created_at, attempt)  # type: ignore[arg-type]  # the types of the columns
    return Claimed(position, failures, message)  # type: ignore[arg-type]  # as above


def claim(connection: Connection, table: Table, claim_id: UUID, *, batch: int, lease: float) -> list[Claimed]:
    """Hold up to ``batch`` messages for ``lease`` seconds, and return them in order. Two statements.

    Two claims must not run at the same time: the second would not see which keys the first one takes.
    """
    dialect = connection.dialect.name
    candidates = [Candidate(*row) for row in connection.execute(_candidates(table, dialect), {"batch": batch})]
    if not candidates:
        return []
    positions = [position for position, _ in candidates]
    parameters = {"claim_id": claim_id, "positions": positions, "lease": seconds_value(dialect, lease)}
    rows = connection.execute(_taking(table, dialect), parameters).all()
    claimed = {each.position: each for each in map(_message, rows)}
    behind = _behind_skipped(candidates, claimed)
    if behind:
        release = {"claim_id": claim_id, "positions": behind}
        connection.execute(_release(table, dialect, tried=False), release)
    return [claimed[position] for position in positions if position in claimed and position not in behind]


def _behind_skipped(candidates: Iterable[Candidate], claimed: Collection[int]) -> list[int]:
    """The positions of claimed messages that are behind one of their key that another transaction has locked."""
    skipped: set[int] = set()
    behind: list[int] = []
    for position, lane in candidates:
        if lane is not None and position not in claimed:
            skipped.add(lane)
        elif lane in skipped:
            behind.append(position)
    return behind


def record(connection: Connection, table: Table, outcomes: Sequence[Outcome]) -> int:
    """Record outcomes, and return the number of those that came too late: another relay has claimed the message.

    For each claim one statement for its delivered messages and at most two for its released ones, and one statement
    for each failed message.
    """
    dialect, recorded = connection.dialect.name, 0
    alike: dict[tuple[Update | Delete, UUID], list[int]] = {}
    for outcome in outcomes:
        if isinstance(outcome, Failed):
            recorded += connection.execute(*_failure(table, dialect, outcome)).rowcount
        else:
            tried = outcome.tried if isinstance(outcome, Released) else None
            statement = _deletion(table, dialect) if tried is None else _release(table, dialect, tried=tried)
            alike.setdefault((statement, outcome.claim), []).append(outcome.position)
    for (statement, claim_id), positions in alike.items():
        recorded += connection.execute(statement, {"claim_id": claim_id, "positions": positions}).rowcount
    return len(outcomes) - recorded


def _of_claim(table: Table) -> ColumnElement[bool]:
    return table.c.claim == bindparam("claim_id", type_=Uuid())


def _among(table: Table, dialect: str) -> ColumnElement[bool]:
    return and_(dialect_named(dialect).among(table.c.position, table.c.position.type, "positions"), _of_claim(table))


@lru_cache
def _deletion(table: Table, dialect: str) -> Delete:
    return delete(table).where(_among(table, dialect))


@lru_cache
def _release(table: Table, dialect: str, *, tried: bool) -> Update:
    attempt = table.c.attempt if tried else table.c.attempt - 1
    return update(table).where(_among(table, dialect)).values(claim=None, available_at=None, attempt=attempt)


def release_all(connection: Connection, table: Table, claim_id: UUID) -> None:
    """Release all messages of a claim, of which none was tried. One statement."""
    attempt = table.c.attempt - 1
    statement = update(table).where(_of_claim(table)).values(claim=None, available_at=None, attempt=attempt)
    connection.execute(statement, {"claim_id": claim_id})


def _one_of_claim(table: Table) -> Update:
    return update(table).where(table.c.position == bindparam("at", type_=table.c.position.type), _of_claim(table))


@lru_cache
def _failing(table: Table, dialect: str) -> Update:
    failures, error = table.c.failures + 1, bindparam("failure", type_=Text())
    return _one_of_claim(table).values(
        claim=None, available_at=later_of(dialect, "delay"), failures=failures, error=error
    )


@lru_cache
def _dying(table: Table) -> Update:
    failures, error = table.c.failures + 1, bindparam("failure", type_=Text())
    return _one_of_claim(table).values(claim=None, available_at=None, failures=failures, error=error, status=DEAD)


def _failure(table: Table, dialect: str, failed: Failed) -> tuple[Update, dict[str, object]]:
    values = {"claim_id": failed.claim, "at": failed.position, "failure": failed.error[:LONGEST]}
    if failed.delay is None:
        return _dying(table), values
    return _failing(table, dialect), {**values, "delay": seconds_value(dialect, failed.delay)}


def renew(connection: Connection, table: Table, claims: Sequence[UUID], *, lease: float) -> None:
    """Hold the messages of these claims for ``lease`` seconds from now. One statement."""
    dialect = connection.dialect.name
    connection.execute(_renewal(table, dialect), {"claims": claims, "lease": seconds_value(dialect, lease)})


@lru_cache
def _renewal(table: Table, dialect: str) -> Update:
    # The condition on available_at lets the database use the small index of held rows.
    among = dialect_named(dialect).among(table.c.claim, table.c.claim.type, "claims")
    return update(table).where(among, table.c.available_at.is_not(None)).values(available_at=later_of(dialect, "lease"))


def dead_letters(connection: Connection, table: Table, limit: int) -> list[DeadLetter]:
    """The messages that were given up, the oldest first. One statement."""
    statement = select(*_read_columns(table), table.c.error).where(table.c.status == DEAD)
    rows: Sequence[Sequence[object]] = connection.execute(statement.order_by(table.c.position).limit(limit)).all()
    letters: list[DeadLetter] = []
    for *message, error in rows:
        _, failures, read = _message(message)
        letters.append(DeadLetter(read, failures, None if error is None else str(error)))
    return letters


def requeue(connection: Connection, table: Table, ids: Sequence[UUID]) -> int:
    """Let dead letters be delivered again. Returns the number of those that were dead. One statement."""
    statement = update(table).where(table.c.status == DEAD, table.c.id.in_(ids))
    return connection.execute(statement.values(status=PENDING, failures=0, available_at=None)).rowcount
