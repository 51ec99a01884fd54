"""The conditions of a read's filters, with the kind of index that each of them could use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, LargeBinary

from ..dialects.indexing import Need
from ..models.traits import Traits
from ..query import FilterOperator as Op
from ..statements.filters import Analysis, ConditionShape, GroupShape
from ..statements.paths import FieldPath, is_json, resolve
from ..types import undecorated

_RANGES = (Op.IN, Op.BETWEEN, Op.GT, Op.GTE, Op.LT, Op.LTE)
_LIKES = {Op.LIKE, Op.STARTS_WITH, Op.ENDS_WITH, Op.CONTAINS, Op.ILIKE}
_RUN = re.compile(r"\w{3}")


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a read. ``required``: all rows of the read meet it. An alternative of an OR is not required."""

    path: FieldPath
    shape: ConditionShape
    values: tuple[Any, ...]
    required: bool

    @property
    def equal(self) -> bool:
        """Whether the column is compared with one value."""
        operator = self.shape.operator
        return operator is Op.EQ or (operator is Op.IN and len(self.values[0]) == 1)

    @property
    def range(self) -> int:
        """How well an index on the column narrows the read: 0 is best. -1: the condition is not a range."""
        return _RANGES.index(self.shape.operator) if self.shape.operator in _RANGES and not self.equal else -1

    @property
    def null(self) -> bool:
        """Whether the column must be NULL."""
        return self.shape.operator is Op.IS_NULL

    def need(self, wildcards: str) -> Need | None:
        """The kind of search for which a special index could serve the condition; None: no special index could.

        ``wildcards`` are the wildcard characters of patterns. If a pattern begins with one of them, an index can't look
        up the beginning of the pattern.
        """
        operator = self.shape.operator
        if operator is Op.SEARCH:
            return Need.WORDS
        if is_json(self.path.type) and operator in (Op.CONTAINS, Op.CONTAINED_BY, Op.OVERLAPS):
            return Need.DOCUMENT if operator is Op.CONTAINS else None
        if isinstance(undecorated(self.path.type), ARRAY):
            return Need.ARRAY if operator in (Op.CONTAINS, Op.CONTAINED_BY, Op.OVERLAPS) else None
        if operator not in _LIKES or not self.values:
            return None
        pattern = str(self.values[0])
        if operator is not Op.ILIKE and pattern and pattern[0] not in wildcards:
            return Need.PREFIX
        # A trigram index needs at least three word characters in a row.
        return Need.SUBSTRING if _RUN.search(re.sub(r"\\.|_", " ", pattern)) else None


def comparable(path: FieldPath) -> bool:
    """Whether an ordinary index can have the field as a key."""
    return not isinstance(undecorated(path.type), (LargeBinary, ARRAY))


def conditions_of(traits: Traits[Any], analysis: Analysis) -> list[Condition]:
    """The conditions of analysed filters, with their values, in the order of the filters."""
    return list(_walk(traits, analysis.shape, iter(analysis.values), required=True))


def _walk(
    traits: Traits[object], shapes: Sequence[Any], values: Iterator[Any], *, required: bool
) -> Iterator[Condition]:
    for shape in shapes:
        if isinstance(shape, GroupShape):
            conjunction = shape.mode == "all" or (shape.mode == "any" and len(shape.members) == 1)
            yield from _walk(traits, shape.members, values, required=required and conjunction)
        else:
            own_values = tuple(next(values) for _ in range(shape.values))
            yield Condition(resolve(traits, shape.field), shape, own_values, required)
