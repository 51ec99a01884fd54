"""What the toolkit remembers about a session, and how work is run on it.

Every entry point takes a `Session` or an `AsyncSession`; the state lives on the sync session, which
serves both. One place decides when a transaction is opened and ended: `reading` and `writing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, SessionTransactionOrigin, scoped_session

from .errors import ValidationError

AnySession: TypeAlias = Session | AsyncSession
_INFO = "dotmac_database"


@dataclass(slots=True)
class SessionState:
    """The toolkit's memory of one sync session.

    ``units`` counts the open `DatabaseTransaction` blocks (and the plugin's request); while it is not
    zero, ``auto_commit`` only flushes. ``lazy`` says that the outermost unit has no transaction of its
    own until the first write. ``kept`` are the objects that repositories returned in this transaction: they
    keep their values over its commit. ``standalone_reads`` can be switched off, for row-level security.
    """

    units: int = 0
    lazy: bool = False
    kept: list[Any] = field(default_factory=list)
    standalone_reads: bool = True


def sync_session(session: Any) -> Session:
    """The sync `Session` in or behind ``session``; anything else is a `ValidationError`."""
    if isinstance(session, scoped_session):
        session = session()
    if isinstance(session, async_scoped_session):
        session = session()
    if isinstance(session, AsyncSession):
        return session.sync_session
    if isinstance(session, Session):
        return session
    raise ValidationError(f"A Session or an AsyncSession was expected, not {type(session).__name__}.")


def state_of(session: Session) -> SessionState:
    """The toolkit's state of a sync session, made on first use."""
    state = session.info.get(_INFO)
    if state is None:
        state = session.info[_INFO] = SessionState()
    return state  # type: ignore[no-any-return]  # info is an untyped dict
