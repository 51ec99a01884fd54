"""Where a statement comes from: the repository's method and model, and the line of the user's code.

Both are read from the frames of the calls that are running, so that a statement that nobody observes carries nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import sysconfig
from enum import Enum, auto
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TypeAlias

import greenlet
import sqlalchemy

from ..repositories import AsyncRepository, AsyncTenantRepository, BaseRepository, BaseTenantRepository
from ..repositories.core import RepositoryCore

_PACKAGE = str(Path(__file__).parent.parent)
_OWN = (f"{_PACKAGE}/", f"{_PACKAGE}_fastapi/", f"{Path(sqlalchemy.__file__).parent}/", "<")
"""How the paths of the toolkit's and SQLAlchemy's code begin. Generated code has a name that begins with "<"."""

_STANDARD = f"{sysconfig.get_paths()['stdlib']}/"
_EVENT_LOOP = f"{Path(asyncio.__file__).parent}/"


AnyRepository: TypeAlias = RepositoryCore[Any, Any]
"""A repository of any model, on any session."""


class Line(NamedTuple):
    """A line of code."""

    path: str
    number: int
    function: str

    def __str__(self) -> str:
        return f"{self.path}:{self.number} in {self.function}"


def _methods() -> dict[int, str]:
    """The names of the repositories' public methods, by the id of their code.

    The methods live as long as the process, so that no other code gets the same id.
    """
    names: dict[int, str] = {}
    for repository in (BaseRepository, BaseTenantRepository, AsyncRepository, AsyncTenantRepository):
        for each in repository.__mro__:
            for name, value in vars(each).items():
                function = inspect.unwrap(value) if inspect.isfunction(value) else value
                if inspect.isfunction(function) and not name.startswith("_"):
                    names[id(function.__code__)] = name
    return names


_METHODS = _methods()


def origin() -> tuple[str, AnyRepository] | None:
    """The outermost method of the repository that sends the statement, and the repository; None: none sends it.

    Methods of the user's own repository classes are not named, so that the names are bounded.
    """
    frame = inspect.currentframe()
    method: FrameType | None = None
    name = ""
    current: greenlet.greenlet | None = None
    known = _METHODS.get
    while frame is not None:
        code = frame.f_code
        public = known(id(code))
        if public is not None:
            method, name = frame, public
        elif method is not None and not code.co_filename.startswith(_OWN):
            break
        frame = frame.f_back
        if frame is None:
            current = (current or greenlet.getcurrent()).parent
            frame = None if current is None else current.gr_frame
    repository = None if method is None else method.f_locals.get("self")
    return (name, repository) if isinstance(repository, RepositoryCore) else None


def user_line() -> Line | None:
    """The innermost line of the user's own code that is running, also across the `await` of a coroutine.

    If there is none, as in an endpoint that the toolkit generates, it is the innermost line of another library. None:
    only the toolkit's and SQLAlchemy's code is running.
    """
    library: FrameType | None = None
    frame = inspect.currentframe()
    current: greenlet.greenlet | None = None
    while frame is not None:
        code = _code_of(frame.f_code.co_filename)
        if code is _Code.USERS:
            return _line(frame)
        if code is _Code.EVENT_LOOP:
            break
        if code is _Code.LIBRARY and library is None:
            library = frame
        frame = frame.f_back
        if frame is None:
            current = (current or greenlet.getcurrent()).parent
            frame = None if current is None else current.gr_frame
    return None if library is None else _line(library)


class _Code(Enum):
    """Whose code a file has. OWN is that of the toolkit, of SQLAlchemy and of the standard library."""

    EVENT_LOOP = auto()
    OWN = auto()
    LIBRARY = auto()
    USERS = auto()


@lru_cache(maxsize=4096)
def _code_of(path: str) -> _Code:
    if path.startswith(_EVENT_LOOP):
        return _Code.EVENT_LOOP
    is_installed = "-packages/" in path
    if path.startswith((*_OWN, _STANDARD)) and (not is_installed or "-packages/" not in path.removeprefix(_PACKAGE)):
        return _Code.OWN
    if not is_installed:
        return _Code.USERS
    return _Code.OWN if path.startswith(_OWN) else _Code.LIBRARY


def _line(frame: FrameType) -> Line:
    return Line(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname)
