"""Builds SELECTs from options. A statement is built once for each shape, and cached in the traits of its class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeVar

from sqlalchemy import Select, bindparam, func, literal_column, select
from sqlalchemy.orm import Bundle, defer, lazyload, selectinload, undefer
from sqlalchemy.orm.base import instance_dict
from sqlalchemy.sql import ColumnElement

from ..dialects.base import Dialect
from ..dialects.explain import Explain
from ..errors import MisuseError, ValidationError
from ..models.expressions import holds_select
from ..models.traits import EAGER, Traits, traits_of
from ..query import Filter, FilterOperator
from ..sqlalchemy_internals import hidden_columns, hide_columns
from ..tenancy.context import ALL_TENANTS
from ..tenancy.criteria import TenantCriteria
from .bounds import MAX_CACHED_FILTERS
from .coercion import coercer, short_repr
from .counts import Counted
from .filters import Analysis, analyse, build, search_terms
from .keyset import Term, after, nulls_follow, order_by, reversed_terms
from .ordering import Order, OrderedTerm, search_parameter, terms_of
from .paths import relationship_of, resolve
from .scope import Scope
from .spans import compare_span

S = TypeVar("S")
Q = TypeVar("Q", bound=Select[Any])

_DEPTH = 3
"""The depth to which the relationships that classes load by default are followed. Deeper ones are loaded on access."""

PARENTS = 10_000
"""For how many rows one statement loads a relationship; with a composite key, this number is divided by its columns.
SQLAlchemy's default is 500."""

_NOT_REFRESHED: Mapping[str, object] = {"populate_existing": False}


@dataclass(frozen=True, slots=True)
class Bound:
    """A statement with the parameters of one call, and its additional execution options."""

    statement: Any
    parameters: dict[str, Any] = field(default_factory=dict)
    execution_options: Mapping[str, object] = field(default_factory=dict)


class AsDict(Bundle[Any]):
    """A bundle of columns that makes a dict of each row."""

    inherit_cache = True

    def create_row_processor(
        self,
        query: object,  # noqa: ARG002 - the name is SQLAlchemy's
        procs: Sequence[Callable[[Any], object]],
        labels: Sequence[str],
    ) -> Callable[[object], object]:
        """SQLAlchemy's hook: the function that makes the dict of a row."""
        keys = tuple(labels)
        return lambda row: dict(zip(keys, [proc(row) for proc in procs], strict=True))


class Lock(NamedTuple):
    """How a read locks its rows by ``FOR UPDATE``. By default it waits for rows that another transaction has locked.

    ``nowait``: the read fails instead. ``skip_locked``: it leaves these rows out.
    """

    nowait: bool = False
    skip_locked: bool = False


def for_update(traits: Traits[Any], statement: Q, **options: Any) -> Q:
    """The SELECT with FOR UPDATE of the class's rows. Unchanged for a class on a union, whose rows can't be locked."""
    return statement if traits.lockable is None else statement.with_for_update(of=traits.lockable, **options)


SeekPart = Literal["all", "values", "nulls"]
"""The part of the rows after a position: all rows, only those with a value in the leading field of the order, or only
those with NULL in it. See `Reader.ranges`."""


