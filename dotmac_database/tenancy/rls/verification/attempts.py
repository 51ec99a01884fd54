"""Attempts to read, update, delete and insert other tenants' rows, as the connection's own role.

The attempts use invented tenants, so that every row that they reach is another tenant's.

UPDATE contains a division by zero in SET, and DELETE in RETURNING. PostgreSQL evaluates these clauses only for rows
that the policies admit, so the error "division by zero" proves that a row was reached. The UPDATE fails before it
changes the row. The DELETE fails after it has deleted the row and fired the triggers BEFORE DELETE; the rollback to the
savepoint undoes that.

INSERT tries a row of another tenant with NULL in all other columns. PostgreSQL checks the policies before NOT NULL and
the other constraints, so the violation of a constraint proves that the policies admit the row.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Table, text
from sqlalchemy.exc import DBAPIError

from .findings import Finding
from .plans import Plan
from .relations import Attribute, Relation

_PAGES = 1000
_SMALL = _PAGES * 8192  # bytes
_DIVISION = "1 / CAST(random() * 0 AS integer)"  # volatile, because the planner would evaluate a constant in advance
_DIVISION_BY_ZERO = "22012"
_CONSTRAINTS = "23"
_TIMEOUTS = ("55P03", "57014")
_BEGIN = """
SELECT set_config('lock_timeout', '500', true), set_config('row_security', 'on', true), set_config('statement_timeout',
    CASE WHEN setting::int BETWEEN 1 AND 2000 THEN setting ELSE '2000' END, true),
  current_setting('transaction_read_only') = 'on' AS read_only
FROM pg_settings WHERE name = 'statement_timeout'
"""
_SIZES = """
SELECT o.oid::int8 AS oid,
  coalesce((SELECT sum(pg_relation_size(p.relid)) FROM pg_partition_tree(o.oid) AS p), pg_relation_size(o.oid)) AS bytes
