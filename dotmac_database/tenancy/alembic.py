"""Row-level security in migrations. Requires Alembic.

Import this module in ``env.py``. Then a migration can contain

    op.enable_tenant_rls("users")
    op.disable_tenant_rls("users")

and, with ``process_revision_directives=compare_tenant_rls(target_metadata)`` given to ``context.configure()``,
autogenerate adds these lines for tenants' tables that have no policy in the database.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, Operations
from alembic.operations import ops as alembic_ops
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, Table, text

from ..dialects.features import has_policies
from ..errors import ValidationError
from ..history.own_tables import keep_own_tables
from .rls.policies import (
    POLICY,
    drop_statements,
    ownership_condition,
    policy_statements,
    protected_tables,
    quoted_name,
    run_ddl,
    tenant_condition,
    type_name,
    with_all_tenants,
)
from .rls.row_level_security import RowLevelSecurity
from .rls.row_policies import RowPolicy
from .rls.signature import ACTOR_SETTING, ALL_TENANTS_SETTING, SCHEMA, SETTING, function_statements


@Operations.register_operation("enable_tenant_rls")
class EnableTenantRls(MigrateOperation):
    """Enables row-level security for a table."""

    def __init__(
        self,
        table: str,
        column: str = "tenant_id",
        *,
        column_type: str | None = None,
        condition: str | None = None,
        schema: str | None = None,
        all_tenants: bool = True,
        signed: bool = False,
        before: EnableTenantRls | None = None,
    ) -> None:
        self.table = table
        self.column = column
        self.column_type = column_type
        self.condition = condition
        self.schema = schema
        self.all_tenants = all_tenants
        self.signed = signed
        self.before = before

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
        signed: bool = False,
    ) -> None:
        """ENABLE and FORCE row-level security with the tenant's policy. Does nothing on databases but PostgreSQL.

        ``column_type`` is the SQL type of the tenant column, such as ``"uuid"``; None: a text type. ``condition`` is
        the policy's condition for a table without a tenant column. ``all_tenants`` must be the same as in
        `RowLevelSecurity`. ``signed`` must be True if the `RowLevelSecurity` has a ``secret``; then the functions that
        verify signatures are created too. The secret itself is never in a migration; install it with
        `RowLevelSecurity.install_secret`.
        """
        operations.invoke(
            cls(
                table,
                column,
                column_type=column_type,
                condition=condition,
                schema=schema,
                all_tenants=all_tenants,
                signed=signed,
            )
        )

    def reverse(self) -> MigrateOperation:
        """The reverse operation: drop the policy, or create the previous policy."""
        return self.before or DisableTenantRls(self.table, schema=self.schema, enabled=self)

    def to_diff_tuple(self) -> tuple[str, str | None, str]:
        """The operation as a tuple, for ``alembic check``."""
        return "enable_tenant_rls", self.schema, self.table


@Operations.register_operation("disable_tenant_rls")
class DisableTenantRls(MigrateOperation):
    """Disables row-level security for a table."""

    def __init__(self, table: str, *, schema: str | None = None, enabled: EnableTenantRls | None = None) -> None:
        self.table = table
        self.schema = schema
        self.enabled = enabled

    @classmethod
    def disable_tenant_rls(cls, operations: Operations, table: str, *, schema: str | None = None) -> None:
        """Drop the tenant's policy and disable row-level security. Does nothing on databases but PostgreSQL."""
        operations.invoke(cls(table, schema=schema))

    def reverse(self) -> MigrateOperation:
        """The reverse operation."""
        return self.enabled or EnableTenantRls(self.table, schema=self.schema)

    def to_diff_tuple(self) -> tuple[str, str | None, str]:
        """The operation as a tuple, for ``alembic check``."""
        return "disable_tenant_rls", self.schema, self.table


@Operations.register_operation("create_row_policies")
class CreateRowPolicies(MigrateOperation):
    """Creates the policies of actors' rights on a table."""

    def __init__(
        self, table: str, policies: Sequence[RowPolicy], *, schema: str | None = None, signed: bool = False
    ) -> None:
        self.table = table
        self.policies = [RowPolicy(*each) for each in policies]
        self.schema = schema
        self.signed = signed

    @classmethod
    def create_row_policies(
        cls,
        operations: Operations,
        table: str,
        policies: Sequence[RowPolicy],
        *,
        schema: str | None = None,
        signed: bool = False,
    ) -> None:
        """Create or replace the policies of actors' rights. Does nothing on databases but PostgreSQL.

        Each of ``policies`` is a name, a command, the condition of USING and that of WITH CHECK, as autogenerate writes
        them. ``signed`` must be True if the `RowLevelSecurity` has a ``secret``.
        """
        operations.invoke(cls(table, policies, schema=schema, signed=signed))

    def reverse(self) -> MigrateOperation:
        """The reverse operation: drop the policies."""
        return DropRowPolicies(self.table, [each.name for each in self.policies], schema=self.schema)

    def to_diff_tuple(self) -> tuple[str, str | None, str]:
        """The operation as a tuple, for ``alembic check``."""
        return "create_row_policies", self.schema, self.table


