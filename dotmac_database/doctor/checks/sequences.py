"""Checks of sequences."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import text

from ..examination import Examination
from ..findings import Severity
from ..registry import POSTGRESQL, Symptom, Unchecked, check

_ALMOST = 0.9


@check(
    "sequence-near-end",
    Severity.WARNING,
    on=POSTGRESQL,
    source="https://wiki.postgresql.org/wiki/Don%27t_Do_This#Don.27t_use_serial",
)
def sequence_near_end(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """A sequence, or the smaller column that it fills, has used most of its numbers. From 90 % on it is an error."""
    unreadable = []
    for row in examination.connection.execute(text(_SEQUENCES), {"schemas": examination.schemas}):
        if not row.is_readable:
            unreadable.append(row.label)
            continue
        used = float(row.used or 0)
        if used < examination.limits.sequence_used:
            continue
        sql = [f"ALTER SEQUENCE {row.name} AS bigint NO MAXVALUE"]
        if row.column_sql is not None:
            widen = f"ALTER TABLE {row.table_sql} ALTER COLUMN {row.column_sql} TYPE bigint"
            sql = [widen] if row.is_identity else [widen, *sql]
            if row.is_identity and row.type == "bigint":
                sql = [f"ALTER TABLE {row.table_sql} ALTER COLUMN {row.column_sql} SET NO MAXVALUE"]
            elif row.is_identity:
                sql.append(f"ALTER TABLE {row.table_sql} ALTER COLUMN {row.column_sql} SET NO MAXVALUE")
        where = "" if row.column_label is None else f" of {row.column_label} ({row.type})"
        words = ";\n".join(sql)
        yield Symptom(
            row.label,
            f"{used:.0%} of the numbers{where} are used; after the last one each INSERT fails.",
            sql,
            f"{words}\nThis rewrites the table under a lock; for a large one, fill a second column instead. Columns "
            "that reference it need the same type.",
            Severity.ERROR if used >= _ALMOST else None,
        )
    if unreadable:
        yield Unchecked(f"the role may not read {', '.join(unreadable)}.")


_SEQUENCES = """
SELECT format('%I.%I', n.nspname, c.relname) AS name, n.nspname || '.' || c.relname AS label,
  has_sequence_privilege(c.oid, 'USAGE, SELECT') AS is_readable, d.deptype = 'i' AS is_identity,
  CASE WHEN t.oid IS NOT NULL THEN format('%I.%I', tn.nspname, t.relname) END AS table_sql,
  quote_ident(a.attname) AS column_sql,
  tn.nspname || '.' || t.relname || '.' || a.attname AS column_label, format_type(a.atttypid, NULL) AS type,
  CASE WHEN has_sequence_privilege(c.oid, 'USAGE, SELECT') THEN pg_sequence_last_value(c.oid) END
    / nullif(least(s.seqmax,
       CASE a.atttypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647 ELSE s.seqmax END),
      0)::numeric AS used
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
  AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
LEFT JOIN pg_class t ON t.oid = d.refobjid LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE n.nspname = ANY(CAST(:schemas AS text[])) AND s.seqincrement > 0 AND NOT s.seqcycle
ORDER BY 2
"""
