"""A field's name → what it stands for in a statement.

``"name"`` is a column, ``"author.name"`` goes through a relationship, ``"settings.theme"`` into a JSON
document, and they may be joined. Whatever does not exist raises `ValidationError` and names the nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

from sqlalchemy import JSON, Column, String, select
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import RelationshipProperty, aliased
from sqlalchemy.sql import ColumnElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from ..dialects.base import Dialect, enum_of
from ..dialects.spans import Span
from ..errors import MisuseError
from ..models.expressions import element_of, hybrid_sql, is_private
from ..models.traits import Traits, traits_of
from .bounds import MAX_JSON_DEPTH, MAX_PATH, MAX_STEPS
from .coercion import Coercer, checked_text, coercer, comparer
from .scope import Scope
from .suggestions import shown, suggestion


@dataclass(frozen=True, eq=False)
class FieldPath:
    """A resolved path: the relationships to go through, then a column of ``owner`` and a path into its JSON.

    ``key=None``: the path ends at a relationship, which can only be asked whether anything is there.
    """

    text: str
    steps: tuple[RelationshipProperty[Any], ...]
    owner: Traits[Any]
    key: str | None
    json: tuple[str, ...] = ()
    entity: Any = None
    """The alias of the owner's class that the expression is on; None: the class itself."""

    @cached_property
    def expression(self) -> ColumnElement[Any]:
        """The column, or the SQL of a hybrid or a column property, on the owner's class or an alias of it."""
        assert self.key is not None
        expression: ColumnElement[Any] = getattr(self.owner.model if self.entity is None else self.entity, self.key)
        return expression

    @cached_property
    def type(self) -> TypeEngine[Any]:
        """The type of the expression."""
        type_: TypeEngine[Any] = element_of(self.expression).type
        return type_

    def on(self, entity: Any) -> ColumnElement[Any]:
        """The SQL of the value on the owner's class or an alias of it, whatever comparator a hybrid has."""
        attribute = getattr(entity, self.key or "")
        value: ColumnElement[Any] = attribute if hasattr(attribute, "type") else element_of(attribute)
        return value

    @property
    def compares_itself(self) -> bool:
        """Whether a hybrid's own comparator says what comparisons mean."""
        return not hasattr(self.expression, "type")

    @cached_property
    def plain(self) -> bool:
        """Whether the value is an attribute of the root's own rows."""
        return not self.steps and not self.json and self.key is not None

    @cached_property
    def nullable(self) -> bool:
        """Whether the value can be NULL; unknown counts as yes."""
        column = self.owner.columns.get(self.key or "")
        return bool(self.steps or self.json) or not isinstance(column, Column) or bool(column.nullable)

    @cached_property
    def private(self) -> bool:
        """Whether the value is a private column's, or made of one."""
        if self.key is None or self.key in self.owner.mapper.column_attrs:
            return self.key in self.owner.private
        return is_private(element_of(self.expression))

    @cached_property
    def coerce(self) -> Coercer:
        """Coerces a filter's value to the column's Python type; raises `ValueError`."""
        return coercer(self.type)

    def compared(self, dialect: Dialect) -> Coercer:
        """As `coerce`, and refuses what the type itself does not take. Made once a dialect."""
        if dialect.name not in self._compared:
            self._compared[dialect.name] = comparer(self.type, dialect.types)
        return self._compared[dialect.name]

    def span(self, dialect: Dialect) -> Span | None:
        """How a value that was read is compared with the field; None: as it is. Found once a dialect."""
        if dialect.name not in self._spans:
            self._spans[dialect.name] = dialect.span(self.type)
        return self._spans[dialect.name]

    @cached_property
    def _compared(self) -> dict[str, Coercer]:
        return {}

    @cached_property
    def _spans(self) -> dict[str, Span | None]:
        return {}


def is_json(type_: TypeEngine[Any]) -> bool:
    """Whether columns of this type hold JSON documents."""
    return isinstance(type_.impl_instance if isinstance(type_, TypeDecorator) else type_, JSON)


def is_text(type_: TypeEngine[Any]) -> bool:
    """Whether columns of this type hold texts; an enum's are not."""
    plain = type_.impl_instance if isinstance(type_, TypeDecorator) else type_
    return isinstance(plain, String) and enum_of(plain) is None


