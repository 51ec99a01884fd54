"""What the catalogue of a database says of its tables, in one form for PostgreSQL and SQLite."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """A column. ``type`` is as the database prints it; ``sql`` is the quoted name."""

    name: str
    sql: str
    type: str
    nullable: bool


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """An index. ``columns`` has None for an expression. ``definition`` is equal for two indexes that do the same.

    ``sql`` is the quoted name with its schema. ``constraint`` is the quoted name of the constraint that owns the index.
    ``condition`` is the WHERE of a partial index.
    """

    name: str
    sql: str
    columns: tuple[str | None, ...]
    definition: tuple[object, ...]
    unique: bool
    primary: bool
    valid: bool = True
    condition: str | None = None
    constraint: str | None = None
    referenced: bool = False
    """Whether a foreign key depends on the index."""
    bytes: int = 0
    scans: int | None = None
    method: str = "btree"

    def begins_with(self, columns: frozenset[str]) -> bool:
        """Whether the first keys of the index are these columns, in any order, and it finds rows by their values."""
        leading = self.columns[: len(columns)]
        finds = self.valid and self.serves_all and self.method in ("btree", "hash")
        return finds and None not in leading and frozenset(leading) == columns

    @property
    def serves_all(self) -> bool:
        """Whether the index has all rows, or all with a value, so that it serves a search for a value."""
        return self.condition is None or self.condition.strip("()").lower().endswith(" is not null")


@dataclass(frozen=True, slots=True)
class ForeignKeyFacts:
    """A foreign key. ``name`` is None if it has none; ``parent`` is the name of the table that it references."""

    name: str | None
    columns: tuple[str, ...]
    parent: str


@dataclass(frozen=True, slots=True)
class ConstraintFacts:
    """A constraint, by its quoted name and its definition. ``valid``: all rows were checked."""

    sql: str
    kind: str
    definition: str
    valid: bool


@dataclass(slots=True)
class TableFacts:
    """A table. ``sql`` is its quoted name, with its schema on PostgreSQL. ``rows`` is an estimate; None: unknown.

    ``is_cut``: the rows were counted only up to ``rows``, and there may be more.
    """

    schema: str
    name: str
    sql: str
    rows: int | None = None
    bytes: int | None = None
    partitioned: bool = False
    is_cut: bool = False
    columns: dict[str, ColumnFacts] = field(default_factory=dict)
    indexes: list[IndexFacts] = field(default_factory=list)
    foreign_keys: list[ForeignKeyFacts] = field(default_factory=list)
    constraints: list[ConstraintFacts] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The name for people: schema.table."""
        return f"{self.schema}.{self.name}"

    @property
    def primary_key(self) -> IndexFacts | None:
        """The index of the primary key; None if the table has none."""
        return next((each for each in self.indexes if each.primary), None)

    def quoted(self, columns: tuple[str, ...]) -> str:
        """The quoted names of columns, as a list for SQL."""
        return ", ".join(self.columns[each].sql for each in columns)


Facts = dict[tuple[str, str], TableFacts]
"""The tables by schema and name."""
