"""Row-level security in migrations; needs Alembic.

Import this module in ``env.py``; then a migration says

    op.enable_tenant_rls("users")
    op.disable_tenant_rls("users")

and, with ``process_revision_directives=compare_tenant_rls(target_metadata)`` given to ``context.configure()``,
autogenerate writes those lines itself, for tables of tenants that have no policy in the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, Operations
from alembic.operations import ops as alembic_ops
from sqlalchemy import Connection, MetaData, Table, text

from ..errors import ValidationError
from .policies import ACROSS, POLICY, names_tenant, owned, policy, protected_tables, remove


@Operations.register_operation("enable_tenant_rls")
class EnableTenantRls(MigrateOperation):
    """Put a table under row-level security."""

    def __init__(
        self,
        table: str,
        column: str = "tenant_id",
        *,
        column_type: str | None = None,
        condition: str | None = None,
        schema: str | None = None,
        all_tenants: bool = True,
    ) -> None:
        self.table = table
        self.column = column
        self.column_type = column_type
        self.condition = condition
        self.schema = schema
        self.all_tenants = all_tenants

    @classmethod
    def enable_tenant_rls(
        cls,
        operations: Operations,
        table: str,
        column: str = "tenant_id",
        *,
        column_type: str | None = None,
        condition: str | None = None,
        schema: str | None = None,
        all_tenants: bool = True,
    ) -> None:
        """ENABLE and FORCE row-level security with the tenant's policy; on other databases than PostgreSQL nothing.

        ``column_type`` is the column's type in SQL where it is no text (``"uuid"``, ``"integer"``). ``condition``
        stands in for the comparison on a table that has no tenant of its own. ``all_tenants`` is that of
        `RowLevelSecurity`.
        """
        operations.invoke(
            cls(
                table,
                column,
                column_type=column_type,
                condition=condition,
                schema=schema,
                all_tenants=all_tenants,
            )
        )

    def reverse(self) -> MigrateOperation:
        """What undoes it."""
        return DisableTenantRls(self.table, schema=self.schema, enabled=self)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return "enable_tenant_rls", self.schema, self.table


@Operations.register_operation("disable_tenant_rls")
class DisableTenantRls(MigrateOperation):
    """Take a table out of row-level security."""

    def __init__(self, table: str, *, schema: str | None = None, enabled: EnableTenantRls | None = None) -> None:
        self.table = table
        self.schema = schema
        self.enabled = enabled

    @classmethod
    def disable_tenant_rls(cls, operations: Operations, table: str, *, schema: str | None = None) -> None:
        """Drop the tenant's policy and turn row-level security off; on other databases than PostgreSQL nothing."""
        operations.invoke(cls(table, schema=schema))

    def reverse(self) -> MigrateOperation:
        """What undoes it."""
        return self.enabled or EnableTenantRls(self.table, schema=self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return "disable_tenant_rls", self.schema, self.table


def _run(operations: Operations, statements: Iterable[str]) -> None:
    for statement in statements:
        operations.execute(text(statement.replace(":", "\\:")))


@Operations.implementation_for(EnableTenantRls)
def _enable(operations: Operations, operation: EnableTenantRls) -> None:
    dialect = operations.migration_context.dialect
    if dialect.name != "postgresql":
        return
    prepare = dialect.identifier_preparer
    name = prepare.quote(operation.table)
    name = f"{prepare.quote_schema(operation.schema)}.{name}" if operation.schema else name
    condition = operation.condition or names_tenant(prepare.quote(operation.column), operation.column_type)
    if operation.all_tenants:
        condition = f"({condition}) OR current_setting('{ACROSS}', true) = 'on'"
    _run(operations, policy(name, condition))


@Operations.implementation_for(DisableTenantRls)
def _disable(operations: Operations, operation: DisableTenantRls) -> None:
    dialect = operations.migration_context.dialect
    if dialect.name != "postgresql":
        return
    prepare = dialect.identifier_preparer
    name = prepare.quote(operation.table)
    _run(operations, remove(f"{prepare.quote_schema(operation.schema)}.{name}" if operation.schema else name))


@renderers.dispatch_for(EnableTenantRls)
def _render_enable(_context: AutogenContext, operation: EnableTenantRls) -> str:
    given = [repr(operation.table)]
    if operation.column != "tenant_id":
        given.append(repr(operation.column))
    for name in ("column_type", "condition", "schema"):
        value = getattr(operation, name)
        if value is not None:
            given.append(f"{name}={value!r}")
    if not operation.all_tenants:
        given.append("all_tenants=False")
    return f"op.enable_tenant_rls({', '.join(given)})"


@renderers.dispatch_for(DisableTenantRls)
def _render_disable(_context: AutogenContext, operation: DisableTenantRls) -> str:
    schema = "" if operation.schema is None else f", schema={operation.schema!r}"
    return f"op.disable_tenant_rls({operation.table!r}{schema})"


def enable_for(table: Table, *, all_tenants: bool = True) -> EnableTenantRls:
    """The operation for a tenants' table. Raises `ValidationError` for another."""
    protected = protected_tables(table.metadata)
    if table not in protected:
        raise ValidationError(f"{table.name} holds no tenants' rows.")
    column = protected[table]
    if column is None:
        return EnableTenantRls(table.name, condition=owned(table, None), schema=table.schema, all_tenants=all_tenants)
    condition = owned(table, column.name)
    _, cast, kind = condition.rpartition("::")
    return EnableTenantRls(
        table.name,
        column.name,
        column_type=kind if cast else None,
        schema=table.schema,
        all_tenants=all_tenants,
    )


def compare_tenant_rls(metadata: MetaData, *, all_tenants: bool = True) -> Callable[..., None]:
    """A ``process_revision_directives`` that adds the policies that tenants' tables of ``metadata`` lack."""

    def process(context: Any, _revision: Any, directives: list[Any]) -> None:
        connection: Connection | None = context.connection
        if connection is None or connection.dialect.name != "postgresql" or not directives:
            return
        held = {tuple(row) for row in connection.execute(text(_HELD), {"policy": POLICY})}
        default = connection.dialect.default_schema_name
        script = directives[0]
        if script.upgrade_ops is None or script.downgrade_ops is None:
            return
        for table in protected_tables(metadata):
            if (table.schema or default, table.name) in held:
                continue
            operation = enable_for(table, all_tenants=all_tenants)
            script.upgrade_ops.ops.append(operation)
            if not _creates(script.upgrade_ops, table):
                script.downgrade_ops.ops.insert(0, operation.reverse())

    return process


def _creates(operations: Any, table: Table) -> bool:
    """Whether the same migration makes the table, whose policy then goes when it is dropped."""
    return any(
        isinstance(each, alembic_ops.CreateTableOp) and (each.table_name, each.schema) == (table.name, table.schema)
        for each in operations.ops
    )


_HELD = """
SELECT n.nspname, c.relname FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.polname = :policy AND c.relrowsecurity AND c.relforcerowsecurity
"""
