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
_LIMITS = "SELECT set_config('lock_timeout', '500', true), set_config('row_security', 'on', true)"
_TIMEOUT = (
    "SELECT set_config('statement_timeout',"
    " CASE WHEN setting::int BETWEEN 1 AND 2000 THEN setting ELSE '2000' END, true)"
    " FROM pg_settings WHERE name = 'statement_timeout'"
)
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
        connection.execute(text(_LIMITS))
        connection.execute(text(_TIMEOUT))
        read_only = connection.scalar(text("SELECT current_setting('transaction_read_only') = 'on'"))
        for relation in relations:
            if relation.is_table and relation.kinship != "ancestor" and relation.privileges:
                yield from _attempted(connection, plan, relation, relations, read_only=bool(read_only))
    finally:
        savepoint.rollback()


def _attempted(
    connection: Connection, plan: Plan, relation: Relation, relations: Sequence[Relation], *, read_only: bool
) -> Iterator[Finding]:
    whole = relation.bytes + sum(each.bytes for each in relations if each.root == relation.oid)
    identities = _identities(_tenant_of(relation, plan, relations))
    for command in ("SELECT",) if read_only else tuple(_RISKS):
        for identity in identities:
            attempt = _attempt(relation, command, identity, small=whole <= _SMALL)
            if attempt is None or command not in relation.privileges:
                break
            if _reaches(connection, plan, relation, identity, attempt):
                yield Finding(
                    relation.name,
                    f"tried as this role: a row of another tenant {_RISKS[command]} {identity.description}",
                    "; ".join(relation.policy_statements(plan)),
                )
                break


def _attempt(relation: Relation, command: str, identity: Identity, *, small: bool) -> str | None:
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
    # A BEFORE trigger may put the session's own tenant in: what is refused after it proves nothing.
    if relation.stamped:
        return None
    tenant = relation.tenant
    if tenant is not None and not tenant.insertable:
        return None
    # A default may take a number from a sequence, which no rollback gives back: each column is named that can be.
    named = [each for each in relation.attributes if each.insertable and not each.generated and not each.domain]
    values = {each.quoted: "NULL" for each in named}
    if tenant is not None:
        values[tenant.quoted] = f"CAST('{identity.other}' AS {tenant.type})"  # made of letters, digits, ~, ! and -
    if not values:
        return None
    columns, given = ", ".join(values), ", ".join(values.values())
    overriding = "OVERRIDING SYSTEM VALUE " if any(each.identity for each in named) else ""
    return f"INSERT INTO {relation.name} ({columns}) {overriding}VALUES ({given})"


def _reaches(connection: Connection, plan: Plan, relation: Relation, identity: Identity, sql: str) -> bool:
    """Whether one attempt got past the policies. What fails for another reason proves nothing."""
    savepoint = connection.begin_nested()
    try:
        plan.name_tenant(connection, identity.tenant)
        result = connection.execute(text(sql.replace(":", "\\:")))
        return bool(result.scalar()) if sql.startswith("SELECT") else sql.startswith("INSERT") and result.rowcount > 0
    except DBAPIError as error:
        if connection.invalidated:
            raise
        state = str(getattr(error.orig, "sqlstate", ""))
        if sql.startswith("INSERT"):
            # Which partition a row belongs to is looked up before the policies are.
            routed = state == "23514" and relation.kind == "p"
            return state.startswith(_CONSTRAINTS) and not routed
        return state == _DIVIDED
    finally:
        savepoint.rollback()


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
