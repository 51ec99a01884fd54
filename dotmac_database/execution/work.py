"""Runs reads and writes along their routes, and begins, commits and rolls back transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy import exc as sa
from sqlalchemy.orm import Session, SessionTransactionOrigin

from ..dialects import cause_of, lost_connection, translate, translated
from ..dialects.stale_plans import mark_savepoint
from ..dialects.transactions import (
    BEFORE_UNDO,
    connections_of,
    end_snapshot,
    ensure_begun,
    equip,
    has_vanished,
    in_use,
    is_aborted,
    is_busy,
    mark_aborted,
    refuses_commit,
    throw_away,
)
from ..errors import DatabaseError, TransactionError
from ..sqlalchemy_internals import begin_nested_unflushed, has_nothing_to_flush
from .ended import end_for_good
from .routes import Boundary, Route, Sender, log_route, read_route
from .settings import writes_have_settings
from .state import Held, has_several_engines, loaded_values, refuse_ended, restore_values, state_of

T = TypeVar("T")

_IN_TRANSACTION: Mapping[str, object] = {}
_ALONE: Mapping[str, object] = {"populate_existing": True}


Work = Callable[[Mapping[str, object]], T]
"""A function that reads, and gets the execution options for its statements."""


def read(
    session: Session, work: Work[T], model: type | None = None, *, route: Route | None = None, recover: bool = False
) -> T:
    """Run reads, and return the result of ``work``. Raises the toolkit's exceptions.

    ``route`` is the route of the reads if the caller knows it already. A read that is not in the session's transaction
    returns its connection to the pool at once, refreshes objects that the session already holds, and is sent again once
    if the connection is lost. ``recover``: if an error ends the session's transaction, and earlier statements had begun
    that transaction implicitly, then it is rolled back here. Raises `SessionEndedError` for an ended session.
    """
    with translated(model):
        refuse_ended(session)
        route = route or read_route(session, None)
        log_route(model, route)
        if route.boundary is Boundary.SESSION_TRANSACTION:
            return _read_inside(session, work, recover=recover)
        try:
            return _read_alone(session, route, work)
        except (sa.DBAPIError, OSError) as error:
            if not lost_connection(error):
                raise
        return _read_alone(session, route, work)


def locking(
    session: Session, route: Route, work: Callable[[], T], model: type | None = None, *, commits_by_hand: bool = False
) -> T:
    """Run reads that lock rows. Raises the toolkit's exceptions.

    The locks end with the transaction. Therefore `TransactionError` is raised if no transaction is open, unless the
    caller commits explicitly (``commits_by_hand``): then the read may begin the transaction.
    """
    with translated(model):
        refuse_ended(session)
        if not (commits_by_hand or state_of(session).open_blocks or session.in_transaction()):
            raise TransactionError("Rows can be locked within a transaction only: open a DatabaseTransaction.")
        log_route(model, route)
        return _read_inside(session, lambda _: work(), recover=False)


def _read_inside(session: Session, work: Work[T], *, recover: bool) -> T:
    equip(session)
    try:
        return work(_IN_TRANSACTION)
    except (sa.DBAPIError, OSError) as error:
        ended = lost_connection(error) or refuses_commit(session)
        if recover and ended and not state_of(session).open_blocks and _autobegun(session):
            rollback(session, keep_values=True)
        raise


def _read_alone(session: Session, route: Route, work: Work[T]) -> T:
    state = state_of(session)
    state.reading_alone = True
    try:
        if route.boundary is Boundary.AUTOCOMMIT:
            session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        result = work(_ALONE)
        _commit_keeping(session)
        return result
    except BaseException:
        rollback(session, keep_values=True)
        raise
    finally:
        state.reading_alone = False


def refuse_in_use(session: Session) -> None:
    """Raise `TransactionError` if another task is running a statement in the session's transaction."""
    if in_use(session):
        raise _another_task()


def refuse_aborted(connections: Iterable[Connection]) -> None:
    """Raise `TransactionError` if a statement has failed in the transaction of one of the connections."""
    if any(map(is_aborted, connections)):
        raise TransactionError("A statement of this transaction failed; it can only be rolled back.")


def _is_shared(error: BaseException) -> bool:
    """Whether SQLAlchemy's error is about concurrent use of the session: https://sqlalche.me/e/21/isce."""
    return isinstance(error, sa.InvalidRequestError) and error.code == "isce"


def _another_task() -> TransactionError:
    return TransactionError("Another task still runs a statement on this session; give each task its own session.")


