"""Statements that are sent directly by the driver, because SQLAlchemy's processing costs more than the statement.

`routes` decides whether the driver can send a statement. The statement is compiled once, and runs on the pooled driver
connection (`dialects.drivers`). Its rows become the same objects, in the same state, as with the ORM. If the statement
or the connection turns out to be unsuitable, the functions return None, and the ORM is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Dialect, Engine, Table
from sqlalchemy import exc as sa
from sqlalchemy.orm import Session
from sqlalchemy.orm.base import instance_state

from ..departures import READ_INSIDE, WRITE_INSIDE, connection_departure, statement_listeners
from ..dialects.driver_internals import as_dbapi_error
from ..dialects.drivers import Arguments, Driver, Link, Opening, Pooled, Rows, driver_of, link_of
from ..dialects.errors import loses_connection
from ..dialects.features import has_transaction_settings
from ..dialects.savepoints import deeper, secure, undo
from ..dialects.settings import doubt_announced, forget_announced
from ..dialects.sqlite_engine import shared_pool
from ..dialects.stale_plans import go_back, is_stale_plan, mark_opening, mark_point, note_stale, point_of
from ..dialects.transactions import ABORTED, BUSY, equip_pooled, mark_aborted, total_changes, unmark_aborted
from ..errors import SessionEndedError, StatementBudgetExceeded
from ..models.traits import Traits
from ..observers import OBSERVED, Statement, observe
from ..sqlalchemy_internals import (
    execution_context,
    has_nothing_to_flush,
    note_inserted,
    raise_as_connect_error,
    raise_as_statement_error,
)
from .announcing import setting_parameters, with_settings
from .compiling import DriverStatement, Processors, driver_statement
from .objects import inserted, objects_of
from .routes import Boundary, Route, engine_of
from .settings import FOR_TRANSACTIONS, FOR_WRITES, announce, opening, providers_for, settings_for_write
from .state import SettingsProvider, discard_changes, state_of
from .work import lost_in_write, rollback, vanished

M = TypeVar("M")
Row = Sequence[object]

_PROCESSORS = "dotmac_database.processors"
"""The key in a pooled connection's ``info`` under which the conversions for each `DriverStatement` are cached."""

_MAX_PROCESSORS = 256
"""The maximum number of statements with cached conversions of a connection; asyncpg caches 100 prepared statements."""


def fetch(
    session: Session,
    route: Route,
    statement: object,
    parameters: Mapping[str, object],
    traits: Traits[M],
    fields: Sequence[str] | None,
    *,
    refresh: bool = False,
) -> list[tuple[object, ...]] | None:
    """The rows of a read, which takes one statement.

    Each row begins with a dict of these ``fields``, or with an object if ``fields`` is empty. With ``fields=None`` it
    has only values. Objects that the session already holds are refreshed if ``refresh`` is True, or if the read is not
    in the session's transaction. Returns None if the statement was not sent, or if the connection was lost outside of a
    transaction, since a read may be sent again. Raises SQLAlchemy's `DBAPIError`, whose ``orig`` is the driver's
    exception.
    """
    engine = engine_of(session)
    to_send = driver_statement(statement, engine.dialect, traits, fields)
    if to_send is None:
        return None
    is_within = route.boundary is not Boundary.AUTOCOMMIT
    if not is_within:
        rows = _records(engine, to_send, parameters)
    else:
        connection = session.connection() if has_nothing_to_flush(session) else None
        if connection is None or connection_departure(connection, READ_INSIDE):
            return None  # SQLAlchemy flushes before it reads
        is_protected = route.boundary is Boundary.SAVEPOINT
        rows = _records_within(session, connection, to_send, parameters, is_protected=is_protected)
    if rows is None or fields is None:
        return None if rows is None else [tuple(row) for row in rows]
    width, refreshes = len(to_send.keys), refresh or route.boundary is not Boundary.SESSION_TRANSACTION
    firsts: list[Any] = (
        [dict(zip(to_send.keys, row[:width], strict=True)) for row in rows]
        if fields
        else objects_of(session, traits, to_send.keys, rows, refresh=refreshes)
    )
    return [(each, *row[width:]) for each, row in zip(firsts, rows, strict=True)]


