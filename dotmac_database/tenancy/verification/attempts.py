"""Attempts to read and to change what belongs to others, as the connection's own role.

The tenants of the attempts are made up, so that each row that one of them reaches is another's. UPDATE and DELETE
divide by zero at the first row that the policies let through: PostgreSQL computes what is SET, and what is RETURNED,
for such rows alone. An UPDATE so stops before it changes the row, a DELETE after it has, and after triggers BEFORE
DELETE; the savepoint's end undoes that. An INSERT of another tenant's row has NULL in all other columns, where
PostgreSQL looks at the policies before NOT NULL and the other constraints: that it fails by one of those proves that
the policies let it pass.
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
_SMALL = _PAGES * 8192
_STOPS = "1 / CAST(random() * 0 AS integer)"  # volatile, or else the planner would compute it before it looks at a row
_DIVIDED = "22012"
_CONSTRAINTS = "23"
_WAITED = ("55P03", "57014")
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
    """Who attempts: a tenant that has no rows, or none; and whose rows it tries to insert."""

    tenant: str | None
    other: str

    @property
    def description(self) -> str:
        """For a finding."""
        return "while no tenant is named" if self.tenant is None else "as a tenant that has none"


def attempt_findings(connection: Connection, plan: Plan, relations: Sequence[Relation]) -> Iterator[Finding]:
    """What the attempts reached, at most one finding for each table and command. All is rolled back.

    Four statements for each attempt, twelve attempts at most for each table.
    """
    savepoint = connection.begin_nested()
    try:
        read_only = connection.execute(text(_BEGIN)).one().read_only
        tried = [each for each in relations if each.is_table and each.kinship != "ancestor" and each.privileges]
        small = _small(connection, tried)
        for relation in tried:
            identities = _identities(_tenant_of(relation, plan, relations))
            attempts = _Attempts(connection, plan, relation, identities, small=relation.oid in small)
            for command in ("SELECT",) if read_only else tuple(_RISKS):
                yield from attempts.findings(command)
    finally:
        savepoint.rollback()


def _small(connection: Connection, relations: Sequence[Relation]) -> set[int]:
    """The tables of which a statement may read everything; none, where their sizes can't be read without waiting."""
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
    """The attempts on one table, until one has waited too long."""

    def __init__(
        self, connection: Connection, plan: Plan, relation: Relation, identities: Sequence[Identity], *, small: bool
    ) -> None:
        self._connection = connection
        self._plan = plan
        self._relation = relation
        self._identities = identities
        self._small = small
        self._waited = False

    def findings(self, command: str) -> Iterator[Finding]:
        """What the command reached, as the first identity that reached something."""
        if command not in self._relation.privileges:
            return
        for identity in self._identities:
            statement = None if self._waited else _statement(self._relation, command, identity, small=self._small)
            if statement is not None and self._reaches(command, identity, statement):
                yield Finding(
                    self._relation.name,
                    f"tried as this role: a row of another tenant {_RISKS[command]} {identity.description}",
                    "; ".join(self._relation.policy_statements(self._plan)),
                )
                return

    def _reaches(self, command: str, identity: Identity, statement: str) -> bool:
        """Whether one attempt got past the policies. What fails for another reason proves nothing."""
        savepoint = self._connection.begin_nested()
        try:
            self._plan.name_tenant(self._connection, identity.tenant)
            result = self._connection.execute(text(statement.replace(":", "\\:")))
            return bool(result.scalar()) if command == "SELECT" else command == "INSERT" and result.rowcount > 0
        except DBAPIError as error:
            if self._connection.invalidated:
                raise
            state = str(getattr(error.orig, "sqlstate", ""))
            self._waited = state in _WAITED
            if command != "INSERT":
                return state == _DIVIDED
            # Which partition a row belongs to is looked up before the policies are.
            routed = state == "23514" and self._relation.kind == "p"
            return state.startswith(_CONSTRAINTS) and not routed
        finally:
            savepoint.rollback()


def _statement(relation: Relation, command: str, identity: Identity, *, small: bool) -> str | None:
    name = relation.name
    # A range of pages, which PostgreSQL reads without the rest of a large table. A condition on the row makes it apply
    # the policies for SELECT besides; a small table is tried without one.
    near = f" WHERE ctid < '({_PAGES},0)'"
    where = "" if small else near
    if command == "SELECT":
        return f"SELECT EXISTS (SELECT FROM {name}{near})"  # noqa: S608 - quoted names
    if command == "DELETE":
        return f"DELETE FROM {name}{where} RETURNING {_STOPS}"  # noqa: S608 - quoted names
    if command == "UPDATE":
        column = next((each for each in relation.attributes if each.updatable and _plain(each)), None)
        if column is None:
            return None
        null = f"CAST(NULL AS {column.type})"
        return f"UPDATE {name} SET {column.quoted} = CASE WHEN {_STOPS} = 0 THEN {null} ELSE {null} END{where}"  # noqa: S608
    return _insert(relation, identity)


def _plain(attribute: Attribute) -> bool:
    return not (attribute.generated or attribute.identity or attribute.domain)


def _insert(relation: Relation, identity: Identity) -> str | None:
    # A BEFORE trigger may put the session's own tenant in, and a domain has constraints that come before the policies:
    # what is refused there proves nothing.
    if relation.stamped or any(each.domain for each in relation.attributes):
        return None
    tenant = relation.tenant
    if tenant is not None and not tenant.insertable:
        return None
    # A default may take a number from a sequence, which no rollback gives back: each column is named that can be.
    named = [each for each in relation.attributes if each.insertable and not each.generated]
    values = {each.quoted: "NULL" for each in named}
    if tenant is not None:
        values[tenant.quoted] = f"CAST('{identity.other}' AS {tenant.type})"  # made of letters, digits, ~, ! and -
    if not values:
        return None
    columns, given = ", ".join(values), ", ".join(values.values())
    overriding = "OVERRIDING SYSTEM VALUE " if any(each.identity for each in named) else ""
    return f"INSERT INTO {relation.name} ({columns}) {overriding}VALUES ({given})"


def _tenant_of(relation: Relation, plan: Plan, relations: Sequence[Relation]) -> Attribute | None:
    """The column that names the tenant of the relation's rows: its own, or that of a table that it refers to."""
    if relation.tenant is not None or relation.table is None:
        return relation.tenant
    columns = dict(plan.tables)
    by_table = {each.table: each for each in relations if each.kinship == "own"}
    pending, seen = [relation.table], set[Table]()
    while pending:
        table = pending.pop()
        seen.add(table)
        held = by_table.get(table)
        if held is not None and held.tenant is not None:
            return held.tenant
        parents = [key.referred_table for key in table.foreign_key_constraints]
        pending += [parent for parent in parents if parent in columns and parent not in seen]
    return None


def _identities(tenant: Attribute | None) -> list[Identity]:
    """None, and two tenants that nobody is; none alone where such a name can't be made."""
    names = _names(tenant)
    if names is None:
        return []
    one, other = names
    return [Identity(None, one), Identity(one, other), Identity(other, one)]


def _names(tenant: Attribute | None) -> tuple[str, str] | None:
    if tenant is None or tenant.category == "S":
        length = min(24, (tenant.length if tenant else None) or 24)
        return ("~" + secrets.token_hex(12))[:length], ("!" + secrets.token_hex(12))[:length]
    if tenant.base == "uuid":
        return str(uuid.uuid4()), str(uuid.uuid4())
    if tenant.category == "N":
        # Small enough for every integer type.
        number = -32768 + secrets.randbelow(16000)
        return str(number), str(number + 1)
    return None
