"""Puts the values of parameters into a statement or a condition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from sqlalchemy import BindParameter
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.visitors import replacement_traverse

E = TypeVar("E", bound=ClauseElement)


def with_values(element: E, values: Mapping[str, object]) -> E:
    """The element with its parameters' values, and with unique names of the parameters.

    It can then be combined with others. The values that `Select.params` sets belong to names, which two statements can
    share.
    """

    def replaced(part: object, **_: object) -> Any:
        if not isinstance(part, BindParameter) or part.key not in values:
            return None
        return BindParameter(None, values[part.key], type_=part.type, unique=True, expanding=part.expanding)

    traverse: Any = replacement_traverse  # its overloads take none of SQLAlchemy's own base classes
    changed: E = traverse(element, {}, replaced)
    return changed
