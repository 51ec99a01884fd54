"""Checks of tables, columns and constraints."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Table
from sqlalchemy.orm import configure_mappers

from ...dialects.indexing import sql_of
from ...models.living import not_deleted
from ...models.traits import Traits, traits_of
from ...sqlalchemy_internals import all_mappers
from ..examination import Examination
from ..facts import IndexFacts, TableFacts
from ..findings import Severity
from ..registry import BOTH, POSTGRESQL, Symptom, Unchecked, check
from .remedies import create_index

_AS_UTC = "AT TIME ZONE 'UTC'"
_DONT = "https://wiki.postgresql.org/wiki/Don%27t_Do_This"


@check(
    "no-primary-key",
    Severity.WARNING,
    on=BOTH,
    source="https://www.postgresql.org/docs/current/ddl-constraints.html#DDL-CONSTRAINTS-PRIMARY-KEYS",
)
def no_primary_key(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """A table without a primary key."""
    for table in examination.tables:
        if table.primary_key is not None:
            continue
        name = next(each for each in ("id", "row_id", "primary_id", "id_") if each not in table.columns)
        add = f"ALTER TABLE {table.sql} ADD COLUMN {name} bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
        has_identity = examination.dialect in POSTGRESQL
        yield Symptom(
            table.label,
            "A row can't be named: duplicates stay unnoticed, and logical replication can't replicate UPDATE and "
            "DELETE.",
            [add] if has_identity else [],
            "" if has_identity else "Create the table anew with a primary key, and copy its rows.",
        )


@check(
    "timestamp-without-zone",
    Severity.WARNING,
    on=POSTGRESQL,
    source=f"{_DONT}#Don.27t_use_timestamp_.28without_time_zone.29",
)
def timestamp_without_zone(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """A column of type timestamp without time zone."""
    for table in examination.tables:
        for column in table.columns.values():
            if not (column.type.startswith("timestamp") and column.type.endswith("without time zone")):
                continue
            precision = column.type.partition("(")[2].partition(")")[0]
            type_ = f"timestamptz({precision})" if precision else "timestamptz"
            yield Symptom(
                f"{table.label}.{column.name}",
                "The value is no moment in time: it depends on the zone of the program that wrote it, and one hour of "
                "each autumn exists twice.",
                [f"ALTER TABLE {table.sql} ALTER COLUMN {column.sql} TYPE {type_} USING {column.sql} {_AS_UTC}"],
            )


@check(
    "constraint-not-valid",
    Severity.WARNING,
    on=POSTGRESQL,
    source="https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-DESC-VALIDATE-CONSTRAINT",
)
def constraint_not_valid(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """A constraint that is NOT VALID: the rows from before were never checked."""
    for table in examination.tables:
        for each in table.constraints:
            if not each.valid:
                yield Symptom(
                    f"{table.label}: constraint {each.sql}",
                    "Rows from before the constraint may break it, and the planner does not rely on it.",
                    [f"ALTER TABLE {table.sql} VALIDATE CONSTRAINT {each.sql}"],
                )


@check(
    "unique-among-deleted",
    Severity.WARNING,
    on=BOTH,
    source="https://www.postgresql.org/docs/current/indexes-partial.html",
)
def unique_among_deleted(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """A unique key of a soft-deleting model that also counts deleted rows (see `LivingUnique`)."""
    for table, traits in _soft_deleting(examination).items():
        facts = examination.of(table)
        mark = traits.columns[traits.deletion_mark or ""]
        if facts is None or mark.name not in facts.columns:
            continue
        key = {each.name for each in table.primary_key.columns}
        condition = sql_of(examination.dialect, not_deleted(mark, nullable=bool(mark.nullable)))
        for index in facts.indexes:
            plain = index.unique and not index.primary and index.condition is None and not index.referenced
            # A key with all columns of the primary key is there for foreign keys, and can't collide.
            if plain and not key <= {*index.columns} and mark.name not in index.columns and None not in index.columns:
                yield _counts_deleted(examination, facts, index, condition)


def _soft_deleting(examination: Examination) -> dict[Table, Traits[object]]:
    """The tables of the metadata whose classes delete softly, by the traits of one class."""
    configure_mappers()
    tables: dict[Table, Traits[object]] = {}
    for mapper in all_mappers():
        table = mapper.local_table
        if isinstance(table, Table) and table.metadata in examination.metadata:
            traits = traits_of(mapper.class_)
            if traits.soft_deletes and traits.columns[traits.deletion_mark or ""].table is table:
                tables.setdefault(table, traits)
    return dict(sorted(tables.items(), key=lambda each: each[0].fullname))


def _counts_deleted(examination: Examination, table: TableFacts, index: IndexFacts, condition: str) -> Symptom:
    columns = tuple(each for each in index.columns if each is not None)
    create = create_index(examination, table, table.quoted(columns)).replace("CREATE INDEX", "CREATE UNIQUE INDEX")
    create = f"{create} WHERE {condition}"
    drop = f"DROP INDEX {index.sql}"
    if index.constraint is not None:
        drop = f"ALTER TABLE {table.sql} DROP CONSTRAINT {index.constraint}"
    sql = [create, drop]
    remedy = "Replace it by LivingUnique in the model, and in the database:\n" + ";\n".join(sql)
    if index.constraint is not None and examination.dialect not in POSTGRESQL:
        sql, remedy = [], "Replace the constraint by LivingUnique in the model, and create the table anew."
    return Symptom(
        f"{table.label}: {index.name}",
        f"The value of a soft-deleted row can't be used again: the unique key ({', '.join(columns)}) counts it.",
        sql,
        remedy,
    )
