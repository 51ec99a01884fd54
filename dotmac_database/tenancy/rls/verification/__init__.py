"""Verifies row-level security: finds everything in a database that could let a statement out of its tenant."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, text

from ....errors import DatabaseError
from .attempts import attempt_findings
from .expectations import Expectations
from .findings import Finding
from .functions import function_findings
from .grants import grant_findings
from .inheritance import inheritance_findings
from .plans import Plan
from .policies import policies_of, policy_findings
from .relations import relations_of, resolve, table_findings
from .rights import right_findings
from .roles import reach_of, role_findings
from .settings import setting_findings
from .triggers import rule_findings, trigger_findings
from .views import view_findings, views_of

__all__ = ["Finding", "Plan", "find_findings"]


def find_findings(connection: Connection, plan: Plan, *, attempts: bool = True) -> list[Finding]:
    """The findings for the connection's role. It works in a savepoint that is rolled back. See `verify`."""
    if getattr(connection.connection.dbapi_connection, "autocommit", False):
        raise DatabaseError(
            "Row-level security must be verified in a transaction, but this connection commits each statement."
        )
    fresh = not connection.in_transaction()
    savepoint = connection.begin_nested()
    try:
        return list(dict.fromkeys(_findings(connection, plan, fresh=fresh, attempts=attempts)))
    finally:
        savepoint.rollback()


def _findings(connection: Connection, plan: Plan, *, fresh: bool, attempts: bool) -> Iterator[Finding]:
    path = connection.execute(text("SELECT current_setting('search_path')")).scalar_one()
    oids = resolve(connection, plan)
    # With an empty search path, PostgreSQL prints all names with their schema, so that no other table is confused.
    connection.execute(text("SELECT set_config('search_path', '', true)"))
    reach = reach_of(connection)
    yield from role_findings(reach)
    yield from setting_findings(connection, plan, reach, fresh=fresh)
    relations = relations_of(connection, plan, reach, oids)
    policies = policies_of(connection, reach, relations)
    yield from table_findings(plan, relations, oids)
    expectations = Expectations(connection, plan, path)
    yield from policy_findings(plan, expectations, relations, policies)
    if plan.rules:
        yield from right_findings(connection, plan, expectations, relations)
    yield from inheritance_findings(reach, relations, policies)
    yield from grant_findings(connection, reach, relations)
    views = views_of(connection, reach, relations)
    yield from view_findings(reach, views)
    yield from function_findings(connection, plan, reach, relations, [view.relname for view in views])
    yield from trigger_findings(connection, plan, relations)
    yield from rule_findings(connection, relations)
    if attempts and not reach.bypasses_policies:
        connection.execute(text("SELECT set_config('search_path', :path, true)"), {"path": path})
        yield from attempt_findings(connection, plan, relations)
