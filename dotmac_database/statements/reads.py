"""Builds SELECTs from options. A statement is built once for each shape, and cached with the class's traits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeVar

from sqlalchemy import Select, bindparam, func, literal_column, select
from sqlalchemy.orm import Bundle, lazyload, selectinload, undefer
from sqlalchemy.orm.base import instance_dict
from sqlalchemy.sql import ColumnElement

from ..dialects.base import Dialect
from ..dialects.explain import Explain
from ..errors import MisuseError, ValidationError
from ..models.expressions import holds_select
from ..models.traits import EAGER, Traits, traits_of
from ..query import Filter, FilterOperator
from ..tenancy.context import ALL_TENANTS
from ..tenancy.criteria import Confinement
from .bounds import MAX_CACHED_FILTERS
from .coercion import coercer, short_repr
from .filters import Analysis, analyse, build, search_terms
from .keyset import Term, after, nulls_follow, order_by, reversed_terms
from .ordering import Order, OrderedTerm, sought_parameter, terms_of
from .paths import relationship_of, resolve
from .scope import Scope
from .spans import compare_span

S = TypeVar("S")

_DEPTH = 3
"""How far what is loaded of a class's own accord is followed; beyond that it is loaded when it is asked for."""

PARENTS = 10_000
"""For how many rows one statement loads a relationship, or by composite keys a part of it: SQLAlchemy takes 500."""

_AS_HELD: Mapping[str, Any] = {"populate_existing": False}


@dataclass(frozen=True, slots=True)
class Bound:
    """A statement, the values to run it with, and execution options of its own."""

    statement: Any
    parameters: dict[str, Any] = field(default_factory=dict)
    execution_options: Mapping[str, Any] = field(default_factory=dict)


class AsDict(Bundle[Any]):
    """A bundle of columns that gives a dict for each row."""

    inherit_cache = True

    def create_row_processor(
        self,
        query: Any,  # noqa: ARG002 - the name is SQLAlchemy's
        procs: Sequence[Callable[[Any], Any]],
        labels: Sequence[str],
    ) -> Callable[[Any], Any]:
        """SQLAlchemy's hook: what makes a row's value."""
        keys = tuple(labels)
        return lambda row: dict(zip(keys, [proc(row) for proc in procs], strict=True))


class Lock(NamedTuple):
    """How rows that are read are locked: ``FOR UPDATE``, with what becomes of those that another has locked."""

    nowait: bool = False
    skip_locked: bool = False


def for_update(traits: Traits[Any], statement: Select[Any], **options: Any) -> Select[Any]:
    """The SELECT of a class, whose rows it locks; those of a union stay unlocked."""
    return statement if traits.lockable is None else statement.with_for_update(of=traits.lockable, **options)


SeekPart = Literal["all", "values", "nulls"]
"""Which of the rows after a position: all, or of those whose leading field is NULL last the ones before, or they."""


@dataclass(frozen=True, slots=True)
class Seek:
    """The start of a keyset page: the mode of its cursor and the values of the position, as stored or as read."""

    mode: str
    values: tuple[Any, ...]
    part: SeekPart = "all"
    stored: bool = True

    @property
    def backwards(self) -> bool:
        """Whether the rows are read in reverse order."""
        return self.mode in ("before", "until")

    @property
    def shape(self) -> tuple[Any, ...]:
        """What of it shapes the statement."""
        return self.mode, self.part, self.stored, tuple(value is None for value in self.values)


