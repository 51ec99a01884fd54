"""What a history costs: a write of a class without one, with triggers, and with statements of the app's own.

The statements are a prototype: the app reads the row, writes it, and inserts the entry. They see nothing of what is
written in another way. Run it with ``python -m benchmarks.history``. A figure is the median of the rounds in
microseconds a call; the contenders take turns. The server does not wait for the disk, which would hide the cost.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any

from sqlalchemy import JSON, String, Table, insert, make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dotmac_database import (
    AuditMixin,
    BaseRepository,
    Database,
    DatabaseTransaction,
    HistoryMixin,
    TenantMixin,
    acting_as,
    create_database,
)
from dotmac_database.types import utc_now
from tests.postgres import OwnServer

ROUNDS = 15
TENANT = "t"


class Base(DeclarativeBase):
    """The tables of the benchmark."""


class _Columns(AuditMixin, TenantMixin):
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(50))
    email: Mapped[str]
    score: Mapped[int | None]
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    seen_at: Mapped[datetime | None]


class Plain(_Columns, Base):
    __tablename__ = "plain"


class Recorded(HistoryMixin, _Columns, Base):
    __tablename__ = "recorded"


class ByHand(_Columns, Base):
    __tablename__ = "by_hand"


class ByHandEntry(Base):
    """The history that the app writes by hand."""

    __tablename__ = "by_hand_entries"

    history_id: Mapped[int] = mapped_column(primary_key=True)
    row_id: Mapped[int] = mapped_column(index=True)
    at: Mapped[str]
    actor: Mapped[str | None]
    operation: Mapped[str]
    before: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    after: Mapped[dict[str, Any] | None] = mapped_column(JSON)


ENTRIES: Table = ByHandEntry.__table__  # type: ignore[assignment]
NUMBERS = count(1)


def row() -> dict[str, Any]:
    number = next(NUMBERS)
    return {"id": number, "name": f"name {number}", "email": f"{number}@example.org", "score": 1, "settings": {"a": 1}}


def entry(number: int, operation: str, before: Any, after: Any) -> dict[str, Any]:
    return {
        "row_id": number,
        "at": utc_now().isoformat(),
        "actor": "alice",
        "operation": operation,
        "before": before,
        "after": after,
    }


class Contender:
    """The calls on one class."""

    def __init__(self, session: Session, model: type[Any]) -> None:
        self.session = session
        self.users: BaseRepository[Any] = BaseRepository(session, model, TENANT)
        self.changed = self.users.create(row()).id

    def create(self) -> None:
        self.users.create(row())

    def update(self) -> None:
        self.users.update(self.changed, {"score": next(NUMBERS)})

    def bulk_create(self) -> None:
        self.users.bulk_create([row() for _ in range(1000)], returning=False)


class WithStatements(Contender):
    """The prototype that writes the entries by statements."""

    def create(self) -> None:
        with DatabaseTransaction.sync_transaction(self.session):
            values = row()
            self.users.create(values)
            self.session.execute(insert(ENTRIES), entry(values["id"], "create", None, values))

    def update(self) -> None:
        with DatabaseTransaction.sync_transaction(self.session):
            before, after = {"score": self.users.get_by_id_or_raise(self.changed).score}, {"score": next(NUMBERS)}
            self.users.update(self.changed, after)
            self.session.execute(insert(ENTRIES), entry(self.changed, "update", before, after))

    def bulk_create(self) -> None:
        with DatabaseTransaction.sync_transaction(self.session):
            rows = [row() for _ in range(1000)]
            self.users.bulk_create(rows, returning=False)
            self.session.execute(insert(ENTRIES), [entry(each["id"], "create", None, each) for each in rows])


CALLS = {"create": 100, "update": 100, "bulk_create": 1}
"""The calls, each with how often it is made in a round."""


class WithActor(Contender):
    """A class with a history, whose writes also announce an actor."""

    def create(self) -> None:
        with acting_as("alice"):
            super().create()

    def update(self) -> None:
        with acting_as("alice"):
            super().update()

    def bulk_create(self) -> None:
        with acting_as("alice"):
            super().bulk_create()


def measure(database: Database) -> Iterator[str]:
    """The lines of a table in Markdown."""
    Base.metadata.create_all(database.engine)
    kinds: dict[str, tuple[type[Contender], type[Any]]] = {
        "plain": (Contender, Plain),
        "triggers": (Contender, Recorded),
        "triggers, actor": (WithActor, Recorded),
        "statements": (WithStatements, ByHand),
    }
    with database.sessions(expire_on_commit=False) as session:
        contenders = {name: kind(session, model) for name, (kind, model) in kinds.items()}
        for name, times in CALLS.items():
            _analyze(database)
            timings: dict[str, list[float]] = {each: [] for each in contenders}
            for _ in range(ROUNDS):
                for each, contender in contenders.items():
                    timings[each].append(_timed(getattr(contender, name), times))
            medians = {each: statistics.median(values) for each, values in timings.items()}
            figures = [f"{value:,.0f} ({value / medians['plain'] - 1:+.0%})" for value in medians.values()]
            yield f"| {name} | {' | '.join(figures)} |"


def measure_past(database: Database) -> Iterator[str]:
    """The lines of a table in Markdown: reads of 20,000 rows, half of which have changed since a moment."""
    Base.metadata.drop_all(database.engine)
    Base.metadata.create_all(database.engine)
    with database.sessions(expire_on_commit=False) as session:
        users: BaseRepository[Any] = BaseRepository(session, Recorded, TENANT)
        rows = [row() for _ in range(20_000)]
        users.bulk_create(rows, returning=False)
        moment = utc_now()
        time.sleep(0.01)
        changed, unchanged = rows[100]["id"], rows[19_000]["id"]
        users.update_where([{"field": "id", "operator": "lt", "value": rows[10_000]["id"]}], {"score": 1})
        _analyze(database)
        twenty = {"filters": [{"field": "id", "operator": "between", "value": [changed, changed + 19]}]}
        past = users.as_of(moment)
        reads: dict[str, Callable[[BaseRepository[Any]], object]] = {
            "get, changed since": lambda each: each.get_by_id(changed),
            "get, unchanged": lambda each: each.get_by_id(unchanged),
            "list 20 by key": lambda each: each.list(twenty),
            "count": lambda each: each.count(),
        }
        for name, read in reads.items():
            now, then = (
                statistics.median(_timed(partial(read, each), 5) for _ in range(ROUNDS)) for each in (users, past)
            )
            yield f"| {name} | {now:,.0f} | {then:,.0f} |"


def _analyze(database: Database) -> None:
    """Give the planner statistics, which a server in use has. Without them an UPDATE reads all rows of the tenant."""
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")


def _timed(call: Callable[[], None], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times * 1e6


@contextmanager
def databases() -> Iterator[dict[str, Database]]:
    """A database of each kind."""
    server = OwnServer().start()
    with tempfile.TemporaryDirectory() as folder:
        opened = {
            "PostgreSQL, psycopg": create_database(make_url(server.url())),
            "SQLite, sqlite3": create_database(f"sqlite:///{folder}/history.db"),
        }
        yield opened
        for each in opened.values():
            each.dispose()
    server.stop()


def main() -> None:
    """Print a table for each database."""
    with databases() as opened:
        for name, database in opened.items():
            print(f"| {name} | plain | triggers | triggers, actor | statements |\n| --- | --- | --- | --- | --- |")
            for line in measure(database):
                print(line)
            print(f"\n| {name} | now | as_of |\n| --- | --- | --- |")
            for line in measure_past(database):
                print(line)
            print()


if __name__ == "__main__":
    main()
