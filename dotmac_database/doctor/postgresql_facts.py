"""Reads the facts of PostgreSQL's catalogue: four statements, whatever the number of tables."""

# ruff: noqa: S608 - constants

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from .facts import ColumnFacts, ConstraintFacts, Facts, ForeignKeyFacts, IndexFacts, TableFacts


def postgresql_facts(connection: Connection, schemas: Sequence[str], _most_rows: int) -> Facts:
    """The tables of these schemas, without partitions (their parent stands for them) and tables of extensions."""
    parameters = {"schemas": list(schemas)}
    by_oid = {}
    for row in connection.execute(text(_TABLES), parameters):
        by_oid[row.oid] = TableFacts(row.schema, row.name, row.sql, row.rows, row.bytes, row.is_partitioned)
    for row in connection.execute(text(_COLUMNS), parameters):
        if row.oid in by_oid:
            by_oid[row.oid].columns[row.name] = ColumnFacts(row.name, row.sql, row.type, row.nullable)
    for row in connection.execute(text(_INDEXES), parameters):
        if row.oid in by_oid:
            by_oid[row.oid].indexes.append(
                IndexFacts(
                    row.name,
                    row.sql,
                    tuple(row.columns),
                    (row.definition,),
                    row.is_unique,
                    row.is_primary,
                    row.is_valid,
                    row.condition,
                    row.constraint_name,
                    row.is_referenced,
                    row.bytes,
                    row.scans,
                    row.method,
                )
            )
    for row in connection.execute(text(_CONSTRAINTS), parameters):
        if row.oid not in by_oid:
            continue
        table = by_oid[row.oid]
        table.constraints.append(ConstraintFacts(row.sql, row.kind, row.definition, row.is_valid))
        if row.kind == "f":
            table.foreign_keys.append(ForeignKeyFacts(row.name, tuple(row.columns), row.parent))
    return {(each.schema, each.name): each for each in by_oid.values()}


_OF_SCHEMAS = "n.nspname = ANY(CAST(:schemas AS text[]))"

_TABLES = f"""
SELECT c.oid::int8 AS oid, n.nspname::text AS schema, c.relname::text AS name,
  format('%I.%I', n.nspname, c.relname) AS sql, c.relkind = 'p' AS is_partitioned,
  CASE WHEN c.relkind = 'p' THEN (SELECT sum(greatest(p.reltuples, 0))::int8 FROM pg_partition_tree(c.oid) t
      JOIN pg_class p ON p.oid = t.relid WHERE t.isleaf)
    WHEN c.reltuples >= 0 THEN c.reltuples::int8 END AS rows,
  CASE WHEN c.relkind = 'p' THEN (SELECT sum(pg_table_size(t.relid))::int8 FROM pg_partition_tree(c.oid) t
      WHERE t.isleaf)
    ELSE pg_table_size(c.oid) END AS bytes
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND {_OF_SCHEMAS}
  AND NOT EXISTS (SELECT FROM pg_depend d
    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 2, 3
"""

_COLUMNS = f"""
SELECT a.attrelid::int8 AS oid, a.attname::text AS name, quote_ident(a.attname) AS sql,
  format_type(a.atttypid, a.atttypmod) AS type, NOT a.attnotnull AS nullable
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND {_OF_SCHEMAS}
ORDER BY a.attrelid, a.attnum
"""

# The definition contains all that makes two indexes do the same, except uniqueness. An index's expressions are compared
# in their stored form, without the places of their tokens in the statement.
_INDEXES = rf"""
SELECT x.indrelid::int8 AS oid, c.relname::text AS name, format('%I.%I', n.nspname, c.relname) AS sql,
  x.indisunique AS is_unique, x.indisprimary AS is_primary, x.indisvalid AS is_valid,
  pg_get_expr(x.indpred, x.indrelid) AS condition, quote_ident(k.conname) AS constraint_name,
  EXISTS (SELECT FROM pg_constraint f WHERE f.conindid = x.indexrelid AND f.contype = 'f') AS is_referenced,
  ARRAY(SELECT a.attname::text FROM generate_series(1, x.indnkeyatts::int) AS g LEFT JOIN pg_attribute a
    ON a.attrelid = x.indrelid AND a.attnum = NULLIF(x.indkey[g - 1], 0) ORDER BY g) AS columns,
  concat_ws('|', c.relam, x.indimmediate, to_jsonb(x) ->> 'indnullsnotdistinct', x.indnkeyatts, x.indkey::text,
    x.indclass::text, x.indcollation::text, x.indoption::text,
    regexp_replace(x.indexprs::text, '.location -?\d+', '', 'g'),
    regexp_replace(x.indpred::text, '.location -?\d+', '', 'g'))
    AS definition,
  pg_relation_size(c.oid) AS bytes, s.idx_scan AS scans, m.amname::text AS method
FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
JOIN pg_am m ON m.oid = c.relam
JOIN pg_namespace n ON n.oid = t.relnamespace
LEFT JOIN pg_constraint k ON k.conindid = x.indexrelid AND k.conrelid = x.indrelid AND k.contype IN ('p', 'u', 'x')
LEFT JOIN pg_stat_all_indexes s ON s.indexrelid = x.indexrelid
WHERE t.relkind IN ('r', 'p') AND {_OF_SCHEMAS}
ORDER BY x.indrelid, c.relname
"""

_CONSTRAINTS = f"""
SELECT k.conrelid::int8 AS oid, k.conname::text AS name, quote_ident(k.conname) AS sql, k.contype::text AS kind,
  pg_get_constraintdef(k.oid) AS definition, k.convalidated AS is_valid,
  ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (number, place) JOIN pg_attribute a
    ON a.attrelid = k.conrelid AND a.attnum = u.number ORDER BY u.place) AS columns,
  CASE WHEN k.confrelid <> 0 THEN k.confrelid::regclass::text END AS parent
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype IN ('f', 'c') AND {_OF_SCHEMAS}
ORDER BY k.conrelid, k.conname
"""