def can_send(session: Session, statement: object, traits: Traits[M], fields: Sequence[str] | None) -> bool:
    """Whether `fetch` would send this statement, if the connection caches prepared statements. Sends nothing."""
    return driver_statement(statement, engine_of(session).dialect, traits, fields) is not None


def write(
    session: Session,
    route: Route,
    statement: object,
    parameters: Mapping[str, object],
    traits: Traits[M],
    *,
    is_insert: bool = False,
    entity: M | None = None,
) -> list[M] | None:
    """The objects of the rows that a write returns. The write is one statement.

    ``is_insert``: it inserts one row. ``entity`` is the row's object, if it was constructed before; for an UPDATE it is
    the object whose changes the statement writes, and which is the session's only object with changes.

    With the boundary AUTOCOMMIT, the database commits it by itself, with the settings that it needs; if the connection
    is lost, `TransactionError` with ``outcome="unknown"`` is raised. Else it is part of the session's transaction,
    which is begun if there is none, and rolled back again if the write fails. A rollback makes an inserted object
    transient, as it does with a flushed one. Returns None if the statement was not sent.
    """
    engine = engine_of(session)
    to_send = driver_statement(statement, engine.dialect, traits, ())
    if to_send is None:
        return None
    if route.boundary is Boundary.AUTOCOMMIT:
        settings = settings_for_write(traits.tables) if FOR_WRITES else _NONE
        if settings and to_send.driver.sets_in_statement:
            to_send = with_settings(to_send, tuple(settings), engine.dialect, traits)
            if to_send is None:
                return None
            parameters = {**parameters, **setting_parameters(settings.values())}
            settings = _NONE
        rows = _records(engine, to_send, parameters, _Write(settings))
        if rows is None or not is_insert:
            return None if rows is None else objects_of(session, traits, to_send.keys, rows)
        return [inserted(session, traits, to_send.keys, rows[0], entity)]
    if (is_insert or entity is None) and not has_nothing_to_flush(session):
        return None  # the changes that wait may belong to the same rows
    begins = not session.in_transaction()
    try:
        rows = _written(session, route, to_send, parameters, traits.tables)
        if rows is None or not is_insert:
            return None if rows is None else objects_of(session, traits, to_send.keys, rows)
        new = inserted(session, traits, to_send.keys, rows[0], entity)
    except BaseException:
        if begins:
            rollback(session, keep_values=True)
        raise
    note_inserted(session, [instance_state(new)])
    return [new]


def sets_savepoints(session: Session) -> bool:
    """Whether the driver sets a savepoint before its next protected statement in the session's transaction."""
    connection = session.connection()
    driver, link = driver_of(connection.dialect), link_of(connection.connection)
    if driver is None or driver.undoes_statement or not driver.is_usable(link):
        return False
    return driver.in_transaction(link) and not driver.commits_each(link)


@contextmanager
def undoing(session: Session) -> Iterator[None]:
    """If this block fails, undo it and the driver's last statement, which was protected by a savepoint.

    The session had no changes before the block. The changes of its objects are undone as well.
    """
    connection = session.connection()
    driver, link = driver_of(connection.dialect), link_of(connection.connection)
    assert driver is not None, "it has sent the statement"
    try:
        with deeper(link.pooled.info):
            yield
    except BaseException:
        if connection.closed or connection.invalidated or link.pooled.dbapi_connection is not link.adapted:
            raise  # with the connection, the transaction is lost
        try:
            undo(driver, link)
        except BaseException as failure:
            connection.invalidate(failure)
            raise
        doubt_announced(link.pooled.info)
        unmark_aborted(connection)
        discard_changes(session)
        raise


def _written(
    session: Session,
    route: Route,
    to_send: DriverStatement,
    parameters: Mapping[str, object],
    tables: Sequence[Table],
) -> Sequence[Row] | None:
    connection = session.connection()
    if connection_departure(connection, WRITE_INSIDE):
        return None
    is_protected = route.boundary is Boundary.SAVEPOINT
    return _records_within(session, connection, to_send, parameters, written=tables, is_protected=is_protected)


