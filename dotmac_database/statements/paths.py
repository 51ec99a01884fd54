"""Resolves the dotted name of a field to the SQL of its value.

``"name"`` is a column, ``"author.name"`` a column of a related row, and ``"settings.theme"`` a value inside a JSON
document. A path can go through relationships first, and then into a document. A name that does not exist raises
`ValidationError`, which suggests the most similar name.
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
from sqlalchemy.types import TypeEngine

from ..dialects.base import Dialect, enum_of
from ..dialects.spans import Span
from ..errors import MisuseError, ValidationError
from ..field_names import check_owner
from ..models.expressions import element_of, hybrid_sql, is_private
from ..models.traits import Traits, traits_of
from ..types import undecorated
from .bounds import MAX_JSON_DEPTH, MAX_PATH, MAX_STEPS
from .coercion import Coercer, checked_text, coercer, comparer
from .scope import RowRules, Scope
from .suggestions import shown, suggestion


@dataclass(frozen=True, eq=False)
class FieldPath:
    """A resolved path: relationships (``steps``), then the attribute ``key`` of ``owner``, then a path into its JSON.

    ``key=None``: the path ends at a relationship. It can only be tested for the existence of related rows.
    """

    text: str
    steps: tuple[RelationshipProperty[object], ...]
    owner: Traits[object]
    key: str | None
    json: tuple[str, ...] = ()
    entity: object = None
    """The alias of the owner's class to which the expression belongs; None: the class itself."""

    @cached_property
    def expression(self) -> ColumnElement[object]:
        """The column, hybrid or column property, as an attribute of the owner's class or of the alias ``entity``."""
        assert self.key is not None
        expression: ColumnElement[object] = getattr(self.owner.model if self.entity is None else self.entity, self.key)
        return expression

    @cached_property
    def type(self) -> TypeEngine[object]:
        """The type of the expression."""
        type_: TypeEngine[object] = element_of(self.expression).type
        return type_

    def on(self, entity: object) -> ColumnElement[object]:
        """The SQL of the value for the owner's class, or for an alias of it. A hybrid's comparator is not used."""
        attribute = getattr(entity, self.key or "")
        value: ColumnElement[object] = attribute if hasattr(attribute, "type") else element_of(attribute)
        return value

    @property
    def compares_itself(self) -> bool:
        """Whether the field is a hybrid with its own comparator, which determines the SQL of comparisons."""
        return not hasattr(self.expression, "type")

    @cached_property
    def plain(self) -> bool:
        """Whether the value is an attribute of the class whose rows are read, not of a related row or inside JSON."""
        return not self.steps and not self.json and self.key is not None

    @cached_property
    def nullable(self) -> bool:
        """Whether the value can be NULL. True if this is unknown."""
        column = self.owner.columns.get(self.key or "")
        return bool(self.steps or self.json) or not isinstance(column, Column) or bool(column.nullable)

    @cached_property
    def private(self) -> bool:
        """Whether the value is that of a private column, or is computed from one."""
        if self.key is None or self.key in self.owner.mapper.column_attrs:
            return self.key in self.owner.private
        return is_private(element_of(self.expression))

    @cached_property
    def coerce(self) -> Coercer:
        """The function that converts a filter's value to the column's Python type, or raises `ValueError`."""
        return coercer(self.type)

    def compared(self, dialect: Dialect) -> Coercer:
        """As `coerce`; it also refuses a value that the type itself does not accept. Cached by dialect."""
        if dialect.name not in self._compared:
            self._compared[dialect.name] = comparer(self.type, dialect.types)
        return self._compared[dialect.name]

    def span(self, dialect: Dialect) -> Span | None:
        """The span with which the field is compared; None: it is compared with the value itself. Cached by dialect."""
        if dialect.name not in self._spans:
            self._spans[dialect.name] = dialect.span(self.type)
        return self._spans[dialect.name]

    @cached_property
    def _compared(self) -> dict[str, Coercer]:
        return {}

    @cached_property
    def _spans(self) -> dict[str, Span | None]:
        return {}


def is_json(type_: TypeEngine[object]) -> bool:
    """Whether columns of this type contain JSON documents."""
    return isinstance(undecorated(type_), JSON)


def is_text(type_: TypeEngine[object]) -> bool:
    """Whether columns of this type contain text. False for an enum."""
    plain = undecorated(type_)
    return isinstance(plain, String) and enum_of(plain) is None


def resolve(traits: Traits[Any], text: str, rules: RowRules | None = None) -> FieldPath:
    """The field of the class that ``text`` names, cached by name.

    Raises `ValidationError` if there is none, or if ``rules`` hide it. The message then suggests no hidden field. A
    hybrid is hidden if its SQL contains a hidden column.
    """
    if len(text) > MAX_PATH:
        raise MisuseError(
            f"{traits.name} has no field {shown(text)!r}: a name has at most {MAX_PATH} characters.", field=shown(text)
        )
    if type(text) is not str:
        check_owner(traits.model, text)
    if rules is not None:
        return _resolve(traits, text, rules)
    return traits.cached(("path", text), lambda: _resolve(traits, text))