@contextmanager
def writing(
    session: Session, route: Route, *, auto_commit: bool, model: type | None = None
) -> Iterator[Callable[[], None]]:
    """Run one write atomically in this block.

    Without an open transaction, the block begins one, and rolls it back if the block fails. In an open transaction, the
    block is a savepoint, so that a failure keeps earlier work, and leaves the session usable. Without savepoints a
    failure dooms the transaction. At its end the block
    commits if ``auto_commit`` is True, no `DatabaseTransaction` is open, and the user has not begun the transaction
    explicitly.

    ``with ... as`` gives a function. Call this function directly before a statement that is the whole write. If the
    route has the boundary AUTOCOMMIT, the statement is then sent without BEGIN and COMMIT.
    """
    state = state_of(session)
    with translated(model):
        refuse_ended(session)
        log_route(model, route)
        if route.boundary is Boundary.SAVEPOINT:
            with savepoint(session):
                yield _nothing
        elif session.in_transaction():
            with _dooming(session):
                yield _nothing
                session.flush()
        else:
            with _values_before_rollback(session) as held:
                try:
                    yield (lambda: _without_begin(session)) if _omits_begin(route) else _nothing
                    session.flush()
                except BaseException as error:
                    rollback(session, keep_values=True)
                    restore_values(session, held)
                    if state.writing_alone and isinstance(error, Exception) and lost_connection(error):
                        raise lost_in_write() from cause_of(error)
                    raise
                finally:
                    state.writing_alone = False
    commit_own(session, auto_commit=auto_commit, model=model)


@contextmanager
def _dooming(session: Session) -> Iterator[None]:
    """Refuse to commit the session's transaction if the block fails."""
    try:
        yield
    except BaseException:
        # A failed flush has rolled the innermost transaction back, and it can't be used any more.
        transaction = session.get_nested_transaction() or session.get_transaction()
        for connection in connections_of(session) if transaction is not None and transaction.is_active else ():
            if not connection.invalidated:
                mark_aborted(connection)
        raise


def commit_own(session: Session, *, auto_commit: bool, model: type | None = None) -> None:
    """Commit after a write if ``auto_commit`` is True, no block is open, and the user did not begin the transaction."""
    if auto_commit and not state_of(session).open_blocks and _autobegun(session):
        commit(session, model)


def _omits_begin(route: Route) -> bool:
    """Whether the statement can be sent without BEGIN and COMMIT.

    If the driver should have sent it, and has not, nothing else sends the settings that it may need together with it.
    """
    if route.boundary is not Boundary.AUTOCOMMIT:
        return False
    return route.sender is not Sender.DRIVER or not writes_have_settings()


def _without_begin(session: Session) -> None:
    """Let the server commit the next statement by itself, unless an earlier statement has begun a transaction."""
    if connections_of(session):
        return
    session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
    state_of(session).writing_alone = True


def lost_in_write() -> TransactionError:
    """The error for a connection that is lost during a statement that the server commits by itself."""
    return TransactionError("The connection was lost during a write; it may have taken effect.", outcome="unknown")


def _nothing() -> None:
    """Does nothing: the write is part of a transaction."""


@contextmanager
def _values_before_rollback(session: Session) -> Iterator[list[Held]]:
    """A list that is filled with the objects' loaded values as soon as a statement fails.

    This must be done before SQLAlchemy rolls back a failed flush, which expires the values.
    """
    state_of(session)  # if the session has no state yet, this makes it, and adds the toolkit's listeners to the engine
    equip(session)
    held: list[Held] = []

    def hold() -> None:
        if not held:
            held.extend(loaded_values(session))

    token = BEFORE_UNDO.set(hold)
    try:
        yield held
    finally:
        BEFORE_UNDO.reset(token)


def begin_for_savepoint(session: Session) -> None:
    """Begin the transaction of each engine that the session uses already, since a savepoint needs one.

    An engine that the session uses later begins its transaction by itself.
    """
    if not has_several_engines(session):
        ensure_begun(session.connection())
        return
    transaction: Any = session.get_nested_transaction() or session.get_transaction()
    for connection in transaction.connections if transaction is not None else ():
        ensure_begun(connection)


@contextmanager
def savepoint(session: Session, *, flush: bool = True) -> Iterator[None]:
    """A savepoint in the open transaction, which costs two statements. A failure undoes only this block.

    Without ``flush``, changes that wait are part of the block; otherwise they are flushed before it.
    """
    begin_for_savepoint(session)
    with _values_before_rollback(session) as held:
        try:
            with session.begin_nested() if flush else begin_nested_unflushed(session):
                note_savepoint_begun(session)
                try:
                    yield
                except BaseException:
                    if not held:
                        held.extend(loaded_values(session))
                    raise
        except BaseException as error:
            if isinstance(error, Exception) and any(map(has_vanished, connections_of(session))):
                rollback(session)
                raise vanished() from cause_of(error)
            restore_values(session, held)
            raise


