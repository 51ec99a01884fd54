"""Checks of indexes: missing, invalid, duplicate and unused ones."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from sqlalchemy import text

from ..examination import Examination
from ..facts import IndexFacts
from ..findings import Severity
from ..registry import BOTH, POSTGRESQL, Symptom, Unchecked, check
from .remedies import concurrently, missing


@check(
    "foreign-key-without-index",
    Severity.WARNING,
    on=BOTH,
    source="https://www.postgresql.org/docs/current/ddl-constraints.html#DDL-CONSTRAINTS-FK",
)
def foreign_key_without_index(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """A foreign key whose columns are not the first ones of an index. Small tables: notes."""
    for table in examination.tables:
        advised: set[frozenset[str]] = set()
        for key in table.foreign_keys:
            columns = frozenset(key.columns)
            if columns in advised or any(index.begins_with(columns) for index in table.indexes):
                continue
            advised.add(columns)
            sql, remedy = missing(examination, table, key.columns)
            yield Symptom(
                f"{table.label}.{', '.join(key.columns)}",
                f"To delete a row of {key.parent}, or to change its key, the database reads the whole table "
                f"({examination.size(table)}); so does a join by this key.",
                [sql],
                remedy,
                severity=examination.severity(table),
            )


@check(
    "invalid-index",
    Severity.ERROR,
    on=POSTGRESQL,
    source="https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY",
)
def invalid_index(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """An index that CREATE INDEX CONCURRENTLY has left behind invalid."""
    for table in examination.tables:
        for index in table.indexes:
            if not index.valid:
                yield Symptom(
                    f"{table.label}: {index.name}",
                    "CREATE INDEX CONCURRENTLY failed: no read uses the index, each write still pays for it, and a "
                    "unique one does not keep duplicates out.",
                    [f"REINDEX INDEX CONCURRENTLY {index.sql}"],
                    f"Remove what made it fail, such as duplicates, then REINDEX INDEX CONCURRENTLY {index.sql}; or "
                    f"DROP INDEX CONCURRENTLY {index.sql}.",
                )


@check(
    "duplicate-index",
    Severity.WARNING,
    on=BOTH,
    source="https://supabase.github.io/splinter/0009_duplicate_index/",
)
def duplicate_index(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """Two indexes of a table that do the same."""
    for table in examination.tables:
        ordered = sorted(table.indexes, key=lambda index: repr(index.definition))
        for _, group in groupby(ordered, key=lambda index: repr(index.definition)):
            preferred, *others = sorted(group, key=_preference)
            for index in others:
                if index.referenced or index.primary:
                    continue
                sql = [f"DROP INDEX{concurrently(examination, table)} {index.sql}"]
                remedy = ""
                if index.constraint is not None:
                    sql = [f"ALTER TABLE {table.sql} DROP CONSTRAINT {index.constraint}"]
                    if examination.dialect not in POSTGRESQL:
                        sql, remedy = [], f"Create {table.sql} anew without the second unique constraint."
                yield Symptom(
                    f"{table.label}: {index.name}",
                    f"It does the same as {preferred.name}: each write pays twice, for no read.",
                    sql,
                    remedy,
                )


def _preference(index: IndexFacts) -> tuple[bool, ...]:
    """The index to keep comes first: that of a primary key, of a foreign key's parent, of a constraint."""
    return not index.primary, not index.referenced, index.constraint is None, not index.unique, not index.valid


@check(
    "unused-index",
    Severity.NOTE,
    on=POSTGRESQL,
    source="https://supabase.github.io/splinter/0005_unused_index/",
)
def unused_index(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """An index without a scan since the statistics began, if they are old enough."""
    limits = examination.limits
    age = float(examination.connection.execute(text(_STATISTICS_DAYS)).scalar_one())
    if age < limits.statistics_days:
        yield Unchecked(f"the statistics are {age:.1f} days old; {limits.statistics_days:g} days are needed.")
        return
    for table in examination.tables:
        keys = [frozenset(key.columns) for key in table.foreign_keys]
        for index in table.indexes:
            serves_key = any(index.begins_with(columns) for columns in keys)
            if index.unique or serves_key or index.scans != 0 or index.bytes < limits.unused_bytes:
                continue
            yield Symptom(
                f"{table.label}: {index.name}",
                f"No statement on this server has used it for {age:.0f} days, but each write pays for it "
                f"({index.bytes / 2**20:,.1f} MiB). Standbys have statistics of their own.",
                [f"DROP INDEX{concurrently(examination, table)} {index.sql}"],
            )


# Statistics survive a restart, and are lost in a crash. Without a reset they are at least as old as the server's start.
_STATISTICS_DAYS = """
SELECT extract(epoch FROM clock_timestamp() - coalesce(stats_reset, pg_postmaster_start_time())) / 86400
FROM pg_stat_database WHERE datname = current_database()
"""