@Operations.register_operation("drop_row_policies")
class DropRowPolicies(MigrateOperation):
    """Drops the policies of actors' rights on a table."""

    def __init__(self, table: str, names: Sequence[str], *, schema: str | None = None) -> None:
        self.table = table
        self.names = list(names)
        self.schema = schema

    @classmethod
    def drop_row_policies(
        cls, operations: Operations, table: str, names: Sequence[str], *, schema: str | None = None
    ) -> None:
        """Drop the policies with these names. Does nothing on databases but PostgreSQL."""
        operations.invoke(cls(table, names, schema=schema))

    def to_diff_tuple(self) -> tuple[str, str | None, str]:
        """The operation as a tuple, for ``alembic check``."""
        return "drop_row_policies", self.schema, self.table


@Operations.implementation_for(CreateRowPolicies)
def _create_row_policies(operations: Operations, operation: CreateRowPolicies) -> None:
    if not has_policies(operations.migration_context.dialect.name):
        return
    if operation.signed:
        run_ddl(operations.execute, function_statements((SETTING, ALL_TENANTS_SETTING, ACTOR_SETTING)))
    name = quoted_name(operation.table, operation.schema)
    for policy in operation.policies:
        run_ddl(operations.execute, policy.create(name))


@Operations.implementation_for(DropRowPolicies)
def _drop_row_policies(operations: Operations, operation: DropRowPolicies) -> None:
    if has_policies(operations.migration_context.dialect.name):
        table = quoted_name(operation.table, operation.schema)
        run_ddl(operations.execute, [f"DROP POLICY IF EXISTS {name} ON {table}" for name in operation.names])


@renderers.dispatch_for(CreateRowPolicies)
def _render_create_row_policies(_context: AutogenContext, operation: CreateRowPolicies) -> str:
    lines = "".join(f"    {tuple(each)!r},\n" for each in operation.policies)
    options = "" if operation.schema is None else f", schema={operation.schema!r}"
    options += ", signed=True" if operation.signed else ""
    return f"op.create_row_policies({operation.table!r}, [\n{lines}]{options})"


@renderers.dispatch_for(DropRowPolicies)
def _render_drop_row_policies(_context: AutogenContext, operation: DropRowPolicies) -> str:
    schema = "" if operation.schema is None else f", schema={operation.schema!r}"
    return f"op.drop_row_policies({operation.table!r}, {operation.names!r}{schema})"


@Operations.implementation_for(EnableTenantRls)
def _enable(operations: Operations, operation: EnableTenantRls) -> None:
    if not has_policies(operations.migration_context.dialect.name):
        return
    signed = operation.signed
    condition = operation.condition or tenant_condition(
        quoted_name(operation.column), operation.column_type, signed=signed
    )
    if operation.all_tenants:
        condition = with_all_tenants(condition, signed=signed)
    if signed:
        run_ddl(operations.execute, function_statements())
    run_ddl(operations.execute, policy_statements(quoted_name(operation.table, operation.schema), condition))


@Operations.implementation_for(DisableTenantRls)
def _disable(operations: Operations, operation: DisableTenantRls) -> None:
    if has_policies(operations.migration_context.dialect.name):
        run_ddl(operations.execute, drop_statements(quoted_name(operation.table, operation.schema)))


@renderers.dispatch_for(EnableTenantRls)
def _render_enable(_context: AutogenContext, operation: EnableTenantRls) -> str:
    arguments = [repr(operation.table)]
    if operation.column != "tenant_id":
        arguments.append(repr(operation.column))
    for name in ("column_type", "condition", "schema"):
        value = getattr(operation, name)
        if value is not None:
            arguments.append(f"{name}={value!r}")
    if not operation.all_tenants:
        arguments.append("all_tenants=False")
    if operation.signed:
        arguments.append("signed=True")
    return f"op.enable_tenant_rls({', '.join(arguments)})"


@renderers.dispatch_for(DisableTenantRls)
def _render_disable(_context: AutogenContext, operation: DisableTenantRls) -> str:
    schema = "" if operation.schema is None else f", schema={operation.schema!r}"
    return f"op.disable_tenant_rls({operation.table!r}{schema})"


