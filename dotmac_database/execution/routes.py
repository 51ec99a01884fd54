"""Decides how a statement is sent, and gives the reason. No other module decides this.

`read_route`, `locking_route` and `write_route` choose the fastest route that has the same effect as SQLAlchemy's
ordinary one. A route consists of what sends the statement (`Sender`) and the transaction in which it is sent
(`Boundary`). The logger of this module writes each route with its reason at level DEBUG.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from typing import NamedTuple, TypeAlias, TypeVar

from sqlalchemy import Column, Engine
from sqlalchemy.orm import Session

from ..departures import (
    CHANGE,
    COPY_BY_DRIVER,
    READ_ALONE,
    READ_BY_DRIVER,
    READ_INSIDE,
    WRITE_ALONE,
    WRITE_BY_DRIVER,
    WRITE_INSIDE,
    Departure,
    Shortcut,
    engine_departure,
    has_session_listener,
    mapper_departure,
    session_departure,
)
from ..dialects.copying import copies
from ..dialects.drivers import driver_of
from ..dialects.isolation import saves_begin, statement_is_transaction
from ..models.traits import Traits
from .settings import FOR_WRITES, write_needs
from .state import SessionState, refuse_write, state_of

M = TypeVar("M")

_log = logging.getLogger(__name__)


class Sender(Enum):
    """What sends the statement. The first three are for all kinds of statements; the last three insert many rows.

    Each of the two groups is in the order of speed, the fastest first.
    """

    DRIVER = "by the driver, without SQLAlchemy"
    STATEMENT = "as a statement of SQLAlchemy's"
    UNIT_OF_WORK = "by a flush of the session"
    COPY = "by COPY"
    ARRAYS = "as an INSERT with an array for each column"
    VALUES = "as an INSERT with VALUES"


class Boundary(Enum):
    """The transaction in which the statement is sent."""

    AUTOCOMMIT = "without BEGIN and COMMIT"
    OWN_TRANSACTION = "in a transaction of its own"
    SESSION_TRANSACTION = "in the session's transaction"
    SAVEPOINT = "in a savepoint of the session's transaction"


class Circumstance(Enum):
    """The reasons, other than a `Departure`, why a faster route is not possible. The value is a sentence for users."""

    OPEN_TRANSACTION = "The session is in a transaction."
    OPEN_BLOCK = "A DatabaseTransaction is open."
    NO_AUTO_COMMIT = "auto_commit is off."
    EXPIRES_ON_COMMIT = "The session expires its objects at a commit."
    SETTINGS = "Row-level security or history needs a transaction that names the tenant or the actor."
    ISOLATION_LEVEL = "The isolation level is not READ COMMITTED."
    LOCKS = "The rows are locked until the transaction ends."
    OTHER_DRIVER = "The driver is none that is used without SQLAlchemy."
    MODEL = "The class has more than the plain columns of one table, or code of its own."
    STATEMENT = "The statement needs SQLAlchemy's execution."
    CONDITIONS = "The repository overrides conditions()."
    VALUES = "The values include relationships, the discriminator, or SQL expressions."
    NO_VALUES = "There are no values to write, so the row is only read."
    CASCADES = "The deletion affects related rows that the ORM must handle."
    FEW_ROWS = "The rows are too few."
    ARRAY_TYPES = "The database or a column's type has no arrays."
    NO_COPY = "COPY is not possible for the table, its columns, or its row-level security."


Reason: TypeAlias = Departure | Circumstance


class Route(NamedTuple):
    """How a statement is sent. ``reason`` says why no faster route is possible; None: there is no faster one."""

    sender: Sender
    boundary: Boundary
    reason: Reason | None = None

    def __str__(self) -> str:
        """A sentence or two for users."""
        route = f"The statement is sent {self.sender.value}, {self.boundary.value}."
        return route if self.reason is None else f"{route} {self.reason.value}"


DIRECT = Route(Sender.DRIVER, Boundary.AUTOCOMMIT)

ARRAYS_FROM = 20
"""From this number of rows on, one array parameter for each column is faster than VALUES."""

COPY_FROM = 500
"""From this number of rows on, COPY saves more than the check whether it may be used costs."""


def read_route(session: Session, traits: Traits[M] | None, refusal: Reason | None = None) -> Route:
    """The route of one read.

    ``refusal`` is the caller's reason why the driver must not send the read, for example that it loads relationships.
    ``traits`` None: the statement does not read a single mapped class, so the driver can't send it either.

    ======================================================  ===========  =====================
    condition, the first that applies                       sender       boundary
    ======================================================  ===========  =====================
    a transaction is open, or a block that is not lazy, or  driver       session's transaction
    a commit would expire objects, or row-level security
    needs one, and nothing refuses the driver
    the same, but something refuses the driver              SQLAlchemy   session's transaction
    nothing refuses the driver (`_driver_refusal`)          driver       AUTOCOMMIT
    the isolation level or a departure of the session,      either       session's transaction
    other than a listener, needs a transaction
    the database is not PostgreSQL, or a listener to the    either       its own transaction
    session or a departure of the engine needs BEGIN
    else                                                    SQLAlchemy   AUTOCOMMIT
    ======================================================  ===========  =====================

    Either: the driver if nothing refuses it within a transaction, else SQLAlchemy.
    """
    state = state_of(session)
    reason: Reason | None = _session_transaction_reason(session, state)
    if reason is not None:
        refusal = refusal or _driver_refusal(session, traits, READ_INSIDE, by_itself=False)
        sender = Sender.DRIVER if refusal is None else Sender.STATEMENT
        return Route(sender, Boundary.SESSION_TRANSACTION, reason)
    may_be_driver = refusal is None
    if refusal is None:
        refusal = _driver_refusal(session, traits, READ_BY_DRIVER, by_itself=True)
        if refusal is None:
            return DIRECT
    boundary, reason = _boundary_alone(session)
    if boundary is Boundary.AUTOCOMMIT:
        return Route(Sender.STATEMENT, boundary, refusal)
    by_driver = may_be_driver and _driver_refusal(session, traits, READ_INSIDE, by_itself=False) is None
    return Route(Sender.DRIVER if by_driver else Sender.STATEMENT, boundary, reason or refusal)


def locking_route(session: Session, traits: Traits[M] | None, refusal: Reason | None = None) -> Route:
    """The route of a read that locks rows, which is always in the session's transaction. See `read_route`."""
    refusal = refusal or _driver_refusal(session, traits, READ_INSIDE, by_itself=False)
    sender = Sender.DRIVER if refusal is None else Sender.STATEMENT
    return Route(sender, Boundary.SESSION_TRANSACTION, refusal or Circumstance.LOCKS)


