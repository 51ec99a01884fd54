"""Whose session it is: the actor, and what else `carry` takes from a session of a plugin's."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from starlette.types import Scope

from .identity import RequestIdentity
from .source import Source

AnySession: TypeAlias = Session | scoped_session[Any] | AsyncSession | async_scoped_session[Any]
SessionCaller: TypeAlias = tuple[Source | None, RequestIdentity, Scope | None]
"""The source and the identity of a session, and the ASGI scope of its request; None: it belongs to no request."""

CALLER = "dotmac_database_fastapi.caller"
"""The key of a session's ``info`` under which its `SessionCaller` is. A tuple costs a request no call."""


def caller_of(session: AnySession) -> SessionCaller | None:
    """The caller of a session of a plugin's; None for any other session."""
    info: MutableMapping[Any, Any] = session.info
    caller: SessionCaller | None = info.get(CALLER)
    return caller


def session_actor(session: AnySession) -> object:
    """The actor for whom a session of a plugin's works, as the object that the ``actor`` dependency has returned.

    In the session of a job it is what ``load_actor`` has returned. None: the session has no actor, or is not a
    plugin's. Sends no statement.
    """
    caller = caller_of(session)
    return None if caller is None else caller[1].person
