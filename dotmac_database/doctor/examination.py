"""What the checks of one examination share: the connection, the models, and the facts, which are read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from sqlalchemy import Connection, MetaData, Table

from ..declared_reads import DeclaredRead
from ..models.sorted_tables import sorted_tables
from ..row_policies import RowLevelSecurity
from .facts import Facts, TableFacts
from .findings import Severity
from .limits import MEBIBYTE, Limits
from .postgresql_facts import postgresql_facts
from .sqlite_facts import sqlite_facts

_READERS: Mapping[str, Callable[[Connection, Sequence[str], int], Facts]] = {
    "postgresql": postgresql_facts,
    "sqlite": sqlite_facts,
}


@dataclass(frozen=True, slots=True)
class Pools:
    """The connections that one process may open, and the number of processes."""

    connections: int
    processes: int


@dataclass
class Examination:
    """One examination. ``settings`` are the session's own, before the doctor sets some for its transaction.

    ``row_level_security`` is what the application applies; ``reads`` are the reads that its routes declare; ``pools``
    is what its processes may open. None: unknown.
    """

    connection: Connection
    metadata: Sequence[MetaData]
    limits: Limits = field(default_factory=Limits)
    row_level_security: RowLevelSecurity | None = None
    reads: Sequence[DeclaredRead] | None = None
    pools: Pools | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def dialect(self) -> str:
        """The name of the dialect."""
        return self.connection.dialect.name

    @cached_property
    def default_schema(self) -> str:
        """The schema of tables whose models name none."""
        return self.connection.dialect.default_schema_name or "public"

    @cached_property
    def models(self) -> list[Table]:
        """The tables of the models, parents first."""
        return [table for each in self.metadata for table in sorted_tables(each)]

    @cached_property
    def schemas(self) -> list[str]:
        """The schemas of the models."""
        return sorted({self.default_schema, *(each.schema for each in self.models if each.schema)})

    @cached_property
    def facts(self) -> Facts:
        """All tables in the schemas of the models. Four statements at the first use, and on SQLite a few more."""
        return _READERS[self.dialect](self.connection, self.schemas, self.limits.large_rows)

    @property
    def tables(self) -> list[TableFacts]:
        """The tables in the order of their names."""
        return list(self.facts.values())

    def of(self, table: Table) -> TableFacts | None:
        """The facts of a model's table; None: the database does not have it, which `schema-drift` reports."""
        return self.facts.get((table.schema or self.default_schema, table.name))

    def is_small(self, table: TableFacts) -> bool:
        """Whether the table has few rows and bytes. A table of unknown size counts as small."""
        return (table.rows or 0) < self.limits.large_rows and (table.bytes or 0) < self.limits.large_bytes

    def severity(self, table: TableFacts) -> Severity | None:
        """A note where a read of the whole table costs nothing worth an index; None: that of the check."""
        return Severity.NOTE if self.is_small(table) else None

    def size(self, table: TableFacts) -> str:
        """The size of a table in words. PostgreSQL knows no number of rows before the first ANALYZE."""
        parts = []
        if table.rows is not None:
            exactness = "at least " if table.is_cut else "" if table.bytes is None else "about "
            parts.append(f"{exactness}{table.rows:,} {'row' if table.rows == 1 else 'rows'}")
        if table.bytes is not None:
            small = table.bytes < MEBIBYTE / 10
            parts.append("less than 0.1 MiB" if small else f"{table.bytes / MEBIBYTE:,.1f} MiB")
        return ", ".join(parts) or "of unknown size"