FROM unnest(CAST(:oids AS oid[])) AS o (oid)
"""
_RISKS = {
    "SELECT": "can be read",
    "UPDATE": "can be updated",
    "DELETE": "can be deleted",
    "INSERT": "can be inserted in its name",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """The invented tenant as which an attempt is made; None: no tenant is set.

    ``other`` is an invented tenant too, but never the same one. The inserted rows have its name.
    """

    tenant: str | None
    other: str

    @property
    def description(self) -> str:
        """The circumstances of the attempt, as part of a finding."""
        return "while no tenant is set" if self.tenant is None else "as a tenant that has no rows"


def attempt_findings(connection: Connection, plan: Plan, relations: Sequence[Relation]) -> Iterator[Finding]:
    """The attempts that succeeded, at most one finding for each table and command. Everything is rolled back.

    It sends six statements, and four for each attempt, of which there are at most twelve for each table.
    """
    savepoint = connection.begin_nested()
    try:
        read_only = connection.execute(text(_BEGIN)).one().read_only
        targets = [each for each in relations if each.is_table and each.kinship != "ancestor" and each.privileges]
        small = _small(connection, targets)
        for relation in targets:
            identities = _identities(_tenant_of(relation, plan, relations))
            attempts = _Attempts(connection, plan, relation, identities, small=relation.oid in small)
            for command in ("SELECT",) if read_only else tuple(_RISKS):
                yield from attempts.findings(command)
    finally:
        savepoint.rollback()


def _small(connection: Connection, relations: Sequence[Relation]) -> set[int]:
    """The tables that are small enough to be read completely; none if reading their sizes exceeds a timeout."""
    savepoint = connection.begin_nested()
    try:
        rows = connection.execute(text(_SIZES), {"oids": [relation.oid for relation in relations]})
        return {row.oid for row in rows if (row.bytes or 0) <= _SMALL}
    except DBAPIError:
        if connection.invalidated:
            raise
        return set()
    finally:
        savepoint.rollback()


class _Attempts:
    """The attempts on one table. After a timeout there are no further attempts."""

    def __init__(
        self, connection: Connection, plan: Plan, relation: Relation, identities: Sequence[Identity], *, small: bool
    ) -> None:
        self._connection = connection
        self._plan = plan
        self._relation = relation
        self._identities = identities
        self._small = small
        self._timed_out = False

    def findings(self, command: str) -> Iterator[Finding]:
        """The finding of the first identity for which the command reaches a row; none if it reaches no row."""
        if command not in self._relation.privileges:
            return
        for identity in self._identities:
            statement = None if self._timed_out else _statement(self._relation, command, identity, small=self._small)
            if statement is not None and self._reaches(command, identity, statement):
                yield Finding(
                    self._relation.name,
                    f"tried as this role: a row of another tenant {_RISKS[command]} {identity.description}",
                    "; ".join(self._relation.policy_statements(self._plan)),
                )
                return

    def _reaches(self, command: str, identity: Identity, statement: str) -> bool:
        """Whether the policies admit one attempt. A failure for any other reason proves nothing."""
        savepoint = self._connection.begin_nested()
        try:
            self._plan.name_tenant(self._connection, identity.tenant)
            result = self._connection.execute(text(statement.replace(":", "\\:")))
            return bool(result.scalar()) if command == "SELECT" else command == "INSERT" and result.rowcount > 0
        except DBAPIError as error:
            if self._connection.invalidated:
                raise
            state = str(getattr(error.orig, "sqlstate", ""))
            self._timed_out = state in _TIMEOUTS
            if command != "INSERT":
                return state == _DIVISION_BY_ZERO
            # PostgreSQL looks for the partition of a row before it checks the policies.
            routed = state == "23514" and self._relation.kind == "p"
            return state.startswith(_CONSTRAINTS) and not routed
        finally:
            savepoint.rollback()


def _statement(relation: Relation, command: str, identity: Identity, *, small: bool) -> str | None:
    name = relation.name
    # A condition on pages, so that PostgreSQL does not read the rest of a large table. UPDATE and DELETE with a
    # condition must also pass the policies for SELECT, so for small tables they have no condition.
    first_pages = f" WHERE ctid < '({_PAGES},0)'"
    where = "" if small else first_pages
    if command == "SELECT":
        return f"SELECT EXISTS (SELECT FROM {name}{first_pages})"  # noqa: S608 - quoted names
    if command == "DELETE":
        return f"DELETE FROM {name}{where} RETURNING {_DIVISION}"  # noqa: S608 - quoted names
    if command == "UPDATE":
        column = next((each for each in relation.attributes if each.updatable and _plain(each)), None)
        if column is None:
            return None
        null = f"CAST(NULL AS {column.type})"
        return f"UPDATE {name} SET {column.quoted} = CASE WHEN {_DIVISION} = 0 THEN {null} ELSE {null} END{where}"  # noqa: S608
    return _insert(relation, identity)


def _plain(attribute: Attribute) -> bool:
    return not (attribute.generated or attribute.identity or attribute.domain)


def _insert(relation: Relation, identity: Identity) -> str | None:
    # A trigger BEFORE INSERT can set the session's own tenant, and the constraints of domains are checked before the
    # policies, so the outcome of an INSERT would prove nothing.
    if relation.stamped or any(each.domain for each in relation.attributes):
        return None
    tenant = relation.tenant
    if tenant is not None and not tenant.insertable:
        return None
    # The INSERT sets all columns that it can: a default could increment a sequence, which no rollback undoes.
    columns = [each for each in relation.attributes if each.insertable and not each.generated]
    values = {each.quoted: "NULL" for each in columns}
    if tenant is not None:
        # The name consists of letters, digits, ~, ! and -.
        values[tenant.quoted] = f"CAST('{identity.other}' AS {tenant.type})"
    if not values:
        return None
    overriding = "OVERRIDING SYSTEM VALUE " if any(each.identity for each in columns) else ""
    return f"INSERT INTO {relation.name} ({', '.join(values)}) {overriding}VALUES ({', '.join(values.values())})"


def _tenant_of(relation: Relation, plan: Plan, relations: Sequence[Relation]) -> Attribute | None:
    """The tenant column of the relation, or of a table that it references, directly or through other tables."""
    if relation.tenant is not None or relation.table is None:
        return relation.tenant
    columns = dict(plan.tables)
    by_table = {each.table: each for each in relations if each.kinship == "own"}
    pending, history = [relation.table], set[Table]()
    while pending:
        table = pending.pop()
        history.add(table)
        own = by_table.get(table)
        if own is not None and own.tenant is not None:
            return own.tenant
        parents = [key.referred_table for key in table.foreign_key_constraints]
        pending += [parent for parent in parents if parent in columns and parent not in history]
    return None


def _identities(tenant: Attribute | None) -> list[Identity]:
    """No tenant, and two invented tenants. An empty list if no name can be invented for the column's type."""
    names = _names(tenant)
    if names is None:
        return []
    first, second = names
    return [Identity(None, first), Identity(first, second), Identity(second, first)]


def _names(tenant: Attribute | None) -> tuple[str, str] | None:
    if tenant is None or tenant.category == "S":
        length = min(24, (tenant.length if tenant else None) or 24)
        return ("~" + secrets.token_hex(12))[:length], ("!" + secrets.token_hex(12))[:length]
    if tenant.base == "uuid":
        return str(uuid.uuid4()), str(uuid.uuid4())
    if tenant.category == "N":
        # The numbers fit into every integer type.
        number = -32768 + secrets.randbelow(16000)
        return str(number), str(number + 1)
    return None