class _Write(NamedTuple):
    """A write in AUTOCOMMIT, with the ``settings`` that must be set around it, because it does not set them itself."""

    settings: Mapping[str, str]


_NONE: Mapping[str, str] = {}


def _records(
    engine: Engine, to_send: DriverStatement, parameters: Mapping[str, object], write: _Write | None = None
) -> Sequence[Row] | None:
    """The rows of a statement in AUTOCOMMIT. None: it was not sent, or a read (no ``write``) lost its connection."""
    if statement_listeners(engine) is not None:
        return _observed_records(engine, to_send, parameters, write)
    try:
        pooled: Pooled = engine.raw_connection()
    except engine.dialect.loaded_dbapi.Error as error:
        raise_as_connect_error(error, engine)
        raise
    try:
        link = link_of(pooled)
        if not to_send.driver.is_usable(link) or to_send.driver.in_transaction(link):
            return None  # other code began a transaction that could be rolled back
        equip_pooled(engine.dialect, pooled)
        arguments = to_send.arguments(parameters)
        observed = observe(engine.dialect, to_send.sql) if OBSERVED else None
        return _sent(
            engine.dialect,
            link,
            to_send,
            to_send.sql,
            arguments,
            is_within=False,
            write=write,
            observed=observed,
        )
    except (StatementBudgetExceeded, Warning):
        raise  # an observer has refused the statement
    except Exception as error:
        lost = loses_connection(engine.dialect, pooled, error)
        if lost:
            pooled.invalidate(error)
            if write is not None:
                raise lost_in_write() from error
            return None
        raise to_send.driver.error(engine.dialect, to_send.sql, error, lost=False) from error
    except BaseException as ended:
        if shared_pool(engine) is None:
            pooled.invalidate(ended)  # the task was cancelled, and it is unknown what the server sends next
        raise
    finally:
        pooled.close()


def _observed_records(
    engine: Engine, to_send: DriverStatement, parameters: Mapping[str, object], write: _Write | None
) -> Sequence[Row] | None:
    """As `_records`, for an engine with listeners to its statements.

    If a listener sends statements before, they begin a transaction, of which the statement is then a part.
    """
    with engine.connect() as connection:
        link = link_of(connection.connection)
        if not to_send.driver.is_usable(link) or to_send.driver.in_transaction(link):
            return None  # as in `_records`
        observed = observe(engine.dialect, to_send.sql) if OBSERVED else None
        try:
            rows = _observed(connection, link, to_send, parameters, is_within=False, write=write, observed=observed)
            if connection.in_transaction():
                connection.commit()
            elif to_send.driver.in_transaction(link):
                link.adapted.commit()
        except sa.DBAPIError as error:
            if not error.connection_invalidated:
                raise
            if write is not None:
                raise lost_in_write() from error.orig
            return None
    return rows


def _observed(
    connection: Connection,
    link: Link,
    to_send: DriverStatement,
    parameters: Mapping[str, object],
    *,
    is_within: bool,
    write: _Write | None = None,
    observed: Statement | None,
) -> Sequence[Row]:
    """The rows of a statement, between the calls of the engine's listeners to statements.

    They get what they would get from SQLAlchemy, and may replace the SQL and the parameters.
    """
    listeners = statement_listeners(connection.engine)
    assert listeners is not None
    statement, compiled = to_send.compiled(connection.engine.dialect)
    context = execution_context(connection, compiled, parameters, statement)
    sql, arguments = context.statement, context.parameters[0]
    try:
        for listener in listeners.before:
            sql, arguments = listener(connection, context.cursor, sql, arguments, context, False)
        is_within = is_within or to_send.driver.in_transaction(link)
        rows = _sent(
            connection.dialect,
            link,
            to_send,
            sql,
            arguments,
            is_within=is_within,
            write=write,
            observed=observed,
        )
        for listener in listeners.after:
            listener(connection, context.cursor, sql, arguments, context, False)
    except SessionEndedError:
        raise
    except BaseException as error:
        cause = as_dbapi_error(link.adapted, error) if isinstance(error, Exception) else error
        raise_as_statement_error(connection, cause, sql, arguments, context)
        raise
    context.cursor.close()
    return rows


