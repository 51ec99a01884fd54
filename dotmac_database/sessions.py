"""The toolkit's state of a session, and the functions that run reads and writes on it.

The state is stored on the sync session, which is also behind every `AsyncSession`. The functions `read`, `writing`,
`savepoint` and `commit` decide when a transaction is begun and ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine, inspect
from sqlalchemy import exc as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import InstanceState, LoaderCallableStatus, Session, SessionTransactionOrigin, scoped_session
from sqlalchemy.orm.attributes import set_committed_value

from .dialects import cause_of, lost_connection, translate, translated
from .dialects.stale_plans import mark_savepoint
from .dialects.transactions import (
    BEFORE_UNDO,
    connections_of,
    ensure_begun,
    equip,
    in_use,
    refuses_commit,
    throw_away,
    watch,
)
from .ended import end_for_good
from .errors import DatabaseError, MisuseError, SessionEndedError, TransactionError
from .plainness import READ_ALONE, WRITE_ALONE, Departure, Way, departure, has_ended, session_departure

T = TypeVar("T")

AnySession: TypeAlias = Session | AsyncSession | scoped_session[Session] | async_scoped_session[AsyncSession]
_INFO = "dotmac_database"
_IN_TRANSACTION: Mapping[str, Any] = {}
_ALONE: Mapping[str, Any] = {"populate_existing": True}


@dataclass(slots=True)
class SessionState:
    """The toolkit's state of one sync session.

    ``units`` is the number of open `DatabaseTransaction` blocks, including that of the plugin's request; while it is
    not zero, ``auto_commit`` only flushes. ``lazy``: the outermost block has no database transaction until its first
    write. ``preserved`` are the objects that repositories returned in this transaction: they keep their values after
    its commit. ``standalone_reads`` is False if each statement needs a transaction, as with row-level security.
    ``asynchronous``: the session belongs to an `AsyncSession`, whose objects the toolkit never expires, since expired
    attributes can't be loaded implicitly there. ``reading_alone`` marks a read without a transaction, whose end is no
    commit for others; ``writing_alone`` a write whose single statement is a transaction by itself.
    """

    units: int = 0
    lazy: bool = False
    preserved: list[Any] = field(default_factory=list)
    standalone_reads: bool = True
    asynchronous: bool = False
    reading_alone: bool = False
    writing_alone: bool = False


def sync_session(session: Any) -> Session:
    """The sync session of ``session``, which may be async or scoped. Raises `ValidationError` for anything else."""
    if isinstance(session, (scoped_session, async_scoped_session)):
        session = session()
    if isinstance(session, AsyncSession):
        return session.sync_session
    if isinstance(session, Session):
        return session
    raise MisuseError(f"A Session or an AsyncSession was expected, not {type(session).__name__}.")


def state_of(session: Session) -> SessionState:
    """The toolkit's state of a sync session, which is created at its first use."""
    state: SessionState | None = session.info.get(_INFO)
    if state is None:
        state = session.info[_INFO] = SessionState()
        for bind in (session.bind, *session.binds.values()):
            watch(bind)
    return state


Work = Callable[[Mapping[str, Any]], T]
"""A function that reads, and gets the execution options for its statements."""


def read(session: Session, work: Work[T], model: type | None = None, *, recover: bool = False) -> T:
    """Run reads, and return the result of ``work``. Raises the toolkit's exceptions.

    Without a need for a transaction, the statement is sent in AUTOCOMMIT (PostgreSQL), and the connection is returned
    to the pool at once. If a listener of the user's may need a transaction (to set a role, for example), the read has a
    transaction of its own. Both kinds of read refresh objects that the session already holds, and are sent again once
    if the connection is lost. ``recover``: if an error has ended a transaction that only earlier reads had begun, it is
    rolled back. Raises `SessionEndedError` for an ended session.
    """
    with translated(model):
        refuse_ended(session)
        engine = autocommit_engine(session, READ_ALONE, listened=True)
        if engine is None:
            return _read_inside(session, work, recover=recover)
        try:
            return _read_alone(session, engine, work)
        except (sa.DBAPIError, OSError) as error:
            if not lost_connection(error):
                raise
        return _read_alone(session, engine, work)


def locking(session: Session, work: Callable[[], T], model: type | None = None, *, commits_by_hand: bool = False) -> T:
    """Run reads that lock rows. Raises the toolkit's exceptions.

    The locks end with the transaction, so without an open transaction it raises `TransactionError`.
    ``commits_by_hand``: the caller commits explicitly, so that a transaction may also begin here.
    """
    with translated(model):
        refuse_ended(session)
        if not (commits_by_hand or state_of(session).units or session.in_transaction()):
            raise TransactionError("Rows can be locked within a transaction only: open a DatabaseTransaction.")
        return _read_inside(session, lambda _: work(), recover=False)


