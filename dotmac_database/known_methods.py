"""Whether sessions, engines and dialects have only the methods of SQLAlchemy and of the toolkit.

The answer is noted, and read again as long as nothing shows that a method was replaced since.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from weakref import WeakKeyDictionary

from sqlalchemy import Dialect, Engine
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.ext.asyncio import AsyncSession, async_session
from sqlalchemy.orm import Session

MAX_CLASSES = 1024
"""The maximum number of entries in a cache by session class; a full cache is cleared.

Each guarded sessionmaker makes a session class, so an app that makes many of them would fill the cache.
"""

KNOWN_SIZE = "dotmac_database.known"
"""The key in a session's ``info`` of the number of attributes that the session had when it was checked.

If a method of the session is replaced later, the session gets one more attribute, and is checked again.
"""


def session_is_known(session: Session) -> bool:
    """Whether the session and its `AsyncSession` have only methods of SQLAlchemy's or of `_HARMLESS_SUBCLASSES`.

    If so, the number of the session's attributes is noted in its ``info``.
    """
    if not _has_known_methods(type(session)) or not _SESSION_METHODS.isdisjoint(vars(session)):
        return False
    outer = async_session(session)
    if outer is not None and not (_has_known_methods(type(outer)) and _ASYNC_METHODS.isdisjoint(vars(outer))):
        return False
    session.info[KNOWN_SIZE] = len(vars(session))
    return True


def _methods(of: type) -> frozenset[str]:
    return frozenset(name for name in dir(of) if not name.startswith("__") and _is_code(getattr(of, name)))


def _is_code(value: object) -> bool:
    return callable(value) or isinstance(value, property)


_SESSION_METHODS = _methods(Session)
_ASYNC_METHODS = _methods(AsyncSession) - {"sync_session_class"}
_SPECIAL = ("__getattribute__", "__setattr__", "__new__")
_METHODS_AT_IMPORT: dict[type, tuple[Callable[[type], object], object]] = {
    base: (getter, getter(base))
    for base, names in ((Session, _SESSION_METHODS), (AsyncSession, _ASYNC_METHODS))
    for getter in (attrgetter(*sorted(names)),)
}
"""For each of SQLAlchemy's two session classes, a function that gets its methods, and the methods it had at import."""

_main_methods: Callable[[type], object] = attrgetter(
    *("execute", "scalars", "scalar", "connection", "get_bind", "flush", "commit", "rollback", "add", "get", "refresh"),
    *("close", "begin", "begin_nested", "__getattribute__"),
)
"""Gets the methods of a class that are compared at each check, since the class can be patched after the first one."""

_CHECKED_CLASSES: dict[type, object] = {}
"""The `_main_methods` of each session class when it was checked. None: it overrides a method of SQLAlchemy's."""

_HARMLESS_SUBCLASSES = frozenset(
    (
        ("sqlmodel.orm.session", "Session"),
        ("sqlmodel.ext.asyncio.session", "AsyncSession"),
        ("dotmac_database.tenancy.guard.sessions", "_guarded_class.<locals>.GuardedSession"),
    )
)
"""Session classes that may override methods: theirs do not change a repository's statements."""


def _has_known_methods(of: type) -> bool:
    methods = _CHECKED_CLASSES.get(of, of)
    if methods is of:
        if len(_CHECKED_CLASSES) >= MAX_CLASSES:
            _CHECKED_CLASSES.clear()
        methods = _CHECKED_CLASSES[of] = _known_methods(of)
    return methods is not None and _main_methods(of) == methods


def _known_methods(of: type) -> object:
    base = AsyncSession if issubclass(of, AsyncSession) else Session
    getter, own = _METHODS_AT_IMPORT[base]
    if getter(base) != own:
        return None
    names = {*(_ASYNC_METHODS if base is AsyncSession else _SESSION_METHODS), *_SPECIAL, "__getattr__"}
    for each in of.__mro__[: of.__mro__.index(base)]:
        if (each.__module__, each.__qualname__) in _HARMLESS_SUBCLASSES:
            continue
        if any(value is not vars(base).get(name) for name, value in vars(each).items() if name in names):
            return None
    return _main_methods(of)


ENGINES = (Engine, OptionEngine)
"""SQLAlchemy's two classes of engines."""

ENGINE_METHODS = _methods(Engine)
"""The names of an engine's methods. An engine of which one was replaced has it as an attribute."""

_DIALECT_METHODS = frozenset(name for name in _methods(DefaultDialect) if not name.startswith("_"))
"""The public methods of a dialect.

Private ones are not checked: SQLAlchemy stores the memoized result of a private method as an attribute with its name.
"""
_DIALECTS: WeakKeyDictionary[Dialect, int] = WeakKeyDictionary()
"""The number of attributes that each dialect had when it was checked. Replacing a method later adds an attribute."""


def dialect_is_known(engine: Engine) -> bool:
    """Whether the dialect of an engine is of SQLAlchemy, with its own methods."""
    dialect = engine.dialect
    size = len(vars(dialect))
    if _DIALECTS.get(dialect) == size:
        return True
    own = all(each.__module__.startswith("sqlalchemy.") for each in type(dialect).__mro__[:-1])
    if not own or not _DIALECT_METHODS.isdisjoint(vars(dialect)):
        return False
    _DIALECTS[dialect] = size
    return True
