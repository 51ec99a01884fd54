"""The conditions that the toolkit's policies have, as PostgreSQL prints them.

A policy with the toolkit's statement is made on a temporary twin of the table, in a savepoint that is rolled back, and
read back. Where there may be no temporary table (no TEMP on the database, a read-only transaction, a standby), the
texts are compared word by word instead, without casts and parentheses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from .plans import Plan
from .relations import Relation, escaped, renamed

_CLAUSES = re.compile(r"\bCREATE POLICY .*? USING \((?P<using>.*)\) WITH CHECK \((?P<check>.*)\)\s*\Z", re.DOTALL)
_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Printed:
    """The two conditions of a policy."""

    using: str | None
    check: str | None

    def clause(self, name: str) -> str | None:
        """The condition of USING or WITH CHECK."""
        return self.using if name == "USING" else self.check


_Key = tuple[str, str, tuple[tuple[str, str], ...], str]
_PRINTED: dict[_Key, Printed] = {}
"""What PostgreSQL printed before: a health check that is asked each second makes no temporary tables."""


class Expectations:
    """Compares conditions with the toolkit's; ``path`` is the search path by which the metadata's names are meant.

    The conditions given must have been printed with an empty search path, so that they name all schemas: seven
    statements for each table whose policy this process has not seen before.
    """

    def __init__(self, connection: Connection, plan: Plan, path: str) -> None:
        self._connection = connection
        self._plan = plan
        self._path = path
        self._twins = True

    def expects(self, relation: Relation, clause: str, condition: str | None) -> bool:
        """Whether a condition is the one that the toolkit would have made for the relation."""
        if relation.table is None or condition is None:
            return False
        created = [each for each in relation.policy_statements(self._plan) if each.startswith("CREATE POLICY")]
        return any(self._same(relation, statement, clause, condition) for statement in created)

    def _same(self, relation: Relation, statement: str, clause: str, condition: str) -> bool:
        types = tuple((each.name, each.type) for each in relation.attributes)
        version = str(self._connection.dialect.server_version_info)
        key = (statement, version, types, self._path)
        known = _PRINTED.get(key)
        if known is not None and known.clause(clause) == condition:
            return True
        printed = self._print(relation) if self._twins else None
        if printed is None:
            return _alike(statement, clause, condition, self._schema())
        if len(_PRINTED) >= _LIMIT:
            _PRINTED.clear()
        _PRINTED[key] = printed
        return printed.clause(clause) == condition

    def _schema(self) -> str:
        return self._connection.dialect.default_schema_name or "public"

    def _print(self, relation: Relation) -> Printed | None:
        """The policy of the relation's twin; None: there can be no twin here."""
        savepoint = self._connection.begin_nested()
        try:
            return self._twin(relation)
        except DBAPIError as error:
            if self._connection.invalidated:
                raise
            self._twins = getattr(error.orig, "sqlstate", None) not in ("42501", "25006", "0A000")
            return None
        finally:
            savepoint.rollback()

    def _twin(self, relation: Relation) -> Printed:
        # The twin has the table's own name, since PostgreSQL prints that within subselects.
        twin = f'pg_temp."{escaped(relation.relname)}"'
        columns = ", ".join(f"{each.quoted} {each.type}" for each in relation.attributes)
        self._run(f"CREATE TEMPORARY TABLE {twin} ({columns}) ON COMMIT DROP")
        self._connection.execute(text(_PREPARE), {"path": self._path})
        assert relation.table is not None
        for statement in self._plan.enable(relation.table, relation.column):
            if statement.startswith("CREATE POLICY"):
                self._run(renamed(statement, relation.table, twin))
        self._connection.execute(text("SELECT set_config('search_path', '', true)"))
        row = self._connection.execute(text(_READ), {"name": twin}).one()
        return Printed(row.using, row.check)

    def _run(self, statement: str) -> None:
        self._connection.execute(text(statement.replace(":", "\\:")))


# To make a policy locks the tables that its condition reads.
_PREPARE = "SELECT set_config('search_path', :path, true), set_config('lock_timeout', '500', true)"

_READ = """
SELECT pg_get_expr(polqual, polrelid) AS using, pg_get_expr(polwithcheck, polrelid) AS check
FROM pg_policy WHERE polrelid = CAST(:name AS regclass)
"""

_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*')
    |(?P<cast>::\s*(?:character\ varying|double\ precision|timestamp\ with(?:out)?\ time\ zone|[\w."]+)
      (?:\(\d+\))?(?:\[\])?)
    |(?P<name>(?:"(?:[^"]|"")*"|\w+)(?:\.(?:"(?:[^"]|"")*"|\w+))*)
    |(?P<other>[^\s()])""",
    re.VERBOSE,
)


def _alike(statement: str, clause: str, condition: str, schema: str) -> bool:
    """Whether the words of a condition are those of the statement; of a dotted column the last two names count."""
    found = _CLAUSES.search(statement)
    if found is None:
        return False
    expected = found["using" if clause == "USING" else "check"]
    return list(_words(expected, schema)) == list(_words(condition, schema))


def _words(sql: str, schema: str) -> Iterator[str]:
    after_from = after_as = False
    for token in _TOKEN.finditer(sql):
        if token["cast"]:
            continue
        word = token[0]
        # PostgreSQL adds a name to what a subselect selects.
        if after_as or word.lower() == "as":
            after_as = not after_as
            continue
        if token["name"]:
            parts = [part.strip('"') if part.startswith('"') else part.lower() for part in _PART.findall(word)]
            if after_from and len(parts) == 1:
                parts.insert(0, schema)
            word = ".".join(parts[-2:])
            after_from = word == "from"
        yield word


_PART = re.compile(r'"(?:[^"]|"")*"|\w+')