def _read_inside(session: Session, work: Work[T], *, recover: bool) -> T:
    equip(session)
    try:
        return work(_IN_TRANSACTION)
    except (sa.DBAPIError, OSError) as error:
        ended = lost_connection(error) or refuses_commit(session)
        if recover and ended and not state_of(session).units and _autobegun(session):
            rollback(session, undo_nothing=True)
        raise


def _read_alone(session: Session, engine: Engine, work: Work[T]) -> T:
    state = state_of(session)
    state.reading_alone = True
    try:
        if engine.dialect.name == "postgresql" and departure(session, engine, None, READ_ALONE) is None:
            session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        result = work(_ALONE)
        _commit_keeping(session)
        return result
    except BaseException:
        rollback(session, undo_nothing=True)
        raise
    finally:
        state.reading_alone = False


def autocommit_engine(session: Session, way: Way, *, listened: bool = False) -> Engine | None:
    """The engine, if a statement may be sent outside of any transaction of the session; else None.

    ``listened``: also if there are listeners to the session.
    """
    state = state_of(session)
    if session.in_transaction() or (session.expire_on_commit and not state.asynchronous):
        return None
    if state.units and not state.lazy:
        return None
    return needs_no_transaction(session, state, way, listened=listened)


def needs_no_transaction(session: Session, state: SessionState, way: Way, *, listened: bool = False) -> Engine | None:
    """The engine, if a statement has the same effect without a transaction as with one of its own; else None."""
    if not state.standalone_reads:
        return None
    found = session_departure(session, way)
    if found is not None and not (listened and found is Departure.SESSION_LISTENER):
        return None
    engine = session.bind
    assert isinstance(engine, Engine)
    if not hasattr(engine.dialect, "default_isolation_level"):
        engine.connect().close()  # the first connection tells the dialect the server's default level
    level = engine.get_execution_options().get("isolation_level") or engine.dialect.default_isolation_level
    return engine if level in ("READ COMMITTED", "AUTOCOMMIT") or engine.dialect.name == "sqlite" else None


def refuse_in_use(session: Session) -> None:
    """Raise `TransactionError` if another task is running a statement in the session's transaction."""
    if in_use(session):
        raise _another_task()


def _is_shared(error: BaseException) -> bool:
    """Whether SQLAlchemy's error is about concurrent use of the session: https://sqlalche.me/e/21/isce."""
    return isinstance(error, sa.InvalidRequestError) and error.code == "isce"


def _another_task() -> TransactionError:
    return TransactionError("Another task still runs a statement on this session; give each task one of its own.")


def refuse_ended(session: Session) -> None:
    """Raise `SessionEndedError` if the session was closed for good, as a request's session is after the request."""
    if has_ended(session):
        raise SessionEndedError


@contextmanager
def writing(session: Session, *, auto_commit: bool, model: type | None = None) -> Iterator[Callable[[], None]]:
    """Run one write atomically in this block.

    Without an open transaction the block begins one, and rolls it back if it fails. In an open transaction it is a
    savepoint, so that earlier work is kept, and the session stays usable, after a failure. At the end it commits, if
    ``auto_commit`` is True, no `DatabaseTransaction` is open, and the user has not begun the transaction explicitly.

    The block gets a function. Call it directly before a statement that is the whole write: if the write would be
    committed at once, the statement is then sent without BEGIN and COMMIT.
    """
    state = state_of(session)
    with translated(model):
        refuse_ended(session)
        if session.in_transaction():
            with savepoint(session):
                yield _nothing
        else:
            with _held_before_undo(session) as held:
                try:
                    yield _nothing if state.units or not auto_commit else lambda: _write_alone(session, state)
                    session.flush()
                except BaseException as error:
                    rollback(session, undo_nothing=True)
                    restore_values(session, held)
                    if state.writing_alone and isinstance(error, Exception) and lost_connection(error):
                        raise lost_in_write() from cause_of(error)
                    raise
                finally:
                    state.writing_alone = False
    if auto_commit and not state.units and _autobegun(session):
        commit(session, model)


def lost_in_write() -> TransactionError:
    """The error for a connection that is lost during a statement that the server commits by itself."""
    return TransactionError("The connection was lost during a write; it may have taken effect.", outcome="unknown")


def _nothing() -> None:
    """Does nothing: the write is part of a transaction."""


def _write_alone(session: Session, state: SessionState) -> None:
    engine = needs_no_transaction(session, state, WRITE_ALONE)
    # Statements that listeners send during a flush or commit must be in the same transaction.
    if engine is None or engine.dialect.name != "postgresql" or departure(session, engine, None, WRITE_ALONE):
        return
    session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
    state.writing_alone = True


@contextmanager
def _held_before_undo(session: Session) -> Iterator[list[Held]]:
    """A list that gets the loaded values as soon as a statement fails, because a failed flush expires them."""
    state_of(session)  # the state's creation starts to watch the engine
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


def routes(session: Session) -> bool:
    """Whether the session chooses its engine by the class of a statement."""
    return session.bind is None or bool(session.binds) or type(session).get_bind is not Session.get_bind


