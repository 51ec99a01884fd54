"""The limits of one call. A call beyond a limit is refused before any work is done for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ValidationError
from ..models.traits import Traits
from ..query import Filter, FilterGroup

MAX_VALUES = 10_000
"""How many values a list may have whose values are parameters of their own, as those of types that SQLAlchemy does not
know: drivers' limits are at 32,766. All other lists are one parameter each, and of any length."""

MAX_PATTERN = 10_000
"""How many characters a text to match may have: SQLite takes patterns of 50,000 bytes at most."""

MAX_SEARCH = 65_536
"""The most characters of a search text."""

MAX_DEPTH = 20
"""The greatest nesting depth of filter groups."""

MAX_CONDITIONS = 500
"""How many filters and groups one read may have, those within groups included. SQLite's expressions nest 1,000 deep."""

MAX_KEPT = 20
"""The most filters of a statement that is cached."""

MAX_SORTS = 50
"""The most fields that one read may be sorted by."""

MAX_PATH = 500
"""The most characters of a field's name, since paths are cached by name."""

MAX_STEPS = 10
"""The most relationships in a path: each is a nested subquery."""

MAX_JSON_DEPTH = 64
"""How deep lists and objects of a JSON value may nest: reading and rendering them by recursion fails far beyond."""

TOO_DEEP = f"a JSON value of at most {MAX_JSON_DEPTH} levels"


def check_size(traits: Traits[Any], filters: Sequence[Filter]) -> None:
    """Refuse too many filters, before any of them is resolved."""
    left, waiting = MAX_CONDITIONS, list(filters)
    while waiting:
        left -= len(waiting)
        if left < 0:
            raise ValidationError(
                f"{traits.name}: more than {MAX_CONDITIONS} filters are asked for, those in groups included; "
                "many values of one field are one filter, with in.",
                field="filters",
            )
        waiting = [member for each in waiting if isinstance(each, FilterGroup) for member in each.members]


def checked_depth(value: Any) -> Any:
    """``value``; raises `ValueError` where it nests deeper than JSON may. Level by level, so that no depth is too much.

    What stands in a level more than once is followed once: a value that holds itself has no end.
    """
    level = [value] if isinstance(value, _CONTAINERS) else []
    for _ in range(MAX_JSON_DEPTH):
        inner: dict[int, Any] = {}
        for each in level:
            if isinstance(each, dict):
                inner.update((id(member), member) for member in each.values() if isinstance(member, _CONTAINERS))
            else:
                inner.update((id(member), member) for member in each if isinstance(member, _CONTAINERS))
        if not inner:
            return value
        level = list(inner.values())
    raise ValueError(TOO_DEEP)


_CONTAINERS = (dict, list, tuple)