def resolve(traits: Traits[Any], text: str) -> FieldPath:
    """The field that ``text`` names on the class of ``traits``. Cached by name."""
    if len(text) > MAX_PATH:
        raise MisuseError(
            f"{traits.name} has no field {shown(text)!r}: a name has at most {MAX_PATH} characters.", field=shown(text)
        )
    return traits.cached(("path", text), lambda: _resolve(traits, text))


def _resolve(root: Traits[Any], text: str) -> FieldPath:
    owner, steps = root, list[RelationshipProperty[Any]]()
    parts = text.split(".")
    for position, part in enumerate(parts):
        part = _canonical(owner, part)
        rest = tuple(parts[position + 1 :])
        relationship = owner.relationships.get(part)
        if relationship is not None:
            steps.append(relationship)
            if len(steps) > MAX_STEPS:
                raise MisuseError(
                    f"{shown(text)!r} goes through more than {MAX_STEPS} relationships.", field=shown(text)
                )
            owner = traits_of(relationship.mapper.class_)
            continue
        if not _is_field(owner, part):
            unknown(root, text, part, owner)
        path = FieldPath(text, tuple(steps), owner, part, rest)
        if rest and not is_json(path.type):
            raise MisuseError(
                f"{owner.name}.{part} is neither a relationship nor JSON, so {text!r} names nothing.", field=text
            )
        if len(rest) > MAX_JSON_DEPTH or any(not _is_step(step) for step in rest):
            raise MisuseError(f"{shown(text)!r} is no path into a JSON document.", field=text)
        return path
    return FieldPath(text, tuple(steps), owner, None)


def _is_step(step: str) -> bool:
    """Whether every dialect can look for a JSON object's key of this name."""
    try:
        return bool(checked_text(step)) and '"' not in step and "\\" not in step
    except ValueError:
        return False


def _canonical(owner: Traits[Any], part: str) -> str:
    synonym = owner.mapper.synonyms.get(part)
    return synonym.name if synonym is not None else part


def _is_field(owner: Traits[Any], part: str) -> bool:
    """Whether the class has a column of this name, or a hybrid that is SQL; one of Python alone is refused."""
    if part in owner.mapper.column_attrs:
        return True
    if not isinstance(owner.mapper.all_orm_descriptors.get(part), hybrid_property):
        return False
    if not isinstance(hybrid_sql(owner.model, part), ColumnElement):
        raise MisuseError(
            f"{owner.name}.{part} is computed by Python alone, so the database can't be asked about it; "
            "give the hybrid an SQL expression, or name columns.",
            field=part,
        )
    return True


def unknown(root: Traits[Any], text: str, part: str, owner: Traits[Any], what: str = "field") -> NoReturn:
    """Refuse a name that does not exist, and suggest the nearest that does."""
    names = [*owner.mapper.column_attrs.keys(), *owner.relationships, *owner.mapper.synonyms.keys()]
    hint = suggestion(part, [name for name in names if name not in owner.private])
    through = "" if part == text else f" (in {shown(text)!r} of {root.name})"
    raise MisuseError(f"{owner.name} has no {what} {shown(part)!r}{through}{hint}", field=shown(text))


def relationship_of(traits: Traits[Any], name: str, text: str) -> RelationshipProperty[Any]:
    """The relationship ``name`` of the class; raises `ValidationError` for any other name."""
    relationship = traits.relationships.get(name)
    if relationship is None:
        hint = suggestion(name, list(traits.relationships), listed=False)
        raise MisuseError(f"{traits.name} has no relationship {shown(name)!r}{hint}", field=shown(text))
    return relationship


def along(
    steps: Sequence[RelationshipProperty[Any]], entity: Any, scope: Scope, last: Callable[[Any], ColumnElement[Any]]
) -> ColumnElement[Any]:
    """``last(…)`` of the row at the end of to-one relationships, seen from ``entity``: a scalar subquery for each."""
    if not steps:
        return last(entity)
    step, *rest = steps
    target = traits_of(step.mapper.class_)
    alias = aliased(target.model)
    joined = getattr(entity, step.key).of_type(alias)
    value = along(rest, alias, scope, last)
    return select(value).where(joined, *scope.of(target, alias)).correlate(entity).scalar_subquery()