def sole_bind(session: Session) -> Engine | Connection:
    """The engine or connection for statements without a class. Raises `TransactionError` if there are several."""
    binds = {session.bind, *session.binds.values()} - {None}
    if session.bind is None and len(binds) == 1:
        found: Any = next(iter(binds))
        return found  # type: ignore[no-any-return]  # a session's binds are not typed
    try:
        return session.get_bind()
    except sa.UnboundExecutionError as error:
        raise TransactionError("The session has several engines, and nothing says which of them is meant.") from error


def sole_connection(session: Session) -> Connection:
    """The connection of the `sole_bind`, in the session's transaction."""
    return session.connection(bind_arguments={"bind": sole_bind(session)})


def begin_for_savepoint(session: Session) -> None:
    """Begin the transactions of all known engines, which a savepoint needs. Later engines begin theirs themselves."""
    if not routes(session):
        ensure_begun(session.connection())
        return
    transaction: Any = session.get_nested_transaction() or session.get_transaction()
    for connection in transaction.connections if transaction is not None else ():
        ensure_begun(connection)


@contextmanager
def savepoint(session: Session) -> Iterator[None]:
    """A savepoint in the open transaction, which costs two statements. A failure undoes only this block."""
    begin_for_savepoint(session)
    equip(session)
    held: list[Held] = []
    try:
        with session.begin_nested():
            nothing_sent_since_savepoint(session)
            try:
                yield
            except BaseException:
                held = loaded_values(session)
                raise
    except BaseException:
        restore_values(session, held)
        raise


def nothing_sent_since_savepoint(session: Session) -> None:
    """Note that nothing was sent since the session's innermost savepoint.

    If the plan of the next statement is stale, the transaction is rolled back to the savepoint, and the statement is
    sent again.
    """
    # With several engines, the engine of the next statement is not known yet.
    if session.in_nested_transaction() and not routes(session):
        mark_savepoint(session.connection())


def _autobegun(session: Session) -> bool:
    transaction = session.get_transaction()
    return (
        transaction is not None
        and transaction.origin is SessionTransactionOrigin.AUTOBEGIN
        and not session.in_nested_transaction()
    )


def keep(session: Session, *entities: Any) -> None:
    """Preserve the values of these objects at the next commit, even if the session expires objects on commit."""
    state = state_of(session)
    if session.expire_on_commit and not state.asynchronous:
        state.preserved.extend(entities)


def commit(session: Session, model: type | None = None) -> None:
    """Flush, then COMMIT; on failure roll back and raise the toolkit's exception.

    If the connection is lost during COMMIT, the outcome is unknown: `TransactionError` with ``outcome="unknown"``. An
    aborted transaction is a `TransactionError` too, since PostgreSQL silently executes its COMMIT as a ROLLBACK.
    """
    flushed = False
    try:
        session.flush()
        flushed = True
        if refuses_commit(session):
            raise TransactionError("A statement of this transaction failed; it can only be rolled back.")
        refuse_in_use(session)
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


def rollback(session: Session, *, undo_nothing: bool = False) -> None:
    """Roll back. If that fails, the connection is discarded.

    ``undo_nothing``: the transaction has written nothing, so that loaded objects keep their values. (Expired ones could
    not be loaded implicitly on an `AsyncSession`.)
    """
    state_of(session).preserved.clear()
    held = loaded_values(session) if undo_nothing else []
    shared = in_use(session)
    try:
        if not shared:
            session.rollback()
    except Exception as error:  # noqa: BLE001 - after any failure the connection is unusable
        shared = _is_shared(error)
        if not shared:
            discard(session)
    if shared:
        end_for_good(session)  # closing awaits; meanwhile the other task must not commit
        discard(session)
    restore_values(session, held)


def discard(session: Session) -> None:
    """Close the connections of the session's transaction, so that no other session gets one that is still in use.

    SQLAlchemy refuses to close a session while another task is executing one of its methods.
    """
    for connection in connections_of(session):
        throw_away(connection)
    with suppress(sa.IllegalStateChangeError):
        session.invalidate()


Held = tuple[Any, dict[str, Any]]


def loaded_values(session: Session) -> list[Held]:
    """The session's loaded objects with their values in the database, without pending changes."""
    held: list[Held] = []
    for entity in list(session.identity_map.values()):
        state: InstanceState[Any] = inspect(entity)
        values = {key: value for key, value in state.dict.items() if key in state.mapper.column_attrs}
        before = {key: value for key, value in state.committed_state.items() if key in values}
        held.append((entity, {**values, **before}))
    return held


def restore_values(session: Session, held: list[Held]) -> None:
    """Restore the values of objects that a rollback has expired."""
    for entity, values in held:
        if entity not in session:
            continue
        expired = inspect(entity).expired_attributes
        for key in expired & values.keys():
            if values[key] is not LoaderCallableStatus.NO_VALUE:
                set_committed_value(entity, key, values[key])
