"""The words for what Pydantic refuses in options: only about what the user meant, and without what he has written."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Any, TypeAlias

import pydantic

Location: TypeAlias = tuple[int | str, ...]

_FILTER, _GROUP = "QueryFilter", "FilterGroup"
"""The two forms of a filter, as Pydantic names them in locations. It reports the faults of both."""

_COMPARED = 80
"""The most characters of an unknown operator that are compared with the operators."""


def faults_of(
    error: pydantic.ValidationError, unnamed: Collection[str], operators: Sequence[str]
) -> list[tuple[str, str]]:
    """The dotted place of each fault, and what is wrong there.

    ``unnamed`` are the names of forms, such as those of pages, which are no fields. ``operators`` are all operators.
    """
    faults: list[Any] = error.errors(include_url=False)
    filters = {place for place in map(_place_of_filter, faults) if place is not None}
    forms = {*unnamed, _FILTER, _GROUP}
    return [
        (".".join(str(part) for part in fault["loc"] if part not in forms), _message(fault, operators))
        for fault in faults
        if not any(
            part == (_GROUP if fault["loc"][:place] in filters else _FILTER) for place, part in enumerate(fault["loc"])
        )
    ]


def _place_of_filter(fault: Any) -> Location | None:
    """The place where a filter was meant and not a group, because it is no dict or has no mode."""
    location: Location = fault["loc"]
    if location[-2:] == (_GROUP, "mode") and fault["type"] == "missing":
        return location[:-2]
    return location[:-1] if location[-1:] == (_GROUP,) else None


def _message(fault: Any, operators: Sequence[str]) -> str:
    if fault["type"] == "enum" and fault["loc"][-1] == "operator":
        close = get_close_matches(str(fault["input"])[:_COMPARED].lower(), operators, 1)
        if close:
            return f"there is no such operator; did you mean {close[0]!r}?"
    return str(fault["msg"])
