"""Puts the values of parameters into a statement or a condition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from sqlalchemy import BindParameter
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.visitors import cloned_traverse

E = TypeVar("E", bound=ClauseElement)


def with_values(element: E, values: Mapping[str, object]) -> E:
    """The element with its parameters' values, and with unique names of the parameters.

    It can then be combined with others that have no parameters of the old names. The values that `Select.params` sets
    belong to names, which two statements can share.
    """

    def fill(parameter: BindParameter[object]) -> None:
        if parameter.key in values:
            parameter.value, parameter.required, parameter.unique = values[parameter.key], False, True

    # Not by `replacement_traverse`: that does not enter the EXISTS of a relationship. The second copy gives each unique
    # parameter an anonymous name, which is no part of the key under which SQLAlchemy caches the statement.
    filled: E = cloned_traverse(element, {}, {"bindparam": fill})
    renamed: E = cloned_traverse(filled, {}, {})
    return renamed