@contextmanager
def with_savepoints(session: Session) -> Iterator[None]:
    """Give each write of this block a savepoint, also in a `DatabaseTransaction` with ``savepoints=False``."""
    state = state_of(session)
    outer, state.savepoints = state.savepoints, True
    try:
        yield
    finally:
        state.savepoints = outer


def has_sent_nothing(session: Session) -> bool:
    """Whether the next statement is the first one of the session's transaction, and no flush precedes it."""
    return not (connections_of(session) or session.in_nested_transaction()) and has_nothing_to_flush(session)


def end_snapshots(session: Session) -> None:
    """Begin the session's transaction anew on SQLite, if it has only read.

    Then it waits for transactions that have written meanwhile, where it could not write otherwise.
    """
    for connection in connections_of(session):
        end_snapshot(connection)


def vanished() -> TransactionError:
    """The error for a transaction that the database has ended because of an error of one of its statements."""
    return TransactionError("The database has rolled the whole transaction back because of an error.")


def note_savepoint_begun(session: Session) -> None:
    """Note that nothing was sent since the session's innermost savepoint.

    If the plan of the next statement is stale, the transaction is rolled back to the savepoint, and the statement is
    sent again.
    """
    # With several engines, the engine of the next statement is not known yet.
    if session.in_nested_transaction() and not has_several_engines(session):
        mark_savepoint(session.connection())


def _autobegun(session: Session) -> bool:
    transaction = session.get_transaction()
    return (
        transaction is not None
        and transaction.origin is SessionTransactionOrigin.AUTOBEGIN
        and not session.in_nested_transaction()
    )


def commit(session: Session, model: type | None = None) -> None:
    """Flush, then COMMIT. If this fails, roll back and raise the toolkit's exception.

    If the connection is lost during COMMIT, a `TransactionError` with ``outcome="unknown"`` is raised. If the
    transaction is aborted, a `TransactionError` is raised too, since PostgreSQL would execute COMMIT as a ROLLBACK
    without an error.
    """
    flushed = False
    try:
        if not has_nothing_to_flush(session):
            session.flush()
        flushed = True
        connections = connections_of(session)
        refuse_aborted(connections)
        if any(map(is_busy, connections)):
            raise _another_task()
        _commit_keeping(session)
    except (DatabaseError, sa.SQLAlchemyError, OSError) as error:
        rollback(session)
        if isinstance(error, DatabaseError):
            raise
        if _is_shared(error):
            raise _another_task() from error
        if flushed and lost_connection(error):
            raise TransactionError(
                "The connection was lost during COMMIT; it may have taken effect.", outcome="unknown"
            ) from cause_of(error)
        raise translate(error, model) from cause_of(error)
    except BaseException:
        rollback(session)
        raise


def _commit_keeping(session: Session) -> None:
    state = state_of(session)
    preserved, state.preserved = state.preserved, []
    if not session.expire_on_commit or not (preserved or state.asynchronous):
        session.commit()
        return
    session.expire_on_commit = False
    try:
        session.commit()
    finally:
        session.expire_on_commit = True
    if state.asynchronous:
        return
    keeping = {id(entity) for entity in preserved}
    for entity in list(session.identity_map.values()):
        if id(entity) not in keeping:
            session.expire(entity)


def rollback(session: Session, *, keep_values: bool = False) -> None:
    """Roll back. If that fails, the connection is discarded.

    ``keep_values``: no earlier statement of the transaction has written anything, so loaded objects keep their values.
    If they were expired instead, an `AsyncSession` could not load them implicitly.
    """
    state_of(session).preserved.clear()
    held = loaded_values(session) if keep_values else []
    shared = in_use(session)
    try:
        if not shared:
            session.rollback()
    except Exception as error:  # noqa: BLE001 - after any failure the connection is unusable
        shared = _is_shared(error)
        if not shared:
            discard(session)
    if shared:
        end_for_good(session)  # so that the other task can't commit while this one waits for the connection to close
        discard(session)
    restore_values(session, held)


def discard(session: Session) -> None:
    """Close the connections of the session's transaction, so that no other session gets one that is still in use.

    SQLAlchemy may refuse to invalidate the session, because another task is executing one of the session's methods.
    This error is suppressed.
    """
    for connection in connections_of(session):
        throw_away(connection)
    with suppress(sa.IllegalStateChangeError):
        session.invalidate()
