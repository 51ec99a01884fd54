"""Checks of the reads that the application's routes offer."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import groupby
from uuid import UUID

from sqlalchemy import Table
from sqlalchemy.orm import Mapper
from sqlalchemy.types import TypeEngine

from ...advisor import Advisor, IndexAdvice
from ...declared_reads import DeclaredRead
from ...dialects import dialect_named
from ...dialects.base import enum_of
from ...dialects.catalogue import ExistingIndex, IndexesOfAll, existing
from ...errors import ValidationError
from ...field_names import names_for
from ...models.traits import Traits, traits_of
from ...query import QueryFilter, SortField, sorts_of
from ...statements.ordering import order_of
from ...statements.paths import resolve
from ...statements.reads import Reader
from ...statements.scope import Scope
from ..examination import Examination
from ..findings import Severity
from ..registry import BOTH, Symptom, Unchecked, check

_NOW = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_SAMPLES: dict[type, object] = {
    str: "a",
    int: 1,
    float: 1.0,
    bool: True,
    Decimal: Decimal(1),
    UUID: UUID(int=1),
    dt.datetime: _NOW,
    dt.date: _NOW.date(),
    dt.time: _NOW.time(),
    dt.timedelta: dt.timedelta(1),
    bytes: b"a",
}


@check(
    "missing-index",
    Severity.WARNING,
    on=BOTH,
    source="https://www.postgresql.org/docs/current/indexes-multicolumn.html",
)
def missing_index(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """A list of the routes whose default order has no index. Small tables, and other sorts and filters: notes."""
    reads = examination.reads
    if not reads:
        yield Unchecked(
            "no route declares what it reads; pass --routes module:app, or in Python reads=declared_reads(app)."
        )
        return
    catalogue = _Catalogue(examination, _tables_of(examination, reads))
    seen: set[str] = set()
    for read in reads:
        for each in _Advised(examination, read, catalogue).outcomes():
            if isinstance(each, Unchecked):
                yield each
            elif each.object not in seen:
                seen.add(each.object)
                yield each


def _tables_of(examination: Examination, reads: Sequence[DeclaredRead]) -> list[Table]:
    """The tables of the reads' models, and those that a relationship leads to directly."""
    tables: dict[Table, None] = {}
    for read in reads:
        mapper: Mapper[object] = traits_of(read.model).mapper
        mappers = [mapper, *(each.mapper for each in mapper.relationships)]
        secondary = (each.secondary for each in mapper.relationships)
        every = [table for each in mappers for table in each.tables] + [each for each in secondary if each is not None]
        tables.update((each, None) for each in every if isinstance(each, Table) and examination.of(each) is not None)
    return list(tables)


class _Catalogue:
    """The indexes of the tables, read by one statement. Tables that the database does not have are unknown."""

    def __init__(self, examination: Examination, tables: Sequence[Table]) -> None:
        self.indexes: dict[Table, list[ExistingIndex]] = {table: [] for table in tables}
        if tables:
            rows = examination.connection.execute(IndexesOfAll(tables)).mappings().all()
            for number, group in groupby(rows, key=lambda row: row["table_number"]):
                self.indexes[tables[number]] = existing(examination.dialect, tables[number], list(group))
            for table in tables:
                self.indexes[table] = self.indexes[table] or existing(examination.dialect, table, [])

    def __call__(self, table: Table) -> list[ExistingIndex]:
        """A copy of the indexes of a table, since the advisor adds its advice to it."""
        return list(self.indexes.get(table, ()))


class _Advised:
    """The missing indexes of one read."""

    def __init__(self, examination: Examination, read: DeclaredRead, catalogue: _Catalogue) -> None:
        self.examination = examination
        self.read = read
        self.catalogue = catalogue
        self.traits: Traits[object] = traits_of(read.model)
        key = self.traits.tenant
        tenant = None if key is None else _sample(self.traits.columns[key].type)
        self.reader = Reader(self.traits, Scope(tenant), dialect_named(examination.dialect))

    def outcomes(self) -> Iterator[Symptom | Unchecked]:
        """The advice for the default order first, since each page without parameters is read in it."""
        name = self.traits.name
        default = sorts_of(self.read.default_sort)
        yield from self._advice((), default, f"The list of {name} in its default order", None)
        for field in self.read.sorts:
            yield from self._advice((), [SortField(field)], f"The list of {name} sorted by {field}", Severity.NOTE)
        for field in names_for(self.read.model, self.read.filters):
            try:
                path = resolve(self.traits, field)
                value = None if path.key is None else _sample(path.type)
            except ValidationError as error:
                yield Unchecked(f"{name}.{field}: {error}")
                continue
            if value is None:  # a JSON document, an array, or a type of the application's own
                yield Unchecked(f"{name}.{field}: its type has no value to try a filter with.")
                continue
            filters = [QueryFilter(field, value=value)]
            yield from self._advice(filters, default, f"The list of {name} filtered by {field}", Severity.NOTE)

    def _advice(
        self, filters: Sequence[QueryFilter], sorts: Sequence[SortField], what: str, severity: Severity | None
    ) -> Iterator[Symptom | Unchecked]:
        try:
            order = order_of(self.traits, sorts)
            advised = Advisor(self.reader, self.catalogue).advice(filters, order, limited=True)
        except ValidationError as error:
            yield Unchecked(f"{what}: {error}")
            return
        for each in advised:
            yield self._symptom(each, what, severity)

    def _symptom(self, advice: IndexAdvice, what: str, severity: Severity | None) -> Symptom:
        table = advice.index.table
        facts = None if table is None else self.examination.facts.get(self._key(table))
        size = "" if facts is None else f" ({self.examination.size(facts)})"
        if facts is not None:
            severity = self.examination.severity(facts) or severity  # the planner reads a small table as a whole
        label = advice.table if facts is None else facts.label
        extension = [] if advice.extension is None else [f"CREATE EXTENSION IF NOT EXISTS {advice.extension}"]
        return Symptom(
            f"{label}.{', '.join(advice.columns)}",
            f"{what} reads and sorts more rows than it shows{size}: {advice.reason}.",
            [*extension, advice.concurrently_ddl or advice.ddl],
            severity=severity,
        )

    def _key(self, table: Table) -> tuple[str, str]:
        return table.schema or self.examination.default_schema, table.name


def _sample(type_: TypeEngine[object]) -> object:
    """A value of a column's type; None: there is none for the type."""
    members = enum_of(type_)
    if members is not None:
        return next(iter(members.enum_class)) if members.enum_class is not None else members.enums[0]
    try:
        python = type_.python_type
    except NotImplementedError:
        return None
    if issubclass(python, enum.Enum):
        return next(iter(python))
    return _SAMPLES.get(python)
