"""Triggers, rules, CHECK constraints and policies that could copy rows to places that no policy covers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, RowMapping, text

from .findings import Finding
from .plans import Plan
from .relations import Relation

_NOISE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", re.DOTALL)
_LOCKS = re.compile(r"\bFOR\s+(?:NO\s+KEY\s+)?UPDATE\b|\bDO\s+UPDATE\s+SET\b", re.IGNORECASE)
_WRITES = re.compile(
    r"\b(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM|MERGE\s+INTO)\s+(?:ONLY\s+)?(?P<target>[\w.\"$]+)", re.IGNORECASE
)
_ESCAPES = re.compile(
    r"\b(?:EXECUTE|COPY|CALL|CREATE|TRUNCATE|NOTIFY|pg_notify|dblink\w*|lo_\w+|pg_logical_emit_message|set_config"
    r"|query_to_xml\w*|pg_file_write)\b",
    re.IGNORECASE,
)
_CALLS = re.compile(r"\b(?P<name>\w+)\"?\s*\(")
_READABLE = ("plpgsql", "sql")


def trigger_findings(connection: Connection, plan: Plan, relations: Sequence[Relation]) -> Iterator[Finding]:
    """The triggers, CHECK constraints and policies that call a function that is not trusted.

    A function of PostgreSQL, of an extension or of the toolkit is trusted. Any other function is trusted if its text
    and the texts of the functions that it calls write only to protected tables, and with the caller's rights. It sends
    one statement, and one more for each level of called functions.
    """
    functions = _Functions(connection, plan, relations)
    for row in connection.execute(text(_TRIGGERS), {"oids": [relation.oid for relation in relations]}).mappings():
        reason = functions.reason(row)
        if reason is not None:
            name = f"{row['user']} on {row['relation']}"
            yield Finding(
                f"{row['kind'].lower()} {name}",
                f"its function {row['name']} {reason}: it may copy rows to a place that no policy covers",
                f"ALTER TABLE {row['relation']} DROP CONSTRAINT {row['user']}"
                if row["kind"] == "CONSTRAINT"
                else f"DROP {row['kind']} {name}",
            )


def rule_findings(connection: Connection, relations: Sequence[Relation]) -> Iterator[Finding]:
    """The rules on the tables, except DO NOTHING rules. One statement."""
    for row in connection.execute(text(_RULES), {"oids": [relation.oid for relation in relations]}):
        yield Finding(
            f"rule {row.rule} on {row.relation}",
            "it rewrites statements with the rights of the table's owner, and may copy rows without regard to policies",
            f"DROP RULE {row.rule} ON {row.relation}",
        )


class _Functions:
    """Decides by their texts which functions are trusted."""

    def __init__(self, connection: Connection, plan: Plan, relations: Sequence[Relation]) -> None:
        self._connection = connection
        self._plan = plan
        protected = [each for each in relations if each.enabled and each.forced]
        self._targets = {name for each in protected for name in (each.name.replace('"', ""), each.relname)}

    def reason(self, function: RowMapping) -> str | None:
        """Why a function is not trusted, in words; None: it is trusted."""
        pending: list[RowMapping] = [function]
        history: set[str] = set()
        while pending:
            names: set[str] = set()
            for each in pending:
                history.add(each["name"])
                if self._is_trusted(each):
                    continue
                reason = self._reason_in_text(each)
                if reason is not None:
                    return reason if each is function else f"calls {each['name']}, which {reason}"
                names.update(call["name"] for call in _CALLS.finditer(_plain(each["body"])))
            called = self._connection.execute(text(_CALLED), {"names": sorted(names)}).mappings() if names else ()
            pending = [each for each in called if each["name"] not in history]
        return None

    def _is_trusted(self, function: RowMapping) -> bool:
        if function["schema"] == "pg_catalog" or function["extension"]:
            return True
        return self._plan.defines(
            function["schema"], function["plain"], function["body"], function["configuration"] or ()
        )

    def _reason_in_text(self, function: RowMapping) -> str | None:
        if function["language"] not in _READABLE:
            return f"is written in {function['language']}"
        body = _plain(function["body"])
        escape = _ESCAPES.search(body)
        if escape is not None:
            return f"uses {escape[0]}"
        for write in _WRITES.finditer(body):
            target = write["target"].replace('"', "")
            if function["definer"] or target not in self._targets:
                return f"writes to {target}"
        return None


def _plain(body: str) -> str:
    """A function's text without comments, strings, and clauses such as FOR UPDATE, in which UPDATE has no table."""
    return _LOCKS.sub(" ", _NOISE.sub(" ", body))


_FUNCTION = """
  p.oid::regprocedure::text AS name, n.nspname::text AS schema, p.proname::text AS plain, p.prosrc AS body,
  p.proconfig AS configuration, p.prosecdef AS definer, l.lanname::text AS language,
  EXISTS (SELECT FROM pg_depend d
    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e') AS extension
"""

_TRIGGERS = f"""
SELECT u.kind, quote_ident(u.name) AS user, format('%I.%I', m.nspname, c.relname) AS relation, {_FUNCTION}
FROM (
  SELECT 'TRIGGER' AS kind, t.tgname AS name, t.tgrelid AS relation, t.tgfoid AS function FROM pg_trigger t
  WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgparentid = 0
  UNION ALL
  SELECT 'CONSTRAINT', k.conname, k.conrelid, d.refobjid FROM pg_constraint k JOIN pg_depend d
    ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid AND d.refclassid = 'pg_proc'::regclass
  WHERE k.contype = 'c' AND k.conislocal
  UNION ALL
  SELECT 'POLICY', p.polname, p.polrelid, d.refobjid FROM pg_policy p JOIN pg_depend d
    ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_proc'::regclass
) AS u JOIN pg_class c ON c.oid = u.relation JOIN pg_namespace m ON m.oid = c.relnamespace
JOIN pg_proc p ON p.oid = u.function JOIN pg_namespace n ON n.oid = p.pronamespace
JOIN pg_language l ON l.oid = p.prolang
WHERE u.relation = ANY(CAST(:oids AS oid[]))
ORDER BY 1 DESC, 3, 2
"""  # noqa: S608 - a constant

_CALLED = f"""
SELECT {_FUNCTION}
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
WHERE p.proname = ANY(CAST(:names AS text[])) AND n.nspname NOT IN ('pg_catalog', 'information_schema')
ORDER BY 1
"""  # noqa: S608 - a constant

# It does not print the rules by pg_get_ruledef(), which locks the table, but reads the number of the command from the
# stored form. CMD_NOTHING is the last number of PostgreSQL's CmdType: 6, and 7 since PostgreSQL 15, which added MERGE.
_RULES = r"""
SELECT quote_ident(r.rulename) AS rule, format('%I.%I', n.nspname, c.relname) AS relation
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE r.ev_class = ANY(CAST(:oids AS oid[])) AND r.rulename <> '_RETURN' AND r.ev_enabled <> 'D'
  AND substring(r.ev_action::text FROM 'QUERY .commandType (\d+)')
    <> CASE WHEN current_setting('server_version_num')::int < 150000 THEN '6' ELSE '7' END
ORDER BY 2, 1
"""
