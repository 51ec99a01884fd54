"""Checks of the storage: empty space, dead rows, and the age of transaction IDs."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import text

from ..examination import Examination
from ..findings import Severity
from ..registry import POSTGRESQL, Symptom, Unchecked, check

_VACUUM = "https://www.postgresql.org/docs/current/routine-vacuuming.html"


@check("bloat", Severity.WARNING, on=POSTGRESQL, source=f"{_VACUUM}#VACUUM-FOR-SPACE-RECOVERY")
def bloat(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """A table that is mostly empty space, estimated from the planner's statistics."""
    limits = examination.limits
    unknown = []
    for row in examination.connection.execute(text(_BLOAT), {"schemas": examination.schemas}):
        if row.bytes < limits.bloat_bytes:
            continue
        if row.expected is None:
            unknown.append(row.label)
            continue
        empty = row.bytes - float(row.expected)
        if empty >= limits.bloat_bytes and empty >= limits.bloat_share * row.bytes:
            yield Symptom(
                row.label,
                f"About {empty / row.bytes:.0%} of its {row.bytes / 2**20:,.1f} MiB are empty: reads of the whole "
                "table and the cache pay for it.",
                [f"VACUUM (FULL, ANALYZE) {row.name}"],
                f"VACUUM (FULL, ANALYZE) {row.name} locks the table while it writes it anew; pg_repack does the same "
                "without blocking reads and writes.",
            )
    if unknown:
        yield Unchecked(
            f"there are no statistics of {', '.join(unknown)}; ANALYZE first, as a role that may read them."
        )


@check("dead-rows", Severity.WARNING, on=POSTGRESQL, source=f"{_VACUUM}#AUTOVACUUM")
def dead_rows(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """A table with many dead rows: autovacuum is behind, or switched off."""
    limits = examination.limits
    parameters = {"schemas": examination.schemas, "rows": limits.dead_rows, "share": limits.dead_share}
    for row in examination.connection.execute(text(_DEAD), parameters):
        off = "; autovacuum is switched off for it" if row.is_off else ""
        sql = [f"ALTER TABLE {row.name} RESET (autovacuum_enabled)"] if row.is_off else []
        yield Symptom(
            row.label,
            f"{row.dead:,} of its rows are dead, beside {row.living:,} living ones{off}. Reads pass them by, and "
            "the file grows.",
            [*sql, f"VACUUM (ANALYZE) {row.name}"],
        )


@check("wraparound", Severity.ERROR, on=POSTGRESQL, source=f"{_VACUUM}#VACUUM-FOR-WRAPAROUND")
def wraparound(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """A table whose oldest transaction ID, or multixact ID, approaches the age at which the server stops writing."""
    parameters = {"schemas": examination.schemas, "age": examination.limits.frozen_age}
    for row in examination.connection.execute(text(_AGE), parameters):
        yield Symptom(
            row.label,
            f"Its oldest transaction ID has the age {row.age:,}. At some 2,100,000,000 the server stops writing.",
            [f"VACUUM (FREEZE) {row.name}"],
            f"VACUUM (FREEZE) {row.name}. If its age stays, a long or prepared transaction, or a replication slot, "
            "holds it back.",
        )


# A row has a header of 24 bytes, a line pointer of 4, and its values, aligned to 8 bytes. A page has 8168 usable bytes.
_BLOAT = """
SELECT format('%I.%I', n.nspname, c.relname) AS name, n.nspname || '.' || c.relname AS label,
  pg_relation_size(c.oid) AS bytes,
  CASE WHEN c.reltuples >= 0 AND s.columns = (SELECT count(*) FROM pg_attribute a
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) OR c.reltuples = 0
    THEN ceil(c.reltuples * (28 + ceil(coalesce(s.width, 0) / 8) * 8) / (8168 * coalesce((SELECT o.option_value::float8
      FROM pg_options_to_table(c.reloptions) o WHERE o.option_name = 'fillfactor'), 100) / 100)) * 8192 END AS expected
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (SELECT count(*) AS columns, sum((1 - p.null_frac) * p.avg_width) AS width FROM pg_stats p
  WHERE p.schemaname = n.nspname AND p.tablename = c.relname AND NOT p.inherited) AS s ON true
WHERE c.relkind IN ('r', 'm') AND n.nspname = ANY(CAST(:schemas AS text[])) ORDER BY 2
"""

_DEAD = """
SELECT format('%I.%I', s.schemaname, s.relname) AS name, s.schemaname || '.' || s.relname AS label,
  s.n_dead_tup AS dead, s.n_live_tup AS living,
  c.reloptions && ARRAY['autovacuum_enabled=false', 'autovacuum_enabled=off'] AS is_off
FROM pg_stat_all_tables s JOIN pg_class c ON c.oid = s.relid
WHERE s.schemaname = ANY(CAST(:schemas AS text[])) AND s.n_dead_tup >= :rows
  AND s.n_dead_tup >= CAST(:share AS float8) * (s.n_live_tup + s.n_dead_tup) ORDER BY 2
"""

_AGE = """
SELECT format('%I.%I', n.nspname, c.relname) AS name, n.nspname || '.' || c.relname AS label, a.age
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
CROSS JOIN LATERAL (SELECT greatest(age(c.relfrozenxid), mxid_age(c.relminmxid), age(t.relfrozenxid)) AS age) AS a
WHERE c.relkind IN ('r', 'm') AND n.nspname = ANY(CAST(:schemas AS text[])) AND a.age >= :age ORDER BY 3 DESC, 2
"""
