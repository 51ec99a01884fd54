"""The triggers of history tables in migrations. Requires Alembic.

Import this module in ``env.py``. Autogenerate creates the history tables as all others. For the triggers a migration
can contain

    op.enable_history("users", keys=["id"], tenant="tenant_id")
    op.disable_history("users")

and, with ``process_revision_directives=compare_history(target_metadata)`` given to ``context.configure()``,
autogenerate adds these lines where the triggers are missing or not as the classes need them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, Operations
from alembic.operations import ops as alembic_ops
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, inspect

from ..dialects.history_triggers import (
    MarkKind,
    Recorded,
    create_statements,
    drop_statements,
    has_history,
    is_current,
    needs_columns,
)
from ..errors import MisuseError
from ..models.sorted_tables import sorted_tables
from .own_tables import keep_own_tables
from .tables import history_of, recorded, run_statements


@Operations.register_operation("enable_history")
class EnableHistory(MigrateOperation):
    """Creates the triggers that record the history of a table."""

    def __init__(self, recorded: Recorded) -> None:
        self.recorded = recorded

    @classmethod
    def enable_history(
        cls,
        operations: Operations,
        table: str,
        *,
        keys: Sequence[str],
        tenant: str | None = None,
        mark: str | None = None,
        mark_kind: str = MarkKind.FLAG.value,
        private: Sequence[str] = (),
        by_row: bool = False,
        schema: str | None = None,
    ) -> None:
        """Create the triggers of a table, or replace them. Its history table must exist.

        ``keys`` is the primary key; ``tenant`` the tenant column, if it is not part of it; ``mark`` the column that
        marks deleted rows, by being true (``"flag"``), 1 (``"number"``) or not NULL (``"time"``); ``private`` are the
        columns that are not recorded; ``by_row`` is needed for a partitioned table. On SQLite the triggers name the
        table's columns, so repeat it at the end of each migration that changes them or that recreates the table.
        """
        kind = MarkKind(mark_kind)
        operations.invoke(cls(Recorded(table, schema, tuple(keys), tenant, mark, kind, tuple(private), by_row=by_row)))

    def reverse(self) -> MigrateOperation:
        """The reverse operation."""
        return DisableHistory(self.recorded.table, schema=self.recorded.schema, enabled=self)

    def to_diff_tuple(self) -> tuple[str, str | None, str]:
        """The operation as a tuple, for ``alembic check``."""
        return "enable_history", self.recorded.schema, self.recorded.table


@Operations.register_operation("disable_history")
class DisableHistory(MigrateOperation):
    """Drops the triggers that record the history of a table."""

    def __init__(self, table: str, *, schema: str | None = None, enabled: EnableHistory | None = None) -> None:
        self.table = table
        self.schema = schema
        self.enabled = enabled

    @classmethod
    def disable_history(cls, operations: Operations, table: str, *, schema: str | None = None) -> None:
        """Drop the triggers of a table. The history table and its entries stay."""
        operations.invoke(cls(table, schema=schema))

    def reverse(self) -> MigrateOperation:
        """The reverse operation. Raises `MisuseError` if it is not known how the triggers were."""
        if self.enabled is None:
            raise MisuseError("disable_history() does not say how to enable it again.")
        return self.enabled

    def to_diff_tuple(self) -> tuple[str, str | None, str]:
        """The operation as a tuple, for ``alembic check``."""
        return "disable_history", self.schema, self.table


@Operations.implementation_for(EnableHistory)
def _enable(operations: Operations, operation: EnableHistory) -> None:
    connection = _connection(operations)
    if has_history(connection.dialect.name):
        run_statements(connection, create_statements(connection, _with_columns(connection, operation.recorded)))


@Operations.implementation_for(DisableHistory)
def _disable(operations: Operations, operation: DisableHistory) -> None:
    connection = _connection(operations)
    if has_history(connection.dialect.name):
        run_statements(connection, drop_statements(connection, Recorded(operation.table, operation.schema, ())))


def _connection(operations: Operations) -> Connection:
    connection: Connection | None = operations.migration_context.connection
    if connection is None:
        raise MisuseError("The triggers of a history can't be written in offline mode (--sql): they need the database.")
    return connection


def _with_columns(connection: Connection, recorded_: Recorded) -> Recorded:
    """With the columns that the table has now, if the triggers name them."""
    if not needs_columns(connection.dialect.name):
        return recorded_
    columns = inspect(connection).get_columns(recorded_.table, schema=recorded_.schema)
    names = tuple(each["name"] for each in columns if each["name"] not in recorded_.private)
    return replace(recorded_, columns=names)


@renderers.dispatch_for(EnableHistory)
def _render_enable(_context: AutogenContext, operation: EnableHistory) -> str:
    of = operation.recorded
    arguments = [repr(of.table), f"keys={list(of.keys)!r}"]
    arguments += [f"{name}={value!r}" for name, value in (("tenant", of.tenant), ("mark", of.mark)) if value]
    if of.mark_kind is not MarkKind.FLAG and of.mark:
        arguments.append(f"mark_kind={of.mark_kind.value!r}")
    if of.private:
        arguments.append(f"private={list(of.private)!r}")
    if of.by_row:
        arguments.append("by_row=True")
    if of.schema is not None:
        arguments.append(f"schema={of.schema!r}")
    return f"op.enable_history({', '.join(arguments)})"


@renderers.dispatch_for(DisableHistory)
def _render_disable(_context: AutogenContext, operation: DisableHistory) -> str:
    schema = "" if operation.schema is None else f", schema={operation.schema!r}"
    return f"op.disable_history({operation.table!r}{schema})"


def compare_history(metadata: MetaData, then: Callable[..., None] | None = None) -> Callable[..., None]:
    """A ``process_revision_directives`` that adds the triggers which the tables of ``metadata`` need.

    ``then`` is another one, which is called afterwards, such as ``compare_tenant_rls(metadata)``. The toolkit's own
    tables, such as ``dotmac_transfers``, need not be in the metadata, and are never dropped.
    """

    def process(context: MigrationContext, revision: object, directives: list[alembic_ops.MigrationScript]) -> None:
        connection: Connection | None = context.connection
        if directives:
            keep_own_tables(directives[0])
        if connection is not None and directives and has_history(connection.dialect.name):
            _add_triggers(connection, metadata, directives[0])
        if then is not None:
            then(context, revision, directives)

    return process


def _add_triggers(connection: Connection, metadata: MetaData, script: alembic_ops.MigrationScript) -> None:
    upgrade, downgrade = script.upgrade_ops, script.downgrade_ops
    if upgrade is None or downgrade is None:
        return
    changed = {getattr(each, "table_name", None) for each in upgrade.ops}
    for table in sorted_tables(metadata):
        history = history_of(table)
        if history is None:
            continue
        of = recorded(table)
        recreated = needs_columns(connection.dialect.name) and table.name in changed
        if not recreated and is_current(connection, of):
            continue
        operation = EnableHistory(of)
        upgrade.ops.append(operation)
        if history.name in changed:
            downgrade.ops.insert(0, operation.reverse())
