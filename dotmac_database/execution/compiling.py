"""Compiles a statement for the driver, once for each engine, if the driver can send it without SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar
from weakref import ReferenceType, WeakKeyDictionary, ref

from sqlalchemy import (
    ColumnClause,
    ColumnElement,
    Dialect,
    Executable,
    Insert,
    Select,
    SelectBase,
    Table,
    TextClause,
    Update,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapper
from sqlalchemy.sql import ClauseElement, visitors
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from ..dialects.drivers import Arguments, Driver, driver_of
from ..models.expressions import hybrid_sql
from ..models.traits import Traits, is_of_cached_shape
from ..sqlalchemy_internals import (
    annotations_of,
    hidden_columns,
    result_columns,
    without_annotations,
)

M = TypeVar("M")
Process: TypeAlias = Callable[[object], object]
Processors: TypeAlias = tuple[tuple[int, Process], ...]
"""The conversions of a row's values, each with the position of its value."""


@dataclass(slots=True, eq=False)
class DriverStatement:
    """A compiled statement for the driver.

    ``parameters`` are the name, the constant value and the conversion of each parameter, in the driver's order.
    ``keys`` are the attributes of the object, or the keys of the dict, that each row begins with, in the row's order.
    """

    driver: Driver
    statement: ReferenceType[Executable]
    sql: str
    parameters: Sequence[tuple[str, object, Process | None]]
    types: list[TypeEngine[object]]
    keys: tuple[str, ...]
    setting: dict[tuple[str, ...], tuple[Insert | Update, DriverStatement] | None] = field(default_factory=dict)
    """What `announcing.with_settings` makes of it, for each tuple of names. None: the driver can't send it."""

    def arguments(self, values: Mapping[str, object]) -> Arguments:
        """The parameters as the driver takes them."""
        converted = [
            value if process is None else process(value)
            for name, constant, process in self.parameters
            for value in (values.get(name, constant),)
        ]
        if not self.driver.named:
            return converted
        return dict(zip([name for name, _, _ in self.parameters], converted, strict=True))

    def processors(self, dialect: Dialect, oids: Sequence[int | None]) -> Processors:
        """The conversions of a row's values. They depend on the types that the server reports."""
        processors = (
            (place, type_.dialect_impl(dialect).result_processor(dialect, oid))
            for place, (type_, oid) in enumerate(zip(self.types, oids, strict=True))
        )
        return tuple((place, process) for place, process in processors if process is not None)

    def compiled(self, dialect: Dialect) -> tuple[Executable, SQLCompiler]:
        """The statement, and SQLAlchemy's compiled form of it, which the listeners to statements need."""
        cached: dict[DriverStatement, SQLCompiler] | None = vars(dialect).get(_COMPILED)
        if cached is None:
            cached = {}
            setattr(dialect, _COMPILED, cached)
        statement = self.statement()
        assert statement is not None, "the caller has it"
        compiled = cached.get(self)
        if compiled is None:
            if len(cached) >= _MAX_COMPILED:
                cached.clear()
            new = statement.compile(dialect=dialect)  # type: ignore[attr-defined]  # a Select, an Insert or an Update
            compiled = cached[self] = new
        return statement, compiled


_COMPILED = "dotmac_compiled_statements"
"""The attribute of a dialect that caches SQLAlchemy's compiled statements.

They are not in `DriverStatement`: each refers to its statement, which would then stay in `_DRIVER_STATEMENTS` forever.
"""

_MAX_COMPILED = 256
"""The maximum number of compiled statements of a dialect; a full cache is cleared."""

_DRIVER_STATEMENTS = "dotmac_driver_statements"
"""The attribute of a dialect that caches its `DriverStatement`s, so that the cache is freed with the engine.

None stands for a statement that the driver can't send.
"""


def driver_statement(
    statement: object, dialect: Dialect, traits: Traits[M], fields: Sequence[str] | None
) -> DriverStatement | None:
    """The statement for the driver; None: the driver can't send it. For ``fields`` see `driver.fetch`."""
    cache: WeakKeyDictionary[object, tuple[DriverStatement | None]] | None = vars(dialect).get(_DRIVER_STATEMENTS)
    if cache is None:
        cache = WeakKeyDictionary()
        setattr(dialect, _DRIVER_STATEMENTS, cache)
    cached = cache.get(statement)
    if cached is None:
        cached = cache[statement] = (_compiled(statement, dialect, traits, fields),)
    return cached[0]


