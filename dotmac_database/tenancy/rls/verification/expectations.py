"""The conditions of the toolkit's policies, in the form in which PostgreSQL prints them.

To get that form, it creates the toolkit's policy on a temporary copy of the table, and reads it from the catalog; a
savepoint is then rolled back. If no temporary table can be created (no TEMP privilege, a read-only transaction, a
standby), the texts are compared word by word instead, without casts and parentheses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from .plans import Plan
from .relations import Relation, escaped, renamed

_CLAUSES = re.compile(r"\bCREATE POLICY .*? USING \((?P<using>.*)\) WITH CHECK \((?P<check>.*)\)\s*\Z", re.DOTALL)
_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class PrintedPolicy:
    """The two conditions of a policy, as PostgreSQL prints them."""

    using: str | None
    check: str | None

    def clause(self, name: str) -> str | None:
        """The condition of the clause ``name``: USING or WITH CHECK."""
        return self.using if name == "USING" else self.check


_Key = tuple[str, str, tuple[tuple[str, str], ...], str]
_PRINTED: dict[_Key, PrintedPolicy] = {}
"""A cache, so that a health check that runs every second does not create temporary tables each time."""


class Expectations:
    """Compares conditions with those of the toolkit's policies.

    ``path`` is the search path for the names in the metadata. The conditions must have been printed with an empty
    search path, so that they contain all schemas. It sends seven statements for each policy that is not in the cache.
    """

    def __init__(self, connection: Connection, plan: Plan, path: str) -> None:
        self._connection = connection
        self._plan = plan
        self._path = path
        self._can_copy = True

    def expects(self, relation: Relation, clause: str, condition: str | None) -> bool:
        """Whether a condition is the same as in the toolkit's policy for the relation."""
        if relation.table is None or condition is None:
            return False
        policies = [each for each in relation.policy_statements(self._plan) if each.startswith("CREATE POLICY")]
        return any(self._same(relation, statement, clause, condition) for statement in policies)

    def _same(self, relation: Relation, statement: str, clause: str, condition: str) -> bool:
        types = tuple((each.name, each.type) for each in relation.attributes)
        version = str(self._connection.dialect.server_version_info)
        key = (statement, version, types, self._path)
        cached = _PRINTED.get(key)
        if cached is not None and cached.clause(clause) == condition:
            return True
        statements = [] if relation.table is None else self._plan.enable(relation.table, relation.column)
        printed = self._print(relation, statements) if self._can_copy else None
        if printed is None:
            return _has_same_words(statement, clause, condition, self._schema())
        if len(_PRINTED) >= _LIMIT:
            _PRINTED.clear()
        _PRINTED[key] = printed
        return printed.clause(clause) == condition

    def of_rule(self, relation: Relation, statement: str) -> PrintedPolicy | None:
        """The policy of a right that a statement of the plan creates; None: no temporary table can be created."""
        types = tuple((each.name, each.type) for each in relation.attributes)
        key = (statement, str(self._connection.dialect.server_version_info), types, self._path)
        if key not in _PRINTED:
            printed = self._print(relation, [statement]) if self._can_copy else None
            if printed is None:
                return None
            if len(_PRINTED) >= _LIMIT:
                _PRINTED.clear()
            _PRINTED[key] = printed
        return _PRINTED[key]

    def _schema(self) -> str:
        return self._connection.dialect.default_schema_name or "public"

    def _print(self, relation: Relation, statements: Sequence[str]) -> PrintedPolicy | None:
        """The toolkit's policy as PostgreSQL prints it; None: no temporary table can be created."""
        savepoint = self._connection.begin_nested()
        try:
            return self._print_on_copy(relation, statements)
        except DBAPIError as error:
            if self._connection.invalidated:
                raise
            self._can_copy = getattr(error.orig, "sqlstate", None) not in ("42501", "25006", "0A000")
            return None
        finally:
            savepoint.rollback()

    def _print_on_copy(self, relation: Relation, statements: Sequence[str]) -> PrintedPolicy:
        # The copy has the name of the table, because PostgreSQL prints the name in subselects.
        copy = f'pg_temp."{escaped(relation.relname)}"'
        columns = ", ".join(f"{each.quoted} {each.type}" for each in relation.attributes)
        self._run(f"CREATE TEMPORARY TABLE {copy} ({columns}) ON COMMIT DROP")
        self._connection.execute(text(_PREPARE), {"path": self._path})
        assert relation.table is not None
        for statement in statements:
            if statement.startswith("CREATE POLICY"):
                self._run(renamed(statement, relation.table, copy))
        self._connection.execute(text("SELECT set_config('search_path', '', true)"))
        row = self._connection.execute(text(_READ), {"name": copy}).one()
        return PrintedPolicy(row.using, row.check)

    def _run(self, statement: str) -> None:
        self._connection.execute(text(statement.replace(":", "\\:")))


# With a timeout, because CREATE POLICY locks the tables that the condition reads.
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


def _has_same_words(statement: str, clause: str, condition: str, schema: str) -> bool:
    """Whether a condition has the same words as the clause of the statement. Of dotted names only two parts count."""
    match = _CLAUSES.search(statement)
    if match is None:
        return False
    expected = match["using" if clause == "USING" else "check"]
    return list(_words(expected, schema)) == list(_words(condition, schema))


def _words(sql: str, schema: str) -> Iterator[str]:
    after_from = after_as = False
    for token in _TOKEN.finditer(sql):
        if token["cast"]:
            continue
        word = token[0]
        # Omit the alias that PostgreSQL prints for the columns of a subselect.
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