def _boundary_alone(session: Session) -> tuple[Boundary, Reason | None]:
    """The boundary of a read outside of a transaction that the driver can't send in AUTOCOMMIT, and the reason."""
    reason = _transaction_need(session, READ_ALONE)
    if reason is not None and reason is not Departure.SESSION_LISTENER:
        return Boundary.SESSION_TRANSACTION, reason
    engine = engine_of(session)
    if not saves_begin(engine):
        return Boundary.OWN_TRANSACTION, None
    reason = reason or engine_departure(engine, READ_ALONE)
    return Boundary.AUTOCOMMIT if reason is None else Boundary.OWN_TRANSACTION, reason


def write_route(
    session: Session,
    traits: Traits[M],
    *,
    auto_commit: bool,
    sender: Sender = Sender.STATEMENT,
    refusal: Reason | None = None,
    is_single: bool = True,
    is_checked: bool = False,
) -> Route:
    """The route of one write.

    ``refusal`` is the caller's reason why the driver must not send the write. ``sender`` sends the write if the driver
    does not. ``is_checked``: the class has no listeners that an INSERT affects. ``is_single``: the whole write is one
    statement, so it can be sent without BEGIN and COMMIT.

    ============================================================  ================================
    condition, the first that applies                             boundary
    ============================================================  ================================
    a transaction is open in a block with ``savepoints=False``    session's transaction
    a transaction is open                                         savepoint
    the outermost `DatabaseTransaction` is lazy, this is its      AUTOCOMMIT
    last write, and the driver can send it by itself
    a `DatabaseTransaction` is open, but has not begun yet;       session's transaction, which the
    or ``auto_commit`` is off                                     write begins
    the driver sends the write, but a commit would expire         its own transaction
    objects, or row-level security needs a transaction
    the driver sends the write; or it is a single statement,      AUTOCOMMIT
    and nothing needs a transaction (`_can_omit_begin`), also
    no setting, which the driver would send with the write
    else                                                          its own transaction
    ============================================================  ================================
    """
    state = state_of(session)
    if state.read_only:
        refuse_write()
    reason: Reason | None
    if session.in_transaction():
        boundary = Boundary.SAVEPOINT if state.savepoints else Boundary.SESSION_TRANSACTION
        reason = Circumstance.OPEN_TRANSACTION
    elif state.open_blocks:
        if state.last_write and state.lazy and state.open_blocks == 1 and auto_commit and refusal is None:
            reason = _write_transaction_reason(session, state, traits) or _driver_refusal(
                session, traits, WRITE_BY_DRIVER, by_itself=True, is_checked=is_checked
            )
            if reason is None:
                return DIRECT
        boundary, reason = Boundary.SESSION_TRANSACTION, Circumstance.OPEN_BLOCK
    elif not auto_commit:
        boundary, reason = Boundary.SESSION_TRANSACTION, Circumstance.NO_AUTO_COMMIT
    else:
        boundary, reason = Boundary.OWN_TRANSACTION, _write_transaction_reason(session, state, traits)
    is_own = boundary is Boundary.OWN_TRANSACTION
    by_itself = reason is None
    may_be_driver = refusal is None and by_itself
    if refusal is None:
        shortcut = WRITE_BY_DRIVER if by_itself else WRITE_INSIDE
        refusal = _driver_refusal(session, traits, shortcut, by_itself=by_itself, is_checked=is_checked)
        if refusal is None:
            return DIRECT if by_itself else Route(Sender.DRIVER, boundary, reason)
    if is_own and is_single and not _needs_settings(state, traits) and _can_omit_begin(session):
        boundary = Boundary.AUTOCOMMIT
    elif may_be_driver and _driver_refusal(session, traits, WRITE_INSIDE, by_itself=False) is None:
        sender = Sender.DRIVER
    return Route(sender, boundary, refusal or reason)


