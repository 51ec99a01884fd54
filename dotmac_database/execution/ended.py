"""Sessions that were closed for good, such as a request's: each further use raises `SessionEndedError`.

SQLAlchemy refuses some uses of a closed session with various errors, and silently accepts others. So the session, and
the `AsyncSession` in front of it, become instances of a subclass that refuses all uses. That costs two assignments when
a session ends, and nothing while it is in use.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NoReturn

from sqlalchemy.ext.asyncio import async_session
from sqlalchemy.orm import Session

from ..errors import SessionEndedError
from ..sqlalchemy_internals import close_for_good

REFUSED = frozenset(
    (
        *("add", "add_all", "begin", "begin_nested", "bulk_insert_mappings", "bulk_save_objects"),
        *("bulk_update_mappings", "commit", "connection", "delete", "delete_all", "enable_relationship_loading"),
        *("exec", "execute", "expire", "expunge", "flush", "get", "get_one", "merge", "merge_all", "prepare"),
        *("query", "refresh", "scalar", "scalars", "stream", "stream_scalars"),
    )
)
"""The methods that an ended session refuses: those that send a statement, or add an object to the session.

``run_sync``, ``rollback`` and ``close`` still work, since a block, or a task that ends after the session, needs them to
clean up.
"""

_ENDED_CLASS = "dotmac_ended"


def end_for_good(session: Session) -> None:
    """End a session that can't be reused once it is closed (``close_resets_only=False``), else do nothing."""
    if close_for_good(session):
        end(session)


def end(session: Session) -> None:
    """Make every further use of a closed session, and of its `AsyncSession`, raise `SessionEndedError`."""
    _become_ended(session)
    outer = async_session(session)
    if outer is not None:
        _become_ended(outer)


def _become_ended(session: Any) -> None:
    live_class = type(session)
    # The subclass is an attribute of the session's class, so that both are freed together. It is its own ended class,
    # since a session may be closed twice.
    ended_class = vars(live_class).get(_ENDED_CLASS)
    if ended_class is None:
        methods = {name: _refusing(getattr(live_class, name)) for name in REFUSED if hasattr(live_class, name)}
        ended_class = type(live_class.__name__, (live_class,), {"__module__": live_class.__module__, **methods})
        setattr(ended_class, _ENDED_CLASS, ended_class)
        setattr(live_class, _ENDED_CLASS, ended_class)
    session.__class__ = ended_class


def _refusing(method: Callable[..., object]) -> Callable[..., object]:
    async def refuse_awaited(*_: object, **__: object) -> NoReturn:
        raise SessionEndedError

    def refuse(*_: object, **__: object) -> NoReturn:
        raise SessionEndedError

    return refuse_awaited if inspect.iscoroutinefunction(inspect.unwrap(method)) else refuse