@dataclass(frozen=True, slots=True)
class Reader:
    """Builds the SELECTs of one class in one scope."""

    traits: Traits[Any]
    scope: Scope
    dialect: Dialect
    lock: Lock | None = None
    fields: tuple[str, ...] = ()
    undeferred: frozenset[str] = frozenset()
    """Dotted paths to the deferred columns that are loaded nevertheless."""

    @property
    def selected(self) -> Any:
        """The first element of each row: an entity, or, with ``fields``, a dict of them."""
        if not self.fields:
            return self.traits.model
        return AsDict(self.traits.name, *map(self._field, self.fields))

    def _field(self, name: str) -> Any:
        """What a field of a dict is read from."""
        if name in self.traits.columns:
            return self.traits.attribute(name)
        return resolve(self.traits, name).on(self.traits.model).label(name)

    def holds(self, term: OrderedTerm) -> bool:
        """Whether the row has the value of a term of its order; else the statement must select it beside the row."""
        return term.on_row and (not self.fields or term.path.key in self.fields)

    def position(self, row: Any, terms: Sequence[OrderedTerm]) -> tuple[Any, ...]:
        """The position of a row in the order."""
        entity, *selected = row
        held = entity if self.fields else instance_dict(entity)
        beside = iter(selected)
        return tuple(
            term.portable(_value(entity, held, term.path.key or "")) if self.holds(term) else next(beside)
            for term in terms
        )

    def cached(self, shape: tuple[Any, ...], make: Callable[[], S]) -> S:
        """The cached result of ``make()`` for this shape.

        Statements with a repository's own conditions are not cached. Neither are statements with many filters: clients
        could request any number of these, and each takes 0.2 MB.
        """
        if self.scope.conditions or (len(shape) > 1 and type(shape[1]) is tuple and len(shape[1]) > MAX_CACHED_FILTERS):
            return make()
        return self.traits.cached((self.dialect.name, self.scope.shape, self.lock, self.fields, *shape), make)

    def analysed(self, filters: Sequence[Filter]) -> Analysis:
        """The analysed filters."""
        return analyse(self.traits, filters, self.dialect)

    def terms(self, order: Order) -> tuple[OrderedTerm, ...]:
        """The order's SQL."""
        return self.cached(("terms", order), lambda: terms_of(self.traits, order, self.scope, self.dialect))

    def where(self, found: Analysis) -> list[Any]:
        """The scope's and the filters' conditions."""
        return [*self.scope.root(self.traits), *build(self.traits, found.shape, self.scope, self.dialect)]

    def rows(
        self, filters: Sequence[Filter], order: Order, *, limit: int | None = None, offset: int = 0, bound: int = -1
    ) -> Bound:
        """The rows in order.

        ``bound`` says how all matching rows are counted, in the same statement: a negative one, not at all; 0, exactly,
        as an extra column of each row; a positive one, likewise, but the count stops at ``bound`` + 1.
        """
        found = self.analysed(filters)
        shape = ("rows", found.shape, order, limit is not None, bool(offset), (bound > 0) - (bound < 0))
        parameters = {**self.scope.parameters, **found.parameters}
        if limit is not None:
            parameters["dotmac_limit"] = limit
        if offset:
            parameters["dotmac_offset"] = offset
        if bound > 0:
            parameters["dotmac_bound"] = bound + 1
        parameters |= self._search_parameters(filters, order)
        return Bound(self.cached(shape, lambda: self._rows(found, order, shape)), parameters)

    def _search_parameters(self, filters: Sequence[Filter], order: Order) -> dict[str, str]:
        """The parameters with the search words of sorts by relevance."""
        words: dict[str, str] = {}
        for place, each in enumerate(order):
            if each.by == "relevance":
                asked = search_terms(filters, each.field)
                if asked is None:
                    raise MisuseError(
                        f"{self.traits.name}.{each.field}: relevance needs a search filter on the field.",
                        field=each.field,
                    )
                words[sought_parameter(place)] = self.dialect.search_text(asked)
        return words

    def _rows(self, found: Analysis, order: Order, shape: tuple[Any, ...]) -> Select[Any]:
        _, _, _, limited, offset, counted = shape
        where = self.where(found)
        statement: Select[Any] = select(self.selected)
        if counted >= 0:
            statement = statement.add_columns(self._count(where, bounded=counted > 0).scalar_subquery())
        statement = statement.where(*where).order_by(*order_by([each.term for each in self.terms(order)]))
        if limited:
            statement = statement.limit(bindparam("dotmac_limit"))
        return self._locked(statement.offset(bindparam("dotmac_offset")) if offset else statement)

    def _locked(self, statement: Select[Any]) -> Select[Any]:
        if self.lock is None:
            return statement
        if self.traits.lockable is None:
            raise MisuseError(f"{self.traits.name} is mapped on a union, whose rows can't be locked.")
        locked: Select[Any] = for_update(self.traits, statement, **self.lock._asdict())
        return locked

    def _count(self, where: list[Any], *, bounded: bool) -> Select[Any]:
        star = func.count(literal_column("*"))
        if not bounded:
            return select(star).select_from(self.traits.model).where(*where).correlate(None)
        ones: Select[Any] = select(literal_column("1")).select_from(self.traits.model).where(*where).correlate(None)
        return select(star).select_from(ones.limit(bindparam("dotmac_bound")).subquery())

    def count(self, filters: Sequence[Filter], bound: int = 0) -> Bound:
        """The number of matching rows; with a positive ``bound`` the count stops at ``bound`` + 1."""
        found = self.analysed(filters)
        bounded = bound > 0
        statement = self.cached(
            ("count", found.shape, bounded), lambda: self._count(self.where(found), bounded=bounded)
        )
        parameters = {**self.scope.parameters, **found.parameters}
        return self.confined(Bound(statement, {**parameters, "dotmac_bound": bound + 1} if bounded else parameters))

    def planned(self, filters: Sequence[Filter]) -> Bound:
        """The EXPLAIN that gives the planner's estimate of the number of rows."""
        found = self.analysed(filters)
        keys = [self.traits.attribute(key) for key in self.traits.primary_key]
        statement = self.cached(("planned", found.shape), lambda: Explain(select(*keys).where(*self.where(found))))
        return Bound(statement, {**self.scope.parameters, **found.parameters})

    def ranges(self, order: Order, seek: Seek | None) -> tuple[Seek | None, ...]:
        """What follows a position, as one range of an index each, in order: the values', then that of NULLs after them.

        No database reads both as one: ``x > 3 OR x IS NULL`` is read from the beginning of the index.
        """
        if seek is None:
            return (None,)
        terms = tuple(each.term for each in self.terms(order))
        if not nulls_follow(reversed_terms(terms) if seek.backwards else terms, seek.values):
            return (seek,)
        return replace(seek, part="values"), replace(seek, part="nulls")

    def page(self, filters: Sequence[Filter], order: Order, limit: int, seek: Seek | None) -> Bound:
        """``limit`` rows after (or before) a position. Values that no attribute has follow the entity in the row."""
        found = self.analysed(filters)
        terms = self.terms(order)
        parameters = {**self.scope.parameters, **found.parameters, "dotmac_limit": limit}
        if seek is not None and seek.part != "nulls":
            parameters |= {f"k{index}": value for index, value in enumerate(seek.values) if value is not None}
        parameters |= self._search_parameters(filters, order)
        shape = ("page", found.shape, order, None if seek is None else seek.shape)
        return Bound(self.cached(shape, lambda: self._page(found, terms, seek)), parameters)

    def _page(self, found: Analysis, ordered: tuple[OrderedTerm, ...], seek: Seek | None) -> Select[Any]:
        terms = tuple(each.term for each in ordered)
        beside = [each.selected for each in ordered if not self.holds(each)]
        statement: Any = select(self.selected, *beside).where(*self.where(found))  # checkers count the columns
        if seek is not None:
            if seek.backwards:
                terms = reversed_terms(terms)
            statement = statement.where(self._place(ordered, terms, seek))
        return self._locked(statement.order_by(*order_by(terms)).limit(bindparam("dotmac_limit")))

    def _place(self, ordered: Sequence[OrderedTerm], terms: Sequence[Term], seek: Seek) -> ColumnElement[bool]:
        """The condition that a row is in the requested part of an order."""
        if seek.part == "nulls":
            return terms[0].expression.is_(None)
        if seek.part == "values":
            terms = (replace(terms[0], nullable=False), *terms[1:])
        positions: list[Any] = [
            None if value is None else each.parameter(f"k{index}", stored=seek.stored)
            for index, (each, value) in enumerate(zip(ordered, seek.values, strict=True))
        ]
        return after(terms, positions, inclusive=seek.mode in ("from", "until"))

    def key(self, entity_id: Any) -> tuple[Any, ...]:
        """A primary key as a tuple of converted values. Raises `ValidationError` for a wrong length or type."""
        keys = self.traits.primary_key
        parts = tuple(entity_id) if isinstance(entity_id, (tuple, list)) else (entity_id,)
        if len(parts) != len(keys):
            raise ValidationError(
                f"The primary key of {self.traits.name} has {len(keys)} parts ({', '.join(keys)}), not {len(parts)}."
            )
        return tuple(self._key_part(key, part) for key, part in zip(keys, parts, strict=True))

    def _key_part(self, key: str, value: Any) -> Any:
        try:
            if value is None:
                raise ValueError("a value")
            return self.cached(("coerce", key), lambda: coercer(self.traits.columns[key].type))(value)
        except ValidationError:
            raise
        except ValueError as expected:
            raise ValidationError(
                f"{self.traits.name}.{key}: {short_repr(value)} is not {expected}.", field=key
            ) from None

    def key_conditions(self) -> list[Any]:
        """The conditions that the primary key is the one in the parameters `key_parameters`."""
        return [self._key_condition(key, self.traits.columns[key].type) for key in self.traits.primary_key]

    def _key_condition(self, key: str, type_: Any) -> ColumnElement[bool]:
        column: Any = self.traits.attribute(key)
        span = self.dialect.span(type_)
        if span is None:
            equal: ColumnElement[bool] = column == bindparam(f"dotmac_{key}", type_=type_)
            return equal
        return compare_span(column, FilterOperator.EQ, span, self.dialect, iter((f"dotmac_{key}", f"dotmac_{key}_")))

    def key_parameters(self, key: tuple[Any, ...]) -> dict[str, Any]:
        """The parameters for a primary key."""
        parameters = {f"dotmac_{name}": value for name, value in zip(self.traits.primary_key, key, strict=True)}
        for name in self._spanned_keys:
            parameters[f"dotmac_{name}_"] = parameters[f"dotmac_{name}"]
        return parameters

    @property
    def _spanned_keys(self) -> tuple[str, ...]:
        """The parts of the primary key that are compared with spans, whose values are in two parameters."""
        return self.cached(
            ("spanned",),
            lambda: tuple(
                key
                for key in self.traits.primary_key
                for span in (self.dialect.span(self.traits.columns[key].type),)
                if span is not None and not span.single
            ),
        )

    def typed_defaults(self) -> dict[str, Any]:
        """Plain defaults that are not what their column gives back (``default=0`` of a Numeric), as the column's."""
        return self.cached(("defaults",), self._typed_defaults)

    def _typed_defaults(self) -> dict[str, Any]:
        defaults: dict[str, Any] = {}
        for key, column in self.traits.columns.items():
            if column.default is None or not column.default.is_scalar:
                continue
            given: Any = column.default
            try:
                value = coercer(column.type, storing=True)(given.arg)
            except ValueError:
                continue  # the database is to say what it thinks of it
            if type(value) is not type(given.arg) or str(value) != str(given.arg):
                defaults[key] = value
        return defaults

    def by_key(self, key: tuple[Any, ...]) -> Bound:
        """The SELECT of the row with a primary key."""
        return Bound(
            self.cached(
                ("key",),
                lambda: self._locked(
                    select(self.traits.model).where(*self.key_conditions(), *self.scope.root(self.traits))
                ),
            ),
            {**self.scope.parameters, **self.key_parameters(key)},
        )

    def has_key(self, key: tuple[Any, ...]) -> Bound:
        """The SELECT whether there is a row with a primary key."""
        return Bound(
            self.cached(
                ("has",),
                lambda: (
                    select(literal_column("1"))
                    .select_from(self.traits.model)
                    .where(*self.key_conditions(), *self.scope.root(self.traits))
                ),
            ),
            {**self.scope.parameters, **self.key_parameters(key)},
        )

    def by_keys(self, keys: Sequence[tuple[Any, ...]]) -> Bound:
        """The SELECT of the rows with some primary keys, in any order."""
        columns: list[Any] = [self.traits.attribute(name) for name in self.traits.primary_key]
        statement = self.cached(
            ("keys",),
            lambda: self._locked(
                select(self.traits.model).where(
                    self.dialect.row_among(columns, "dotmac_keys"), *self.scope.root(self.traits)
                )
            ),
        )
        keys_given = self.dialect.row_parameters(columns, "dotmac_keys", keys)
        return Bound(statement, {**self.scope.parameters, **keys_given})

    def loading(self, bound: Bound, names: Sequence[str]) -> Bound:
        """The same read with relationships loaded within the scope, each by one more statement for 10,000 rows.

        Dotted names name nested relationships. Relationships that a class loads by default are loaded in the same way,
        since its own strategy would leave the scope. If a path returns to a class that it came from, objects in the
        session are not refreshed: a second read of an object would undo what the first has loaded into it.
        """
        if self.fields:
            return self.confined(bound)
        if not (names or self.undeferred or self.traits.loads_eagerly):
            return self.confined(bound)
        tree: dict[str, Any] = {}
        for name in names:
            branch = tree
            for part in name.split("."):
                branch = branch.setdefault(part, {})
        options = self._loads(self.traits, tree, ())
        again = _leads_back(self.traits, tree, ())
        loaded = Bound(bound.statement.options(*options), bound.parameters, _AS_HELD if again else {})
        return self.confined(loaded, loads=True)

    def confined(self, bound: Bound, *, loads: bool = False) -> Bound:
        """The same statement, with the tenant's condition within expressions of classes that ask other rows.

        ``loads`` says that it loads relationships, whose classes may have such expressions.
        """
        if self.scope.tenant in (None, ALL_TENANTS) or not self.traits.leads_to_other_rows:
            return bound
        if not (loads or self.traits.loads_other_rows or any(map(holds_select, bound.statement.get_children()))):
            return bound  # no such expression is in it
        return Bound(bound.statement.options(Confinement(self.scope.tenant)), bound.parameters, bound.execution_options)

    def whole(self, statement: Any) -> Any:
        """The statement, whose objects have their deferred columns, too: all that a write gives back can be read."""
        return statement.options(undefer("*")) if self.traits.deferred else statement

    def _loads(self, owner: Traits[Any], tree: dict[str, Any], way: tuple[str, ...]) -> list[Any]:
        """The loader options of a tree of names, which learns here what is loaded anyway."""
        for part in tree:
            relationship_of(owner, part, ".".join((*way, part)))
        here = (key for key in owner.deferred if ".".join((*way, key)) in self.undeferred)
        options: list[Any] = [undefer(owner.attribute(key)) for key in here]
        for part, relationship in owner.relationships.items():
            eager = relationship.lazy in EAGER
            if part not in tree and not eager:
                continue
            if part not in tree and (relationship.mapper.base_mapper is owner.mapper.base_mapper or len(way) >= _DEPTH):
                options.append(lazyload(relationship.class_attribute))
                continue
            branch = tree.setdefault(part, {})
            target = traits_of(relationship.mapper.class_)
            attribute = relationship.class_attribute.and_(*self.scope.of(target, bound=True))
            width = max(len(owner.primary_key), len(target.primary_key))
            loaded = selectinload(attribute, chunksize=PARENTS // width)
            options.append(loaded.options(*self._loads(target, branch, (*way, part))))
        return options


def _value(entity: Any, held: Mapping[str, Any], key: str) -> Any:
    return held[key] if key in held else getattr(entity, key)


def _leads_back(owner: Traits[Any], tree: dict[str, Any], seen: tuple[Any, ...]) -> bool:
    """Whether a tree of relationships comes to a class that it came from."""
    here = owner.mapper.base_mapper
    return here in seen or any(
        _leads_back(traits_of(owner.relationships[part].mapper.class_), branch, (*seen, here))
        for part, branch in tree.items()
    )
