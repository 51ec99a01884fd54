"""What the toolkit remembers of a session, and which engine and values the session has.

The state is stored on the sync session, which is also behind every `AsyncSession`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from sqlalchemy import Connection, Engine, inspect
from sqlalchemy import exc as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import InstanceState, LoaderCallableStatus, PassiveFlag, Session, scoped_session
from sqlalchemy.orm.attributes import get_history, set_committed_value

from ..dialects.transactions import watch
from ..errors import MisuseError, SessionEndedError, TransactionError
from ..sqlalchemy_internals import has_ended

AnySession: TypeAlias = Session | AsyncSession | scoped_session[Session] | async_scoped_session[AsyncSession]
_INFO = "dotmac_database"


@dataclass(frozen=True, eq=False)
class SettingsProvider:
    """What gives a transaction some settings.

    ``current`` returns the present state, which is compared with the one that was announced last; None: there is
    nothing to announce. ``values`` makes the settings of a state, by name; for None, those that undo it. It is called
    only when they are sent. ``is_secret``: the values must not be in the text of a statement. ``for_triggers``: SQLite
    gets them too, in its table ``dotmac_settings``, which must exist there.
    """

    current: Callable[[], object]
    values: Callable[[object], Mapping[str, str]]
    is_secret: bool = False
    for_triggers: bool = False


@dataclass(slots=True)
class SessionState:
    """The toolkit's state of one sync session.

    ``open_blocks`` is the number of open `DatabaseTransaction` blocks, including that of the plugin's request; while it
    is not zero, ``auto_commit`` only flushes. ``lazy``: the outermost block has no database transaction until its first
    write. ``preserved`` are the objects that repositories returned in this transaction: they keep their values after
    its commit. ``settings`` are the providers of what each transaction needs before its first statement.
    ``savepoints``: a write in an open transaction is a savepoint. ``asynchronous``: the session belongs to an
    `AsyncSession`, whose objects the toolkit never expires, since expired attributes can't be loaded implicitly there.
    ``reading_alone``: a read outside of a transaction is running, and its end does not count as a commit, so that it
    calls no callbacks. ``writing_alone``: a write is running whose single statement the server commits by itself.
    ``last_write``: nothing follows the next write in the open block, and nothing can fail after it.
    ``strict``: the session has the listener of `strict`, since it has strict objects. ``ruled``: the same for `ruled`.
    ``by_hand``: statements of the user's own may have loaded objects that are not ruled, besides the ruled ones.
    ``read_only``: the session refuses to write.
    """

    open_blocks: int = 0
    lazy: bool = False
    preserved: list[object] = field(default_factory=list)
    settings: tuple[SettingsProvider, ...] = ()
    savepoints: bool = True
    asynchronous: bool = False
    reading_alone: bool = False
    writing_alone: bool = False
    last_write: bool = False
    strict: bool = False
    ruled: bool = False
    by_hand: bool = False
    read_only: bool = False


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


def refuse_write() -> NoReturn:
    """Raise `MisuseError`: a session that only reads was asked to write."""
    raise MisuseError("The session only reads: it can't write, and it sends no raw SQL, which could write.")


def refuse_ended(session: Session) -> None:
    """Raise `SessionEndedError` if the session was closed for good, as a request's session is after the request."""
    if has_ended(session):
        raise SessionEndedError


def has_several_engines(session: Session) -> bool:
    """Whether the session chooses its engine by the class of a statement."""
    return session.bind is None or bool(session.binds) or type(session).get_bind is not Session.get_bind


def sole_bind(session: Session) -> Engine | Connection:
    """The engine or connection for statements without a class. Raises `TransactionError` if there are several."""
    binds = {session.bind, *session.binds.values()} - {None}
    if session.bind is None and len(binds) == 1:
        return next(iter(binds))  # type: ignore[return-value]  # the set does not contain None
    try:
        return session.get_bind()
    except sa.UnboundExecutionError as error:
        raise TransactionError("The session has several engines, and nothing says which of them is meant.") from error


def sole_connection(session: Session) -> Connection:
    """The connection of the `sole_bind`, in the session's transaction."""
    return session.connection(bind_arguments={"bind": sole_bind(session)})


def keep(session: Session, *entities: object) -> None:
    """Preserve the values of these objects at the next commit, even if the session expires objects on commit."""
    state = state_of(session)
    if session.expire_on_commit and not state.asynchronous:
        state.preserved.extend(entities)


def changes_of(session: Session, entity: object) -> dict[str, object] | None:
    """The changed attributes of an object that is in the session; None: other objects have changes as well."""
    if session.new or session.deleted or any(each is not entity for each in session.dirty):
        return None
    state: InstanceState[object] = inspect(entity)
    return {
        key: state.dict.get(key)
        for key in state.committed_state
        if get_history(entity, key, PassiveFlag.PASSIVE_NO_INITIALIZE).has_changes()
    }


def discard_changes(session: Session) -> None:
    """Undo what waits for a flush: objects are neither new nor deleted, and have the values of the database."""
    for entity in session.new:
        if entity in session:  # another object may have taken it along
            session.expunge(entity)
    session.add_all(session.deleted)
    held = loaded_values(session)
    for entity in session.dirty:
        session.expire(entity)
    restore_values(session, held)


Held = tuple[object, dict[str, object]]


def loaded_values(session: Session) -> list[Held]:
    """The session's objects, each with its loaded values as they are in the database, without pending changes."""
    held: list[Held] = []
    for entity in list(session.identity_map.values()):
        state: InstanceState[object] = inspect(entity)
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
