"""Counts of related rows, each as a correlated subquery, which neither repeats rows nor changes a total."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import exists, func, literal_column, select
from sqlalchemy.orm import RelationshipProperty, aliased
from sqlalchemy.sql import ColumnElement
from sqlalchemy.types import BigInteger, TypeEngine

from ..dialects.base import Dialect
from ..errors import MisuseError
from ..models.traits import Traits, traits_of
from ..query import Count
from .filters import Analysis, analyse, build
from .paths import FieldPath, relationship_of
from .scope import RowRules, Scope
from .suggestions import shown


@dataclass(frozen=True, eq=False)
class Counted:
    """A `Count` with its name, resolved for a class. ``prefix`` begins the names of the parameters of its filters."""

    name: str
    relationship: RelationshipProperty[object]
    analysis: Analysis
    prefix: str

    @property
    def shape(self) -> tuple[object, ...]:
        """The part of the count that determines the text of a statement."""
        return self.name, self.relationship.key, self.analysis.shape

    @property
    def parameters(self) -> dict[str, object]:
        """The values of the filters by parameter name."""
        return {f"{self.prefix}{index}": value for index, value in enumerate(self.analysis.values)}

    @property
    def type(self) -> TypeEngine[int]:
        """The SQL type of the count."""
        return BigInteger()

    def path(self, traits: Traits[object]) -> FieldPath:
        """The count as a field of the class, which only a sort can name."""
        return FieldPath(self.name, (), traits, self.name)

    def expression(self, traits: Traits[object], scope: Scope, dialect: Dialect) -> ColumnElement[int]:
        """The number of related rows within the scope, as a scalar subquery that is correlated with the class."""
        target = traits_of(self.relationship.mapper.class_)
        alias: Any = aliased(target.model)
        related: Any = traits.attribute(self.relationship.key)
        statement = select(func.count(literal_column("*"), type_=self.type)).select_from(alias)
        statement = statement.where(related.of_type(alias), *scope.of(target, alias))
        conditions = build(target, self.analysis.shape, scope, dialect, self.prefix)
        if conditions:
            # The conditions are on the class itself, and the count is on an alias, so the key connects the two.
            same = [target.attribute(key) == getattr(alias, key) for key in target.primary_key]
            statement = statement.where(
                exists().select_from(target.model).where(*same, *scope.of(target), *conditions).correlate(alias)
            )
        return statement.correlate(traits.model).scalar_subquery()


def counted(
    traits: Traits[Any], counts: Mapping[str, Count], dialect: Dialect, rules: RowRules | None = None
) -> tuple[Counted, ...]:
    """The counts of a read, by name. Raises `ValidationError` for an unknown relationship, and for a name in use."""
    result: list[Counted] = []
    for place, (name, count) in enumerate(counts.items()):
        if not isinstance(count, Count):
            raise MisuseError(f"{name}: a Count was expected, not {shown(type(count).__name__)}.", field=name)
        if name in traits.mapper.all_orm_descriptors and name not in traits.relationships:
            raise MisuseError(f"{traits.name}.{name} is a field already; give the count another name.", field=name)
        relationship = relationship_of(traits, count.relationship, count.relationship, rules)
        analysis = analyse(traits_of(relationship.mapper.class_), count.filters, dialect, rules)
        result.append(Counted(name, relationship, analysis, f"dotmac_count_{place}_"))
    return tuple(result)