def _compiled(
    statement: object, dialect: Dialect, traits: Traits[M], fields: Sequence[str] | None
) -> DriverStatement | None:
    if (
        not isinstance(statement, (Select, Insert, Update))
        or (hidden := hidden_columns(statement)) is None
        or _holds_users_sql(statement, traits.tables[0])
    ):
        return None
    return compile_own(statement, dialect, traits, fields, hidden)


def compile_own(
    statement: Select[Any] | Insert | Update,
    dialect: Dialect,
    traits: Traits[M],
    fields: Sequence[str] | None,
    hidden: frozenset[str] = frozenset(),
) -> DriverStatement | None:
    """As `_compiled`, for a statement that contains no SQL of the user's, and reads no ``hidden`` columns."""
    driver = driver_of(dialect)
    if driver is None:
        return None
    compiled = statement.compile(dialect=dialect)
    if not isinstance(compiled, SQLCompiler) or compiled.post_compile_params or compiled.literal_execute_params:
        return None
    if compiled.escaped_bind_names and driver.named:
        return None  # a parameter has another name in the SQL
    if compiled.prefetch:
        return None  # Python must compute a value, such as a default, at each execution
    columns = result_columns(compiled)
    keys: tuple[str, ...] = ()
    if fields is not None:
        expected = frozenset(fields) or traits.columns.keys() - hidden
        keys = tuple(_key(traits, entry.objects[0]) for entry in columns[: len(expected)])
        if set(keys) != expected:
            return None
    parameters = [
        (name, bind.effective_value, bind.type.dialect_impl(dialect).bind_processor(dialect))
        for name in (compiled.bind_names.values() if driver.named else compiled.positiontup or ())
        for bind in (compiled.binds[name],)
    ]
    return DriverStatement(driver, ref(statement), str(compiled), parameters, [entry.type for entry in columns], keys)


def _holds_users_sql(statement: Select[Any] | Insert | Update, table: Table) -> bool:
    """Whether a statement may contain SQL that the user wrote, with tables that a guarded session may have to confine.

    Such a statement must be sent by the session. In the toolkit's statements, the user's SQL comes only from hybrids
    and from the conditions of relationships, and it has such tables only if it contains a SELECT or a text.
    """
    if not is_of_cached_shape(statement):
        return True
    if isinstance(statement, Select) and [*map(without_annotations, statement.get_final_froms())] != [table]:
        return True
    elements = list(visitors.iterate(statement))
    if not any(_is_opaque(element) for element in elements if element is not statement):
        return False
    owners = (annotations_of(element).get("parententity") for element in elements)
    return any(map(_brings_sql, {owner.mapper for owner in owners if owner is not None}))


def _is_opaque(element: object) -> bool:
    """Whether an element of a statement is a SELECT or a text. The statement's own FROM does not show their tables."""
    literal = isinstance(element, ColumnClause) and element.is_literal and element.name not in ("*", "1")
    return literal or isinstance(element, (SelectBase, TextClause))


def _brings_sql(mapper: Mapper[M]) -> bool:
    """Whether a class's hybrids, or the conditions of its relationships, contain a SELECT or a text."""
    expressions: list[object] = []
    for relationship in mapper.relationships:
        expressions += [relationship.primaryjoin, relationship.secondaryjoin]
    for name, descriptor in mapper.all_orm_descriptors.items():
        if isinstance(descriptor, hybrid_property):
            if descriptor.custom_comparator is not None:
                return True
            expressions.append(hybrid_sql(mapper.class_, name))
    return any(
        _is_opaque(element)
        for expression in expressions
        if isinstance(expression, ClauseElement)
        for element in visitors.iterate(expression)
    )


def _key(traits: Traits[M], column: ColumnElement[object]) -> str:
    mapped = column in traits.mapper.columns.values()
    return traits.mapper.get_property_by_column(column).key if mapped else ""
