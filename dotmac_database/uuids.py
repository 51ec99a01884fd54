"""UUIDs of version 7, which begin with the time, so that new keys stand together at the end of an index.

The rule is RFC 9562 (https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-7).
"""

from __future__ import annotations

from collections.abc import Callable
from os import urandom
from time import time_ns
from typing import TypeAlias
from uuid import UUID

NewId: TypeAlias = Callable[[], UUID]
"""Makes the UUID of a new row."""

NEW_ID = "dotmac_database.new_id"
"""The key in a session's ``info`` of the `NewId` that makes the UUID keys of its new rows, instead of `uuids7`."""

_COUNTED = 12
"""The bits between the time and the random part, which count the UUIDs of one call (section 6.2, method 1)."""


def uuids7(many: int, milliseconds: int | None = None) -> list[UUID]:
    """So many UUIDs of version 7, in ascending order. The random bytes are read from the system at once.

    ``milliseconds`` is the time since 1970; None: now. The UUIDs of one call increase: the counter begins at a random
    number below half of its range, and if it overflows, the time is the next millisecond. Of two calls in the same
    millisecond, either may come first. Each UUID has 62 random bits.
    """
    random = urandom(2 + 8 * many)
    moment = time_ns() // 1_000_000 if milliseconds is None else milliseconds
    first = (moment << _COUNTED) + (int.from_bytes(random[:2]) >> 5)
    return [
        UUID(int=(stamp >> _COUNTED) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0x2 << 62 | _tail(random, place))
        for place, stamp in enumerate(range(first, first + many))
    ]


def _tail(random: bytes, place: int) -> int:
    start = 2 + 8 * place
    return int.from_bytes(random[start : start + 8]) >> 2