def _records_within(
    session: Session,
    connection: Connection,
    to_send: DriverStatement,
    parameters: Mapping[str, object],
    *,
    written: Sequence[Table] = (),
    is_protected: bool = False,
) -> Sequence[Row] | None:
    """The rows of a statement in the connection's transaction, which is begun if need be. None: nothing was sent.

    ``written`` are the tables to which it may write; empty: it reads. ``is_protected``: if the statement fails, only
    the statement is undone. Else the transaction can only be rolled back after a failed write, on PostgreSQL also after
    a failed read.
    """
    link = link_of(connection.connection)
    if not to_send.driver.is_usable(link) or to_send.driver.commits_each(link):
        return None
    providers: Sequence[SettingsProvider] | None = None
    if state_of(session).settings or FOR_TRANSACTIONS or (FOR_WRITES and written):
        providers = providers_for(session, written)
        if to_send.driver.in_transaction(link) or not has_transaction_settings(connection.dialect.name):
            announce(connection, providers)
    observed = observe(connection.dialect, to_send.sql) if OBSERVED else None
    attempt = _Attempt(session, connection, link, to_send)
    info = link.pooled.info
    info[BUSY] = True
    try:
        if providers is not None and not attempt.begun:
            attempt.open(opening(connection, providers))
        if is_protected:
            attempt.secure()
        if attempt.observed:
            return _observed(connection, link, to_send, parameters, is_within=True, observed=observed)
        arguments = to_send.arguments(parameters)
        return _sent(connection.dialect, link, to_send, to_send.sql, arguments, is_within=True, observed=observed)
    except SessionEndedError:
        raise
    except Exception as error:
        failure = attempt.failed(error, is_write=bool(written))
        if failure is error:
            raise
        raise failure from error
    except BaseException as ended:
        if not connection.closed and shared_pool(connection.engine) is None:
            connection.invalidate(ended)
        raise
    finally:
        info.pop(BUSY, None)


class _Attempt:
    """A statement that is sent in a transaction, and what must be known to undo it."""

    def __init__(self, session: Session, connection: Connection, link: Link, to_send: DriverStatement) -> None:
        self._session, self._connection, self._link, self._to_send = session, connection, link, to_send
        self._driver = to_send.driver
        self.observed = statement_listeners(connection.engine) is not None
        self.begun = self._driver.in_transaction(link)
        self._aborted = ABORTED in link.pooled.info
        self._changes = total_changes(connection) if self._driver.undoes_statement else None
        self._opens = self._secured = False

    def open(self, settings: Opening | None) -> None:
        """Begin the transaction with settings, if there are any."""
        if settings is None:
            return
        self._opens = True
        pooled = self._link.pooled
        point_of(self._connection.dialect, pooled, self._link.driver)  # makes the connection forget its stale plans
        sql, arguments = self._driver.open(self._link, settings)
        _refuse_lost(self._link)
        mark_opening(pooled, sql, arguments)
        self._opens = False

    def secure(self) -> None:
        """Make sure that a failure of the statement can be undone alone."""
        if self.begun and not self._driver.undoes_statement:
            mark_point(self._link.pooled, secure(self._driver, self._link))
        self._secured = True

    def failed(self, error: Exception, *, is_write: bool) -> Exception:
        """The exception to raise for the error of the driver, or of SQLAlchemy if there are listeners to statements.

        The statement is undone if it is secured; else the transaction can only be rolled back.
        """
        connection = self._connection
        if isinstance(error, sa.DBAPIError) and error.connection_invalidated:
            return error  # SQLAlchemy has called the listeners with it, and invalidated the connection
        if connection.closed or connection.invalidated:
            return SessionEndedError()
        cause = error.orig if isinstance(error, sa.DBAPIError) else error
        lost = isinstance(cause, Exception) and loses_connection(connection.dialect, self._link.pooled, cause)
        if lost or self._opens:
            connection.invalidate(error)
        elif self._secured:
            self._undo()
        elif is_write or not (self._driver.undoes_statement or self.observed):
            mark_aborted(connection)
        if self.observed:
            return error  # it is what SQLAlchemy raises, or the exception of a listener
        return self._driver.error(connection.dialect, self._to_send.sql, error, lost=lost)

    def _undo(self) -> None:
        driver, link, connection = self._driver, self._link, self._connection
        if driver.undoes_statement:
            # A trigger can end the transaction, or keep what it has written before it failed (RAISE(FAIL)).
            if self.begun and (not driver.in_transaction(link) or total_changes(connection) != self._changes):
                rollback(self._session)
                raise vanished()
            return self._unmark()
        try:
            if self.begun:
                undo(driver, link)
            else:
                link.adapted.rollback()  # nothing came before the statement
        except Exception as error:
            connection.invalidate(error)
            raise
        if not self.begun:
            forget_announced(link.pooled.info)
        return self._unmark()

    def _unmark(self) -> None:
        if not self._aborted:
            unmark_aborted(self._connection)