def enable_for(table: Table, *, all_tenants: bool = True, signed: bool = False) -> EnableTenantRls:
    """The operation for a tenants' table. Raises `ValidationError` for any other table."""
    protected = protected_tables(table.metadata)
    if table not in protected:
        raise ValidationError(f"{table.name} contains no tenants' rows.")
    column = protected[table]
    return EnableTenantRls(
        table.name,
        "tenant_id" if column is None else column.name,
        column_type=None if column is None else type_name(column),
        condition=ownership_condition(table, None, signed=signed) if column is None else None,
        schema=table.schema,
        all_tenants=all_tenants,
        signed=signed,
    )


def compare_tenant_rls(
    metadata: MetaData, *, all_tenants: bool = True, signed: bool = False, rls: RowLevelSecurity | None = None
) -> Callable[..., None]:
    """A ``process_revision_directives`` that adds the missing policies of tenants' tables in ``metadata``.

    ``rls``: also its policies of actors' rights, if they are missing or were made of other rules; ``all_tenants`` and
    ``signed`` are then those of ``rls``. Rules are compared by the comments of the policies; `RowLevelSecurity.verify`
    compares the policies themselves.
    ``signed``: a policy that accepts settings without a signature is replaced. The toolkit's own tables are
    never dropped.
    """
    if rls is not None:
        all_tenants, signed = rls.all_tenants, rls.signer is not None

    def process(context: MigrationContext, _revision: object, directives: list[alembic_ops.MigrationScript]) -> None:
        connection: Connection | None = context.connection
        if directives:
            keep_own_tables(directives[0])
        if connection is None or not has_policies(connection.dialect.name) or not directives:
            return
        policies = {tuple(row[:2]): row.signed for row in connection.execute(text(_POLICIES), _PARAMETERS)}
        default = connection.dialect.default_schema_name
        script = directives[0]
        if script.upgrade_ops is None or script.downgrade_ops is None:
            return
        for operations in (script.upgrade_ops, script.downgrade_ops):
            operations.ops[:] = [each for each in operations.ops if not _on_keys(each)]
        for table in protected_tables(metadata):
            before = policies.get((table.schema or default, table.name))
            if before is signed:
                continue
            operation = enable_for(table, all_tenants=all_tenants, signed=signed)
            if before is not None:
                operation.before = enable_for(table, all_tenants=all_tenants, signed=before)
            script.upgrade_ops.ops.append(operation)
            if not _creates(script.upgrade_ops, table):
                script.downgrade_ops.ops.insert(0, operation.reverse())
        if rls is not None:
            _compare_row_policies(connection, rls, script.upgrade_ops, script.downgrade_ops)

    return process


def _compare_row_policies(
    connection: Connection, rls: RowLevelSecurity, upgrade: alembic_ops.UpgradeOps, downgrade: alembic_ops.DowngradeOps
) -> None:
    """Add the policies of rights that are missing or have other comments, and drop those of models without rules."""
    marks: dict[tuple[str, str], dict[str, str | None]] = {}
    for row in connection.execute(text(_ROW_POLICIES)):
        marks.setdefault((row.schema, row.table), {})[row.name] = row.mark
    default = connection.dialect.default_schema_name
    ruled = rls.row_policies()
    for table in protected_tables(rls.metadata):
        present = marks.get((table.schema or default or "", table.name), {})
        policies = ruled.get(table, [])
        if present == {each.name: each.mark for each in policies}:
            continue
        gone = sorted(present.keys() - {each.name for each in policies})
        if gone:
            upgrade.ops.append(DropRowPolicies(table.name, gone, schema=table.schema))
        if policies:
            operation = CreateRowPolicies(table.name, policies, schema=table.schema, signed=rls.signer is not None)
            upgrade.ops.append(operation)
            if not _creates(upgrade, table):
                downgrade.ops.insert(0, operation.reverse())


def _on_keys(operation: MigrateOperation) -> bool:
    """Whether an operation is on the toolkit's table of keys, which is in no metadata."""
    return getattr(operation, "schema", None) == SCHEMA and getattr(operation, "table_name", None) == "signing_keys"


def _creates(operations: alembic_ops.UpgradeOps, table: Table) -> bool:
    """Whether the same migration creates the table. Then dropping the table also drops its policy."""
    return any(
        isinstance(each, alembic_ops.CreateTableOp) and (each.table_name, each.schema) == (table.name, table.schema)
        for each in operations.ops
    )


_POLICIES = """
SELECT n.nspname, c.relname, EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid
  AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = to_regprocedure(:function)) AS signed
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.polname = :policy AND c.relrowsecurity AND c.relforcerowsecurity
"""
_ROW_POLICIES = """
SELECT n.nspname AS schema, c.relname AS table, p.polname AS name, obj_description(p.oid, 'pg_policy') AS mark
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT p.polpermissive AND p.polname IN ('dotmac_read', 'dotmac_create', 'dotmac_update', 'dotmac_delete')
"""
_PARAMETERS = {"policy": POLICY, "function": f"{SETTING}()"}
