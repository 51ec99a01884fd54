"""Policies of rights in migrations: the operations create them, and autogenerate compares their rules."""

from __future__ import annotations

from typing import Any

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine

from dotmac_database import Policy, RowLevelSecurity
from dotmac_database.tenancy.alembic import compare_tenant_rls

from .row_models import POLICY, Base, Note


def _migration(connection: Connection, rls: RowLevelSecurity) -> Any:
    process = compare_tenant_rls(Base.metadata, rls=rls)
    context = MigrationContext.configure(connection, opts={"target_metadata": Base.metadata})
    script = produce_migrations(context, Base.metadata)
    process(context, None, [script])
    return script


def _run(connection: Connection, operations: Any) -> str:
    code = render_python_code(operations)
    op = Operations(MigrationContext.configure(connection))
    body = "\n".join(line.removeprefix("    ") for line in code.splitlines())
    exec(body, {"op": op})
    return code


def test_autogenerate_creates_replaces_and_drops_them(owner_engine: Engine) -> None:
    for secret in (None, "a secret of the tests"):
        first = RowLevelSecurity(Base.metadata, policies=[POLICY], secret=secret)
        other = RowLevelSecurity(Base.metadata, policies=[Policy(Note, read=True)], secret=secret)
        without = RowLevelSecurity(Base.metadata, secret=secret)
        with owner_engine.connect() as connection:
            for rls, expected in (
                (first, "create_row_policies"),
                (other, "create_row_policies"),
                (without, "drop_row"),
            ):
                script = _migration(connection, rls)
                assert f"op.{expected}" in _run(connection, script.upgrade_ops)
                assert "row_policies" not in _run(connection, _migration(connection, rls).upgrade_ops)
                if rls is first and secret is None:
                    assert [each for each in rls.verify(connection) if each.object.startswith("public.notes")] == []
            connection.rollback()
