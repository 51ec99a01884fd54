"""Puts the values of parameters into a statement or a condition."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import TypeVar

from sqlalchemy import BindParameter
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.visitors import cloned_traverse

E = TypeVar("E", bound=ClauseElement)

_NUMBERS = count()
"""For names of parameters that no other one has. They are no part of the key under which a statement is cached."""


def with_values(element: E, values: Mapping[str, object]) -> E:
    """The element with its parameters' values, and with unique names of the parameters.

    It can then be combined with others. The values that `Select.params` sets belong to names, which two statements can
    share.
    """

    def fill(parameter: BindParameter[object]) -> None:
        # Not by `replacement_traverse`: that does not enter the EXISTS of a relationship.
        if parameter.key in values:
            parameter.value, parameter.required = values[parameter.key], False
            parameter.key = f"dotmac_inlined_{next(_NUMBERS)}"

    filled: E = cloned_traverse(element, {}, {"bindparam": fill})
    return filled