def _sent(
    dialect: Dialect,
    link: Link,
    to_send: DriverStatement,
    sql: str,
    arguments: Arguments,
    *,
    is_within: bool,
    write: _Write | None = None,
    observed: Statement | None = None,
) -> Sequence[Row]:
    """The rows of a statement, with their values as SQLAlchemy's types convert them.

    With ``is_within``, a transaction is begun first unless the connection has one already. Without it, the database
    commits the statement by itself, which may be a ``write``. ``observed`` is ended when the database has answered.
    """
    driver = to_send.driver
    if observed is not None:
        observed.started = perf_counter()
    leaves = not is_within and driver.enter_autocommit(link, is_write=write is not None)
    settings = _NONE if write is None else write.settings
    try:
        if settings:
            driver.set_for_write(link, settings)
        rows, types = _with_fresh_plan(dialect, link, driver, sql, arguments, is_within=is_within)
        if settings:
            driver.unset_after_write(link)
    except BaseException as error:
        if observed is not None:
            observed.end(error)
        if leaves and isinstance(error, Exception):
            driver.leave_autocommit(link, failed=True)
        raise
    if leaves:
        driver.leave_autocommit(link)
    if observed is not None:
        observed.end()
    return _converted(rows, _processors(dialect, link, to_send, sql, types)) if rows else rows


def _with_fresh_plan(
    dialect: Dialect, link: Link, driver: Driver, sql: str, arguments: Arguments, *, is_within: bool
) -> tuple[Rows, object]:
    """What `Driver.send` returns. If the server's plan is stale and no earlier work is lost, it is sent again."""
    point = point_of(dialect, link.pooled, link.driver)
    if is_within:
        driver.begin(link)
        _refuse_lost(link)
    try:
        return driver.send(link, sql, arguments)
    except Exception as error:
        if not is_stale_plan(error):
            raise
        note_stale(dialect)
        if point is None:
            raise
        _refuse_lost(link)
        go_back(dialect, link.pooled, point)
        if is_within:
            driver.begin(link)
        _refuse_lost(link)
        return driver.send(link, sql, arguments)


def _converted(rows: Iterable[Iterable[object]], processors: Processors) -> Sequence[Row]:
    """The rows with their values as SQLAlchemy's types convert them."""
    lists = [list(row) for row in rows]
    for place, process in processors:
        for row in lists:
            row[place] = process(row[place])
    return lists


def _refuse_lost(link: Link) -> None:
    """Raise `SessionEndedError` if the connection was returned to the pool meanwhile: another session may use it."""
    if link.pooled.dbapi_connection is not link.adapted:
        raise SessionEndedError


def _processors(dialect: Dialect, link: Link, to_send: DriverStatement, sql: str, types: object) -> Processors:
    """The conversions of the rows that a connection has just fetched, for the types that the server reported.

    After a change of the schema, the server may report other types, and the conversions are made anew.
    """
    info = link.pooled.info
    cached: dict[DriverStatement, tuple[object, Processors]] | None = info.get(_PROCESSORS)
    if cached is None:
        cached = info[_PROCESSORS] = {}
    last = cached.get(to_send)
    if last is not None and types is not None and last[0] == types:
        return last[1]
    oids = to_send.driver.oids(link, sql, types, len(to_send.types))
    processors = to_send.processors(dialect, oids)
    if types is not None:
        if len(cached) >= _MAX_PROCESSORS:
            cached.clear()
        cached[to_send] = types, processors
    return processors