def _resolve(root: Traits[object], text: str, rules: RowRules | None = None) -> FieldPath:
    owner, steps = root, list[RelationshipProperty[object]]()
    parts = text.split(".")
    for position, part in enumerate(parts):
        part = _canonical(owner, part)
        rest = tuple(parts[position + 1 :])
        relationship = owner.relationships.get(part)
        hidden = frozenset[str]() if rules is None else rules.hidden(owner) | rules.hidden_relationships(owner)
        if relationship is not None and part not in hidden:
            steps.append(relationship)
            if len(steps) > MAX_STEPS:
                raise MisuseError(
                    f"{shown(text)!r} goes through more than {MAX_STEPS} relationships.", field=shown(text)
                )
            owner = traits_of(relationship.mapper.class_)
            continue
        if part in hidden or not _is_field(owner, part):
            unknown(root, text, part, owner, hidden=hidden)
        if rules is not None and rules.reads_hidden(element_of(getattr(owner.model, part))):
            unknown(root, text, part, owner, hidden=hidden)
        path = FieldPath(text, tuple(steps), owner, part, rest)
        if rest and not is_json(path.type):
            raise MisuseError(
                f"{owner.name}.{part} is neither a relationship nor JSON, so {text!r} does not exist.", field=text
            )
        if len(rest) > MAX_JSON_DEPTH or any(not _is_step(step) for step in rest):
            raise MisuseError(f"{shown(text)!r} is no path into a JSON document.", field=text)
        return path
    return FieldPath(text, tuple(steps), owner, None)


def has_value(traits: Traits[object], name: str, rules: RowRules | None = None) -> bool:
    """Whether the class has a column, a hybrid with SQL or a synonym of this name that ``rules`` don't hide."""
    if rules is not None:
        try:
            return resolve(traits, name, rules).plain
        except ValidationError:
            return False
    return "." not in name and name not in traits.relationships and _is_field(traits, _canonical(traits, name))


def _is_step(step: str) -> bool:
    """Whether every dialect can find a key of this name in a JSON object."""
    try:
        return bool(checked_text(step)) and '"' not in step and "\\" not in step
    except ValueError:
        return False


def _canonical(owner: Traits[object], part: str) -> str:
    """The attribute that a synonym stands for; other names are returned unchanged."""
    synonym = owner.mapper.synonyms.get(part)
    return synonym.name if synonym is not None else part


def _is_field(owner: Traits[object], part: str) -> bool:
    """Whether the class has a column or a hybrid of this name. Raises `ValidationError` for a hybrid without SQL."""
    if part in owner.mapper.column_attrs:
        return True
    if not isinstance(owner.mapper.all_orm_descriptors.get(part), hybrid_property):
        return False
    if not isinstance(hybrid_sql(owner.model, part), ColumnElement):
        raise MisuseError(
            f"{owner.name}.{part} is computed by Python alone, so it can't be used in SQL; "
            "give the hybrid an SQL expression, or use columns.",
            field=part,
        )
    return True


def unknown(
    root: Traits[object],
    text: str,
    part: str,
    owner: Traits[object],
    what: str = "field",
    hidden: frozenset[str] = frozenset(),
) -> NoReturn:
    """Raise `ValidationError` for a name that does not exist, and suggest the most similar one that is not hidden."""
    names = [*owner.mapper.column_attrs.keys(), *owner.relationships, *owner.mapper.synonyms.keys()]
    hint = suggestion(part, [name for name in names if name not in owner.private | hidden])
    through = "" if part == text else f" (in {shown(text)!r} of {root.name})"
    raise MisuseError(f"{owner.name} has no {what} {shown(part)!r}{through}{hint}", field=shown(text))


def relationship_of(
    traits: Traits[object], name: str, text: str, rules: RowRules | None = None
) -> RelationshipProperty[object]:
    """The relationship ``name`` of the class; raises `ValidationError` for any other name, or if ``rules`` hide it."""
    check_owner(traits.model, name)
    relationship = traits.relationships.get(name)
    hidden = frozenset[str]() if rules is None else rules.hidden_relationships(traits)
    if relationship is None or name in hidden:
        hint = suggestion(name, [each for each in traits.relationships if each not in hidden], listed=False)
        raise MisuseError(f"{traits.name} has no relationship {shown(name)!r}{hint}", field=shown(text))
    return relationship


def along(
    steps: Sequence[RelationshipProperty[object]],
    entity: Any,
    scope: Scope,
    last: Callable[[object], ColumnElement[object]],
) -> ColumnElement[object]:
    """``last(…)`` of the row at the end of ``steps``, which are to-one relationships that begin at ``entity``.

    Each relationship becomes a scalar subquery.
    """
    if not steps:
        return last(entity)
    step, *rest = steps
    target = traits_of(step.mapper.class_)
    alias = aliased(target.model)
    joined = getattr(entity, step.key).of_type(alias)
    value = along(rest, alias, scope, last)
    return select(value).where(joined, *scope.of(target, alias)).correlate(entity).scalar_subquery()