def change_refusal(session: Session, traits: Traits[M], rows: Iterable[Mapping[str, object]]) -> Reason | None:
    """Why an UPDATE can't write these values, and a flush must write them. None: an UPDATE can."""
    if not traits.direct_writes:
        return mapper_departure(traits.mapper, CHANGE) or Circumstance.MODEL
    if has_session_listener(session, CHANGE):
        return Departure.SESSION_LISTENER
    return Circumstance.VALUES if any(needs_flush(traits, values) for values in rows) else None


def needs_flush(traits: Traits[M], values: Mapping[str, object]) -> bool:
    """Whether only a flush can write the values, since one belongs to the discriminator or to no column at all."""
    return traits.discriminator in values or any(key not in traits.columns for key in values)


def rows_sender(count: int, *, arrays: bool) -> Sender:
    """The sender of an INSERT that returns its ``count`` rows. ``arrays``: the dialect and the types allow arrays."""
    return Sender.ARRAYS if arrays and count >= ARRAYS_FROM else Sender.VALUES


def bulk_sender(
    session: Session, traits: Traits[M], columns: Collection[Column[object]], count: int, *, arrays: bool
) -> tuple[Sender, Reason | None]:
    """The sender of an INSERT of ``count`` rows that returns nothing, and the reason.

    Sends one statement that asks the database whether COPY is possible, unless something else rules COPY out.
    """
    if not traits.inserted_in_bulk:
        return Sender.UNIT_OF_WORK, Circumstance.MODEL
    if rows_sender(count, arrays=arrays) is Sender.VALUES:
        return Sender.VALUES, Circumstance.FEW_ROWS if arrays else Circumstance.ARRAY_TYPES
    departure = session_departure(session, COPY_BY_DRIVER)
    if departure is not None:
        return Sender.VALUES, departure
    if count < COPY_FROM:
        return Sender.ARRAYS, Circumstance.FEW_ROWS
    # COPY would write a column that is GENERATED ALWAYS AS IDENTITY, which INSERT rightly refuses.
    writes_identity = any(column.identity is not None and column.identity.always for column in columns)
    if not writes_identity and copies(session.connection({"mapper": traits.mapper}), traits.tables[0]):
        return Sender.COPY, None
    return Sender.ARRAYS, Circumstance.NO_COPY


