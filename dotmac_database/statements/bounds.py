"""The limits of one call. A call that exceeds a limit is refused before any statement is built for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ValidationError
from ..models.traits import Traits
from ..query import Filter, FilterGroup

MAX_VALUES = 10_000
"""The most values of a list if each value is a separate parameter, as for types that SQLAlchemy does not know. Drivers
accept at most 32,766 parameters. All other lists are one parameter, and can have any length."""

MAX_PATTERN = 10_000
"""The most characters of a text to match. SQLite accepts patterns of at most 50,000 bytes."""

MAX_SEARCH = 65_536
"""The most characters of a search text."""

MAX_DEPTH = 20
"""The greatest nesting depth of filter groups."""

MAX_CONDITIONS = 500
"""The most filters and groups of one read, including those inside groups. SQLite accepts expressions that are nested at
most 1,000 deep."""

MAX_CACHED_FILTERS = 20
"""The most filters of a statement that is cached. A statement with more filters is built again for each call."""

MAX_SORTS = 50
"""The most sort fields of one read."""

MAX_PATH = 500
"""The most characters of a field's name. The limit bounds the cache of paths, whose keys are names."""

MAX_STEPS = 10
"""The most relationships in a path. Each relationship becomes a nested subquery."""

MAX_JSON_DEPTH = 64
"""The deepest nesting of lists and objects in a JSON value. Python parses and writes JSON recursively, and fails at
much greater depths."""

TOO_DEEP = f"a JSON value of at most {MAX_JSON_DEPTH} levels"


def check_size(traits: Traits[object], filters: Sequence[Filter]) -> None:
    """Raise `ValidationError` if there are too many filters. It is called before any filter is resolved."""
    left, waiting = MAX_CONDITIONS, list(filters)
    while waiting:
        left -= len(waiting)
        if left < 0:
            raise ValidationError(
                f"{traits.name}: the query has more than {MAX_CONDITIONS} filters, including those in groups; "
                "for many values of one field, use a single filter with the operator 'in'.",
                field="filters",
            )
        waiting = [member for each in waiting if isinstance(each, FilterGroup) for member in each.members]


def checked_depth(value: object) -> object:
    """``value``; raises `ValueError` if its lists and dicts nest deeper than `MAX_JSON_DEPTH`.

    It works level by level, without recursion, so the depth of the value does not matter. An object that occurs several
    times in a level is followed once. Otherwise, if a value contains itself twice, each level would be twice as large
    as the one before.
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