@dataclass(frozen=True, slots=True)
class Seek:
    """The start of a keyset page: the mode of its cursor, and the values of the position.

    ``stored``: the values have the form in which the database stores them, otherwise the form in which they are read.
    """

    mode: str
    values: tuple[Any, ...]
    part: SeekPart = "all"
    stored: bool = True

    @property
    def backwards(self) -> bool:
        """Whether the rows are read in reverse order."""
        return self.mode in ("before", "until")

    @property
    def shape(self) -> tuple[object, ...]:
        """The part of the seek that determines the statement's text."""
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
    """Dotted paths of the deferred columns that are loaded with their rows."""
    counts: tuple[Counted, ...] = ()
    """The counts of related rows. Their names are also in ``fields``."""

    @property
    def selected(self) -> Any:
        """The first element of each row: an entity or, with ``fields``, a dict of these fields."""
        if not self.fields:
            return self.traits.model
        return AsDict(self.traits.name, *map(self._field, self.fields))

    def select(self, *additional: Any) -> Select[Any]:
        """The SELECT of entities, or of dicts with ``fields``, followed by additional values. It has no condition."""
        statement: Any = select(self.selected, *additional)
        return statement if self.fields else self.hiding(statement)  # type: ignore[no-any-return]  # as `selected`

    def entities(self, *conditions: ColumnElement[bool]) -> Select[Any]:
        """The SELECT of the entities in the scope that meet the conditions."""
        statement = select(self.traits.model).where(*conditions, *self.scope.root(self.traits))
        without: Select[Any] = self.hiding(statement)
        return without

    def hiding(self, statement: Any) -> Any:
        """The statement of entities without the columns that the actor can't see."""
        hidden = self.hidden_of(self.traits)
        if not hidden or hidden_columns(statement) == hidden:
            return statement
        return hide_columns(statement, {key: self.traits.attribute(key) for key in sorted(hidden)})

    def _field(self, name: str) -> Any:
        """The expression of a field in the dict."""
        for each in self.counts:
            if each.name == name:
                return each.expression(self.traits, self.scope, self.dialect).label(name)
        if name in self.traits.columns:
            return self.traits.attribute(name)
        return resolve(self.traits, name).on(self.traits.model).label(name)

    def holds(self, term: OrderedTerm) -> bool:
        """Whether the entity or dict of a row contains the term's value.

        If not, the statement selects the value as an additional column.
        """
        return term.by == "count" or (term.on_row and (not self.fields or term.path.key in self.fields))

    def position(self, row: Any, terms: Sequence[OrderedTerm]) -> tuple[object, ...]:
        """The position of a row in the order: the value of each term."""
        entity, *selected = row
        loaded = entity if self.fields else instance_dict(entity)
        additional = iter(selected)
        return tuple(
            term.portable(_value(entity, loaded, term.path.key or ""))
            if self.holds(term)
            else term.exact(next(additional))
            for term in terms
        )

    def cached(self, shape: tuple[object, ...], make: Callable[[], S], *, has_filters: bool = True) -> S:
        """The cached result of ``make()`` for this shape.

        Statements with a repository's own conditions, an actor's rules, or the tenant's value are not cached. Those
        with many filters are not cached either, because clients could request any number of different ones, and each
        takes 0.2 MB. Without filters (``has_filters``), a second part of the shape that is a tuple has the names of
        columns, which may be many.
        """
        too_long = has_filters and len(shape) > 1 and type(shape[1]) is tuple and len(shape[1]) > MAX_CACHED_FILTERS
        fields: tuple[object, ...] = self.fields
        if self.counts:
            fields += tuple(each.shape for each in self.counts)
            too_long = too_long or any(len(each.analysis.shape) > MAX_CACHED_FILTERS for each in self.counts)
        if self.scope.conditions or self.scope.inline or too_long:
            return make()
        key = (self.dialect.name, self.scope.shape, self.lock, fields, *shape)
        if self.scope.rules is not None:
            ruled = self.scope.rules.shape(self.traits, self.scope.right)
            if ruled is None:
                return make()
            key = (*key, ruled, self.scope.right)
        return self.traits.cached(key, make)

    def analysed(self, filters: Sequence[Filter]) -> Analysis:
        """The analysis of the filters. Raises `ValidationError` for a field that the actor can't see."""
        return analyse(self.traits, filters, self.dialect, self.scope.rules)

    def terms(self, order: Order) -> tuple[OrderedTerm, ...]:
        """The SQL of the order."""
        return self.cached(
            ("terms", order), lambda: terms_of(self.traits, order, self.scope, self.dialect, self.counts)
        )

    def where(self, analysis: Analysis) -> list[Any]:
        """The conditions of the scope and of the filters."""
        return [*self.scope.root(self.traits), *build(self.traits, analysis.shape, self.scope, self.dialect)]

    def rows(
        self, filters: Sequence[Filter], order: Order, *, limit: int | None = None, offset: int = 0, bound: int = -1
    ) -> Bound:
        """The SELECT of the rows in order.

        ``bound`` says whether the same statement also counts all matching rows, as an additional column of each row.
        Negative: it does not count. 0: it counts all rows. Positive: the count stops at ``bound`` + 1.
        """
        analysis = self.analysed(filters)
        shape = ("rows", analysis.shape, order, limit is not None, bool(offset), (bound > 0) - (bound < 0))
        parameters = {**self.scope.parameters, **analysis.parameters}
        if limit is not None:
            parameters["dotmac_limit"] = limit
        if offset:
            parameters["dotmac_offset"] = offset
        if bound > 0:
            parameters["dotmac_bound"] = bound + 1
        parameters |= self.search_parameters(filters, order)
        for each in self.counts:
            parameters |= each.parameters
        return Bound(self.cached(shape, lambda: self._rows(analysis, order, shape)), parameters)

    def search_parameters(self, filters: Sequence[Filter], order: Order) -> dict[str, str]:
        """The search words of the sorts by relevance, by the names of their parameters."""
        parameters: dict[str, str] = {}
        for place, each in enumerate(order):
            if each.by == "relevance":
                words = search_terms(filters, each.field)
                if words is None:
                    raise MisuseError(
                        f"{self.traits.name}.{each.field}: relevance needs a search filter on the field.",
                        field=each.field,
                    )
                parameters[search_parameter(place)] = self.dialect.search_text(words)
        return parameters

    def _rows(self, analysis: Analysis, order: Order, shape: tuple[Any, ...]) -> Select[object]:
        _, _, _, has_limit, has_offset, count = shape
        where = self.where(analysis)
        statement: Any = self.select()
        if count >= 0:
            statement = statement.add_columns(self._count(where, bounded=count > 0).scalar_subquery())
        statement = statement.where(*where).order_by(*order_by([each.term for each in self.terms(order)]))
        if has_limit:
            statement = statement.limit(bindparam("dotmac_limit"))
        return self._locked(statement.offset(bindparam("dotmac_offset")) if has_offset else statement)

    def _locked(self, statement: Select[object]) -> Select[object]:
        if self.lock is None:
            return statement
        if self.traits.lockable is None:
            raise MisuseError(f"{self.traits.name} is mapped on a union, whose rows can't be locked.")
        return for_update(self.traits, statement, **self.lock._asdict())

    def _count(self, where: list[Any], *, bounded: bool) -> Select[int]:
        star = func.count(literal_column("*"))
        if not bounded:
            return select(star).select_from(self.traits.model).where(*where).correlate(None)
        ones: Select[object] = select(literal_column("1")).select_from(self.traits.model).where(*where).correlate(None)
        return select(star).select_from(ones.limit(bindparam("dotmac_bound")).subquery())

    def count(self, filters: Sequence[Filter], bound: int = 0) -> Bound:
        """The SELECT of the number of matching rows. With a positive ``bound`` the count stops at ``bound`` + 1."""
        analysis = self.analysed(filters)
        bounded = bound > 0
        statement = self.cached(
            ("count", analysis.shape, bounded), lambda: self._count(self.where(analysis), bounded=bounded)
        )
        parameters = {**self.scope.parameters, **analysis.parameters}
        return self.confined(Bound(statement, {**parameters, "dotmac_bound": bound + 1} if bounded else parameters))

    def planned(self, filters: Sequence[Filter]) -> Bound:
        """The EXPLAIN that shows the planner's estimate of the number of matching rows."""
        analysis = self.analysed(filters)
        keys = [self.traits.attribute(key) for key in self.traits.primary_key]
        statement = self.cached(
            ("planned", analysis.shape), lambda: Explain(select(*keys).where(*self.where(analysis)))
        )
        return Bound(statement, {**self.scope.parameters, **analysis.parameters})

    def ranges(self, order: Order, seek: Seek | None) -> tuple[Seek | None, ...]:
        """The rows after a position, split into parts that are each one range of an index, in order.

        If NULLs follow the position, there are two parts: the rows with a value in the leading field, and those with
        NULL. No database reads both as one range: for ``x > 3 OR x IS NULL`` it reads the index from its beginning.
        """
        if seek is None:
            return (None,)
        terms = tuple(each.term for each in self.terms(order))
        if not nulls_follow(reversed_terms(terms) if seek.backwards else terms, seek.values):
            return (seek,)
        return replace(seek, part="values"), replace(seek, part="nulls")

    def page(self, filters: Sequence[Filter], order: Order, limit: int, seek: Seek | None) -> Bound:
        """The SELECT of ``limit`` rows after (or before) a position. Values that `holds` excludes follow the entity."""
        analysis = self.analysed(filters)
        terms = self.terms(order)
        parameters = {**self.scope.parameters, **analysis.parameters, "dotmac_limit": limit}
        if seek is not None and seek.part != "nulls":
            parameters |= {f"k{index}": value for index, value in enumerate(seek.values) if value is not None}
        parameters |= self.search_parameters(filters, order)
        for each in self.counts:
            parameters |= each.parameters
        shape = ("page", analysis.shape, order, None if seek is None else seek.shape)
        return Bound(self.cached(shape, lambda: self._page(analysis, terms, seek)), parameters)

    def _page(self, analysis: Analysis, ordered: tuple[OrderedTerm, ...], seek: Seek | None) -> Select[object]:
        terms = tuple(each.term for each in ordered)
        additional = [each.selected for each in ordered if not self.holds(each)]
        # Any: for type checkers, select() has an overload for each number of columns.
        statement: Any = self.select(*additional).where(*self.where(analysis))
        if seek is not None:
            if seek.backwards:
                terms = reversed_terms(terms)
            statement = statement.where(self._seek_condition(ordered, terms, seek))
        return self._locked(statement.order_by(*order_by(terms)).limit(bindparam("dotmac_limit")))

    def _seek_condition(self, ordered: Sequence[OrderedTerm], terms: Sequence[Term], seek: Seek) -> ColumnElement[bool]:
        """The condition that a row is in the part of the order that the seek requests."""
        if seek.part == "nulls":
            return terms[0].expression.is_(None)
        if seek.part == "values":
            terms = (replace(terms[0], nullable=False), *terms[1:])
        positions: list[Any] = [
            None if value is None else each.parameter(f"k{index}", stored=seek.stored)
            for index, (each, value) in enumerate(zip(ordered, seek.values, strict=True))
        ]
        return after(terms, positions, inclusive=seek.mode in ("from", "until"))

    def key(self, entity_id: object) -> tuple[object, ...]:
        """A primary key as a tuple of coerced values. Raises `ValidationError` for a wrong length or type."""
        keys = self.traits.primary_key
        parts = tuple(entity_id) if isinstance(entity_id, (tuple, list)) else (entity_id,)
        if len(parts) != len(keys):
            raise ValidationError(
                f"The primary key of {self.traits.name} has {len(keys)} parts ({', '.join(keys)}), not {len(parts)}."
            )
        return tuple(self._key_part(key, part) for key, part in zip(keys, parts, strict=True))

    def _key_part(self, key: str, value: object) -> object:
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
        """The conditions that the primary key equals the parameters of `key_parameters`."""
        return [self._key_condition(key, self.traits.columns[key].type) for key in self.traits.primary_key]

    def _key_condition(self, key: str, type_: Any) -> ColumnElement[bool]:
        column: Any = self.traits.attribute(key)
        span = self.dialect.span(type_)
        if span is None:
            equal: ColumnElement[bool] = column == bindparam(f"dotmac_{key}", type_=type_)
            return equal
        return compare_span(column, FilterOperator.EQ, span, self.dialect, iter((f"dotmac_{key}", f"dotmac_{key}_")))

    def key_parameters(self, key: tuple[object, ...]) -> dict[str, object]:
        """The parameters of `key_conditions` for a primary key."""
        parameters = {f"dotmac_{name}": value for name, value in zip(self.traits.primary_key, key, strict=True)}
        for name in self._spanned_keys:
            parameters[f"dotmac_{name}_"] = parameters[f"dotmac_{name}"]
        return parameters

    @property
    def _spanned_keys(self) -> tuple[str, ...]:
        """The columns of the primary key that are compared with both ends of a span, and so have two parameters."""
        return self.cached(
            ("spanned",),
            lambda: tuple(
                key
                for key in self.traits.primary_key
                for span in (self.dialect.span(self.traits.columns[key].type),)
                if span is not None and not span.single
            ),
        )

    def typed_defaults(self) -> dict[str, object]:
        """The constant defaults that differ from what is read of their column, converted to the column's Python type.

        For example, the ``default=0`` of a Numeric column is read as a Decimal.
        """
        return self.cached(("defaults",), self._typed_defaults)

    def _typed_defaults(self) -> dict[str, object]:
        defaults: dict[str, object] = {}
        for key, column in self.traits.columns.items():
            if column.default is None or not column.default.is_scalar:
                continue
            default: Any = column.default
            try:
                value = coercer(column.type, storing=True)(default.arg)
            except ValueError:
                continue  # the database reports the error, when it gets the value
            if type(value) is not type(default.arg) or str(value) != str(default.arg):
                defaults[key] = value
        return defaults

    def by_key(self, key: tuple[object, ...]) -> Bound:
        """The SELECT of the row with a primary key."""
        return Bound(
            self.cached(
                ("key",),
                lambda: self._locked(self.entities(*self.key_conditions())),
            ),
            {**self.scope.parameters, **self.key_parameters(key)},
        )

    def locked_by_key(self, key: tuple[object, ...]) -> Bound:
        """The same SELECT, with FOR UPDATE."""
        bound = self.by_key(key)
        statement = self.cached(("locked key",), lambda: for_update(self.traits, self.whole(bound.statement)))
        return Bound(statement, bound.parameters)

    def by_values(self, values: Mapping[str, object]) -> Bound:
        """The SELECT of the rows with these values in some columns, none of which is None."""
        types = {key: self.traits.columns[key].type for key in values}
        conditions = [self._key_condition(key, type_) for key, type_ in types.items()]
        spans = {key: self.dialect.span(type_) for key, type_ in types.items()}
        parameters = {f"dotmac_{key}": value for key, value in values.items()}
        parameters |= {f"dotmac_{key}_": values[key] for key, span in spans.items() if span and not span.single}
        statement = self.cached(
            ("values", tuple(values)),
            lambda: self._locked(self.entities(*conditions)),
            has_filters=False,
        )
        return Bound(statement, {**parameters, **self.scope.parameters})

    def has_key(self, key: tuple[object, ...]) -> Bound:
        """The SELECT of 1 if there is a row with a primary key, else of no row."""
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

    def by_keys(self, keys: Sequence[tuple[object, ...]]) -> Bound:
        """The SELECT of the rows with some primary keys, in any order.

        Rows are locked in the order of their keys, so that two transactions that lock the same rows are no deadlock.
        """
        columns: list[Any] = [self.traits.attribute(name) for name in self.traits.primary_key]

        def make() -> Select[object]:
            statement = self.entities(self.dialect.row_among(columns, "dotmac_keys"))
            return statement if self.lock is None else self._locked(statement.order_by(*columns))

        statement = self.cached(("keys",), make)
        keys_given = self.dialect.row_parameters(columns, "dotmac_keys", keys)
        return Bound(statement, {**self.scope.parameters, **keys_given})

    def loading(self, bound: Bound, names: Sequence[str]) -> Bound:
        """The same read, which also loads relationships within the scope.

        Each relationship takes one additional statement for every 10,000 rows. Dotted names name nested relationships.
        Relationships that a class loads by default are loaded in the same way, because the class's own loading strategy
        would ignore the scope. If a path returns to a class that it has passed, objects that are in the session are not
        refreshed: a second read of an object would discard the relationships that the first read has loaded.
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
        returns = _returns_to_class(self.traits, tree, ())
        loaded = Bound(bound.statement.options(*options), bound.parameters, _NOT_REFRESHED if returns else {})
        return self.confined(loaded, loads=True)

    def confined(self, bound: Bound, *, loads: bool = False) -> Bound:
        """The same statement, with the tenant's condition inside expressions that select other rows.

        Column properties, hybrids and an actor's rules can be such expressions. Rules that are filters are confined
        like all filters. ``loads``: the statement loads relationships, whose classes can have such expressions.
        """
        scope = self.scope
        if scope.tenant in (None, ALL_TENANTS):
            return bound
        has_filters_only = scope.rules is None or (not loads and scope.rules.is_planned(scope.right))
        if has_filters_only and not self._holds_other_rows(bound, loads=loads):
            return bound
        return Bound(
            bound.statement.options(TenantCriteria(self.scope.tenant)), bound.parameters, bound.execution_options
        )

    def _holds_other_rows(self, bound: Bound, *, loads: bool) -> bool:
        """Whether a statement may contain column properties or hybrids that select other rows."""
        traits = self.traits
        return traits.leads_to_other_rows and (
            loads or traits.loads_other_rows or any(map(holds_select, bound.statement.get_children()))
        )

    def hidden_of(self, traits: Traits[Any]) -> frozenset[str]:
        """The attributes of a class that the actor can't see."""
        return frozenset() if self.scope.rules is None else self.scope.rules.hidden(traits)

    def whole(self, statement: Any) -> Any:
        """The statement of a write, which also returns deferred columns, so that all attributes can be read.

        Columns that the actor can't see are not returned.
        """
        if self.traits.deferred:
            statement = statement.options(undefer("*"))
        return self.hiding(statement)

    def default_loads(self) -> list[Any]:
        """The loader options for what the class loads by default: within the scope, and without hidden columns."""
        return self._loads(self.traits, {}, ())

    def _loads(self, owner: Traits[object], tree: dict[str, Any], way: tuple[str, ...]) -> list[Any]:
        """The loader options of a tree of relationships.

        The relationships that classes load by default are added to the tree. ``way`` is the path to the tree.
        """
        for part in tree:
            relationship_of(owner, part, ".".join((*way, part)), self.scope.rules)
        hidden = self.hidden_of(owner)
        here = (key for key in owner.deferred - hidden if ".".join((*way, key)) in self.undeferred)
        options: list[object] = [undefer(owner.attribute(key)) for key in here]
        options += (defer(owner.attribute(key)) for key in hidden)
        rules = self.scope.rules
        hidden_relationships = frozenset[str]() if rules is None else rules.hidden_relationships(owner)
        for part, relationship in owner.relationships.items():
            if part in hidden_relationships:
                options.append(lazyload(relationship.class_attribute))
                continue
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


def _value(entity: object, loaded: Mapping[str, object], key: str) -> object:
    return loaded[key] if key in loaded else getattr(entity, key)


def _returns_to_class(owner: Traits[object], tree: dict[str, Any], seen: tuple[object, ...]) -> bool:
    """Whether a path in a tree of relationships returns to a class that it has already passed."""
    here = owner.mapper.base_mapper
    return here in seen or any(
        _returns_to_class(traits_of(owner.relationships[part].mapper.class_), branch, (*seen, here))
        for part, branch in tree.items()
    )