def log_route(model: type | None, route: Route) -> None:
    """Write the route to the log at level DEBUG."""
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug("%s: %s", "A statement" if model is None else model.__name__, route)


def engine_of(session: Session) -> Engine:
    """The session's only engine. Call it only if `session_departure` found that the session has exactly one."""
    engine = session.bind
    assert isinstance(engine, Engine)
    return engine


def _session_transaction_reason(session: Session, state: SessionState) -> Circumstance | None:
    """Why a read must be sent in the session's transaction. None: nothing that this function checks requires it."""
    if session.in_transaction():
        return Circumstance.OPEN_TRANSACTION
    if state.open_blocks and not state.lazy:
        return Circumstance.OPEN_BLOCK
    return _own_transaction_reason(session, state)


def _own_transaction_reason(session: Session, state: SessionState) -> Circumstance | None:
    """Why a statement outside of a transaction must begin one. None: nothing that this function checks requires it."""
    if state.settings:
        return Circumstance.SETTINGS
    return Circumstance.EXPIRES_ON_COMMIT if _expires(session, state) else None


def _write_transaction_reason(session: Session, state: SessionState, traits: Traits[M]) -> Circumstance | None:
    """As `_own_transaction_reason`, for a write of the class that the driver sends."""
    if _needs_settings(state, traits, by_driver=True):
        return Circumstance.SETTINGS
    return _own_transaction_reason(session, state)


def _needs_settings(state: SessionState, traits: Traits[M], *, by_driver: bool = False) -> bool:
    """Whether a write of the class needs a transaction with settings. ``by_driver``: see `write_needs`."""
    if state.settings or not FOR_WRITES:
        return bool(state.settings)
    return any(write_needs(table, by_driver=by_driver) for table in traits.tables)


def _expires(session: Session, state: SessionState) -> bool:
    """Whether a commit would expire the session's objects, so that reading them later would send a statement."""
    return session.expire_on_commit and not state.asynchronous


def _transaction_need(session: Session, shortcut: Shortcut) -> Reason | None:
    """Why a statement needs a transaction. None: without one it has the same effect as in a transaction of its own.

    The settings of a transaction, such as the tenant of row-level security, are not checked here.
    """
    departure = session_departure(session, shortcut)
    if departure is not None and departure is not Departure.SESSION_LISTENER:
        return departure
    if not statement_is_transaction(engine_of(session)):
        return Circumstance.ISOLATION_LEVEL
    return departure


def _can_omit_begin(session: Session) -> bool:
    """Whether SQLAlchemy can send a write that is a single statement in AUTOCOMMIT.

    It can't if there are listeners that may send statements during a flush or commit, since these statements must be in
    the same transaction as the write.
    """
    if _transaction_need(session, WRITE_ALONE) is not None:
        return False
    engine = engine_of(session)
    return saves_begin(engine) and engine_departure(engine, WRITE_ALONE) is None


def _driver_refusal(
    session: Session, traits: Traits[M] | None, shortcut: Shortcut, *, by_itself: bool, is_checked: bool = False
) -> Reason | None:
    """Why the driver can't send a statement of the class; None: it can.

    ``by_itself``: it would be sent outside of a transaction. The driver can send it if the class has only columns, if
    the session, the engine and the class have no listeners or methods of the user's, and if a statement ``by_itself``
    needs no transaction. Listeners to writes of the class are not checked here, but by `Traits` when the statement is
    built.
    """
    bind = session.bind
    if bind is None:
        return Departure.SESSION_BINDS
    driver = driver_of(bind.dialect)
    if driver is None:
        return Circumstance.OTHER_DRIVER
    if traits is None:
        return Circumstance.STATEMENT
    if driver.is_absent():
        return Departure.INTERNALS
    if not traits.plain:
        return Circumstance.MODEL
    return (
        (_transaction_need(session, shortcut) if by_itself else session_departure(session, shortcut))
        or engine_departure(engine_of(session), shortcut)
        # An INSERT affects all events that reading its row affects, so one check is enough.
        or (None if is_checked else mapper_departure(traits.mapper, READ_BY_DRIVER))
    )
