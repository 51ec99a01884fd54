"""Where a statement comes from: the repository's method and model, and the line of the user's code.

Both are read from the frames of the calls that are running, so that a statement that nobody observes carries nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import greenlet
import sqlalchemy

from ..repositories import AsyncRepository, AsyncTenantRepository, BaseRepository, BaseTenantRepository
from ..repositories.core import RepositoryCore

_PACKAGE = str(Path(__file__).parent.parent)
_OWN = (f"{_PACKAGE}/", f"{_PACKAGE}_fastapi/", f"{Path(sqlalchemy.__file__).parent}/", "<")
"""How the paths of the toolkit's and SQLAlchemy's code begin. Generated code has a name that begins with "<"."""

_STANDARD = f"{sysconfig.get_paths()['stdlib']}/"
_EVENT_LOOP = f"{Path(asyncio.__file__).parent}/"


class Origin(NamedTuple):
    """A repository's method that is running: its name, the repository's mapped class, and its tenant."""

    operation: str
    model: type
    tenant: object


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


def origin() -> Origin | None:
    """The outermost method of the repository that sends the statement; None: no repository sends it.

    Methods of the user's own repository classes are not named, so that the names are bounded.
    """
    frame = inspect.currentframe()
    method: FrameType | None = None
    name = ""
    current = greenlet.getcurrent()
    while frame is not None:
        code = frame.f_code
        known = _METHODS.get(id(code))
        if known is not None:
            method, name = frame, known
        elif method is not None and not code.co_filename.startswith(_OWN):
            break
        frame = frame.f_back
        if frame is None and current.parent is not None:
            current = current.parent
            frame = current.gr_frame
    repository = None if method is None else method.f_locals.get("self")
    if not isinstance(repository, RepositoryCore):
        return None
    return Origin(name, repository.model_class, repository.tenant_id)


def user_line() -> Line | None:
    """The innermost line of the user's own code that is running, also across the `await` of a coroutine.

    If there is none, as in an endpoint that the toolkit generates, it is the innermost line of another library. None:
    only the toolkit's and SQLAlchemy's code is running.
    """
    library: FrameType | None = None
    for frame in _frames():
        path = frame.f_code.co_filename
        if path.startswith((*_OWN, _STANDARD)) and "-packages/" not in path.removeprefix(_PACKAGE):
            continue
        if "-packages/" not in path:
            return _line(frame)
        if library is None and not path.startswith(_OWN):
            library = frame
    return None if library is None else _line(library)


def _frames() -> Iterator[FrameType]:
    """The frames that are running, the innermost first, without those of the event loop and below it."""
    current: greenlet.greenlet | None = greenlet.getcurrent()
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(_EVENT_LOOP):
            return
        yield frame
        frame = frame.f_back
        if frame is None and current is not None and current.parent is not None:
            current = current.parent
            frame = current.gr_frame


def _line(frame: FrameType) -> Line:
    return Line(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname)
