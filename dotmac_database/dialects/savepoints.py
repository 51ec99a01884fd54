"""The driver's savepoint before a write in an open transaction, so that a failed write undoes only itself.

After the write the savepoint stays, and the next write replaces it, so that a write costs one message more than its
statement: ``RELEASE SAVEPOINT a; SAVEPOINT a``. Statements that others send meanwhile are part of the savepoint, which
ends with the transaction at the latest. SQLAlchemy does not know it, so SQLAlchemy's own savepoints are noted here:
within one of them, another savepoint is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from .drivers import Driver, Link
from .settings import doubt_announced, has_announced

_NAME = "dotmac_write"
"""The beginning of the names of the driver's savepoints."""

_SAVEPOINTS = "dotmac_database.savepoints"
"""The key in a pooled connection's ``info`` of its `_Savepoints`."""

_CONCERNS_SAVEPOINTS = re.compile(
    r"\b(?:SAVEPOINT|RELEASE|ROLLBACK|ABORT|COMMIT)\b(?!.*\bsa_savepoint_)|(?:^|;|\*/|\n)\s*END\b",
    re.IGNORECASE | re.DOTALL,
)
"""A statement that may set or end savepoints, and is not one of SQLAlchemy's, which are noted by its events.

If another statement contains these words, the driver's savepoint stays until the transaction ends, which is harmless.
"""


@dataclass(slots=True)
class _Savepoints:
    """The savepoints of an open transaction.

    ``levels``: for the transaction, and then for each open savepoint of SQLAlchemy's and each block of `deeper`, if
    the driver's savepoint was set in it and is still there. ``ended`` is the name of SQLAlchemy's savepoint that has
    ended last.
    """

    levels: list[bool] = field(default_factory=lambda: [False])
    ended: str | None = None


def secure(driver: Driver, link: Link) -> str:
    """Set the savepoint, and return its name. Sends one message. The connection must be in a transaction."""
    levels = _of(link.pooled.info).levels
    name = _name_in(levels)
    script = f"SAVEPOINT {name}"
    if levels[-1]:
        script = f"RELEASE SAVEPOINT {name}; {script}"
    levels[-1] = False  # if the script fails, it is unknown which savepoint is left
    driver.run(link, script)
    levels[-1] = True
    return name


def undo(driver: Driver, link: Link) -> None:
    """Roll back to the savepoint, which stays. Sends one message."""
    driver.run(link, f"ROLLBACK TO SAVEPOINT {_name_in(_of(link.pooled.info).levels)}")


@contextmanager
def deeper(info: dict[str, Any]) -> Iterator[None]:
    """A block in which writes have a savepoint of their own, inside the one that was set last."""
    levels = _of(info).levels
    depth = len(levels)
    levels.append(False)
    try:
        yield
    finally:
        del levels[depth:]


def _name_in(levels: list[bool]) -> str:
    """The name of the driver's savepoint at the innermost level. Each level has another one, so none hides another."""
    return _NAME if len(levels) == 1 else f"{_NAME}_{len(levels)}"


def note_savepoint(connection: Connection, *_: object) -> None:
    """Note that SQLAlchemy sets a savepoint, which has no name yet."""
    _of(connection.info).levels.append(False)


def note_savepoint_ended(connection: Connection, name: str, _context: object) -> None:
    """Note that SQLAlchemy releases its innermost savepoint, or rolls back to it, or does one after the other."""
    if connection.invalidated:
        return
    savepoints = _of(connection.info)
    if len(savepoints.levels) > 1 and savepoints.ended != name:
        savepoints.levels.pop()
    savepoints.ended = name


def forget_savepoints(info: dict[str, Any]) -> None:
    """Note that a transaction begins or ends, and with it all savepoints."""
    info.pop(_SAVEPOINTS, None)


def note_sent(info: dict[str, Any], statement: str) -> None:
    """Note that a statement was sent that may have set or ended savepoints, such as a ROLLBACK TO in raw SQL."""
    savepoints: _Savepoints | None = info.get(_SAVEPOINTS)
    if (savepoints is not None or has_announced(info)) and _CONCERNS_SAVEPOINTS.search(statement):
        doubt_announced(info)
        if savepoints is not None:
            savepoints.levels[:] = [False] * len(savepoints.levels)


def _of(info: dict[str, Any]) -> _Savepoints:
    savepoints: _Savepoints | None = info.get(_SAVEPOINTS)
    if savepoints is None:
        savepoints = info[_SAVEPOINTS] = _Savepoints()
    return savepoints


_listener: Any
for _listener in (note_savepoint, note_savepoint_ended):
    _listener.dotmac_internal = True  # see `dotmac_database.departures`
