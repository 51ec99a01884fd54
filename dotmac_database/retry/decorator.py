"""`with_retry`: the decorator."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import aclosing, closing
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec, TypeAlias, TypeVar, overload

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from ..dialects import translated
from ..execution.state import sync_session
from ..execution.work import rollback
from .enclosed import encloses
from .policy import RetryPolicy
from .runner import Retries
from .transient import as_toolkit_errors

P = ParamSpec("P")
R = TypeVar("R")

Function: TypeAlias = Callable[..., Any]

_SESSIONS = (Session, AsyncSession, scoped_session, async_scoped_session)
_ATTRIBUTES = ("db", "session")
_END = object()


@overload
def with_retry(policy: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def with_retry(
    policy: RetryPolicy | None = None, /, *, idempotent: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def with_retry(policy: Any = None, /, *, idempotent: bool = False) -> Any:
    """Retry a function, a coroutine function, a generator or an async generator. ``policy`` None: `RetryPolicy()`.

    The decorator does not open or commit transactions. Before each wait it rolls back the sessions that are arguments
    of the call, or attributes ``db`` or ``session`` of an argument. So no connection is in use during the wait, and
    each attempt starts with a clean session. If the call is part of a transaction that is already open on one of these
    sessions (see `encloses`), there is only one attempt, and its exception has a note about that. A generator is
    retried only until it has yielded its first item. SQLAlchemy's exceptions are raised as the toolkit's.
    """
    if callable(policy):
        return _retrying(policy, RetryPolicy(), idempotent)
    return lambda function: _retrying(function, policy or RetryPolicy(), idempotent)


def _retrying(function: Function, policy: RetryPolicy, idempotent: bool) -> Function:
    plan = Retries(policy, getattr(function, "__qualname__", repr(function)), idempotent)
    if inspect.isasyncgenfunction(function):
        return wraps(function)(_async_generator(function, plan))
    if inspect.iscoroutinefunction(function):
        return wraps(function)(_coroutine(function, plan))
    if inspect.isgeneratorfunction(function):
        return wraps(function)(_generator(function, plan))
    return wraps(function)(_function(function, plan))


def _function(function: Function, plan: Retries) -> Function:
    def retried(*args: Any, **kwargs: Any) -> Any:
        def attempt() -> Any:
            with as_toolkit_errors():
                return function(*args, **kwargs)

        return _run(plan, _sessions(args, kwargs), attempt)

    return retried


def _coroutine(function: Function, plan: Retries) -> Function:
    async def retried(*args: Any, **kwargs: Any) -> Any:
        async def attempt() -> Any:
            with as_toolkit_errors():
                return await function(*args, **kwargs)

        return await _run_async(plan, _sessions(args, kwargs), attempt)

    return retried


def _generator(function: Function, plan: Retries) -> Function:
    def retried(*args: Any, **kwargs: Any) -> Generator[Any, Any, None]:
        def attempt() -> tuple[Generator[Any, Any, Any], Any]:
            items = function(*args, **kwargs)
            with as_toolkit_errors():
                return items, next(items, _END)

        items, first = _run(plan, _sessions(args, kwargs), attempt)
        with closing(items), as_toolkit_errors():
            if first is not _END:
                yield first
                yield from items

    return retried


def _async_generator(function: Function, plan: Retries) -> Function:
    async def retried(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        async def attempt() -> tuple[AsyncGenerator[Any, Any], Any]:
            items = function(*args, **kwargs)
            with as_toolkit_errors():
                return items, await anext(items, _END)

        items, first = await _run_async(plan, _sessions(args, kwargs), attempt)
        async with aclosing(items):
            with as_toolkit_errors():
                if first is not _END:
                    yield first
                    async for item in items:
                        yield item

    return retried


def _sessions(args: tuple[object, ...], kwargs: Mapping[str, object]) -> list[object]:
    """The distinct sessions in the call's arguments. A scoped session is replaced by the session that it stands for."""
    sessions: dict[int, object] = {}
    for value in (*args, *kwargs.values()):
        session = value if isinstance(value, _SESSIONS) else _session_of(value)
        if isinstance(session, (scoped_session, async_scoped_session)):
            session = session()
        if session is not None:
            sessions[id(session)] = session
    return list(sessions.values())


def _session_of(value: object) -> object:
    attributes = getattr(value, "__dict__", {})
    return next((attributes[name] for name in _ATTRIBUTES if isinstance(attributes.get(name), _SESSIONS)), None)


def _run(plan: Retries, sessions: list[object], attempt: Function) -> Any:
    plain = [sync_session(session) for session in sessions]
    with translated():
        plan = replace(plan, enclosed=any(encloses(session) for session in plain))
    return plan.run(attempt, lambda: _clean(plain))


async def _run_async(plan: Retries, sessions: list[object], attempt: Function) -> Any:
    with translated():
        enclosed = [await _on(session, encloses) for session in sessions]

    async def clean() -> None:
        for session in sessions:
            await _on(session, rollback)

    return await replace(plan, enclosed=any(enclosed)).run_async(attempt, clean)


def _clean(sessions: list[Session]) -> None:
    for session in sessions:
        rollback(session)


async def _on(session: Any, work: Callable[[Session], R]) -> R:
    return await session.run_sync(work) if isinstance(session, AsyncSession) else work(session)
