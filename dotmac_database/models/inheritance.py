"""Reads how the tables of joined inheritance are joined."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column
from sqlalchemy.orm import Mapper
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BinaryExpression


def joined_columns(mapper: Mapper[Any]) -> dict[Any, Column[Any]]:
    """The columns of the class's own table, by the columns of the parent's table to which they are joined."""
    assert mapper.inherit_condition is not None  # the mapper exists, so SQLAlchemy has set it
    sides: list[Any] = []
    for element in visitors.iterate(mapper.inherit_condition):
        if isinstance(element, BinaryExpression) and element.operator is operators.eq:
            sides += [(element.left, element.right), (element.right, element.left)]
    return {one: own for one, own in sides if getattr(own, "table", None) is mapper.local_table}
