"""The database of a transfer: its tables as they are, the tenant of a transaction, and what the role may see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from sqlalchemy import Connection, Engine, MetaData, Table
from sqlalchemy import exc as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from ..dialects import cause_of, translate
from ..dialects.stored import stored_rows_of
from ..dialects.stored_rows import Condition, StoredColumn, StoredRows
from ..engines import Database
from ..errors import MisuseError, ValidationError
from ..tenancy import ALL_TENANTS, RowLevelSecurity
from ..tenancy.rls.row_level_security import announce_tenant
from ..tenancy.rls.visibility import check_visible
from ..tenancy.values import valid_tenant
from ..transactions import idempotency_metadata
from .holdings import Holding, Holdings, holdings_of
from .order import Order, order_of

Metadata: TypeAlias = MetaData | Iterable[MetaData]


@contextmanager
def translating() -> Iterator[None]:
    """Raise SQLAlchemy's exceptions as the toolkit's. An error of a file stays what it is, as when the disk is full."""
    try:
        yield
    except sa.SQLAlchemyError as error:
        raise translate(error) from cause_of(error)


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A database and a tenant. ``columns`` are those that the database's tables have; a missing table has none."""

    engine: Engine
    tenant: object
    rls: RowLevelSecurity | None
    rows: StoredRows
    holdings: Holdings
    order: Order
    columns: dict[Table, list[StoredColumn]] = field(default_factory=dict)
    confined: bool = False
    """Whether row-level security applies to the role, so that each transaction must name the tenant."""

    @property
    def tables(self) -> list[Holding]:
        """The tables with tenants' rows that the database has, parents before children."""
        return [self.holdings.by_table[table] for table in self.order.tables if self.columns.get(table)]

    @property
    def absent(self) -> dict[str, str]:
        """The tables of the models that are no tables of the database, with a reason that can be shown."""
        tables = (each for each in self.holdings.by_table if not self.columns.get(each))
        reason = "the database has no such table; if it is a view, its rows are those of other tables"
        return {each.fullname: reason for each in tables if each.metadata is not idempotency_metadata}

    def condition(self, holding: Holding) -> Condition:
        """The condition that a row of the table is the tenant's."""
        return self.holdings.condition(holding.table, self.tenant)

    def key(self, holding: Holding) -> list[StoredColumn]:
        """The columns of the primary key, or all columns if the table has none."""
        columns = self.columns[holding.table]
        names = [each.name for each in holding.key]
        return [each for name in names for each in columns if each.name == name] or columns

    def count(self, connection: Connection, holding: Holding) -> int:
        """How many rows of the table are the tenant's. One statement."""
        return self.rows.count(connection, holding.table, self.condition(holding))

    def has_rows(self, connection: Connection, holding: Holding) -> bool:
        """Whether a row of the table is the tenant's. One statement."""
        return self.rows.exists(connection, holding.table, self.condition(holding))

    def prepare(self, connection: Connection) -> None:
        """Prepare a transaction: the form of values, and the tenant if row-level security applies."""
        self.rows.prepare(connection, sees_all=not self.confined)
        if self.confined:
            signer = None if self.rls is None else self.rls.signer
            announce_tenant(connection, str(self.tenant), across=False, signer=signer)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is committed at the end of the block."""
        with self.engine.begin() as connection:
            self.prepare(connection)
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database, and is rolled back at the end of the block."""
        with self.engine.connect() as connection:
            self.rows.begin_reading(connection)
            self.prepare(connection)
            yield connection


def open_target(
    database: Database | Engine, metadata: Metadata, tenant_id: object, rls: RowLevelSecurity | None
) -> Target:
    """Look at the database: its tables, and whether its role sees all of the tenant's rows.

    Raises `PermissionDeniedError` if row-level security would hide rows, and `MisuseError` if the database has no table
    of these metadata with tenants' rows.
    """
    engine = _engine(database)
    if tenant_id is ALL_TENANTS:
        raise ValidationError("A transfer is of one tenant.", field="tenant_id")
    tenant = valid_tenant(tenant_id)
    rows = stored_rows_of(engine.dialect.name)
    holdings = holdings_of(metadata)
    if not holdings.by_table:
        raise MisuseError("These metadata have no table with tenants' rows.", field="metadata")
    order = order_of(holdings, rows.defers)
    with translating(), engine.connect() as connection:
        columns = {table: rows.columns(connection, table) for table in (*holdings.by_table, *holdings.shared)}
        present = [table for table in holdings.by_table if columns[table]]
        if not present:
            raise MisuseError(
                "The database has none of the tenants' tables of these metadata. Create its tables first, by a "
                "migration or create_all.",
                field="metadata",
            )
        target = Target(engine, tenant, rls, rows, holdings, order, columns, rows.is_confined(connection, present))
        target.prepare(connection)
        check_visible(connection, present, "the policies' secret")
    return target


def _engine(database: Database | Engine) -> Engine:
    if isinstance(database, Database):
        return database.engine
    if isinstance(database, AsyncEngine) or not isinstance(database, Engine):
        raise MisuseError(
            "A transfer is sync: pass a Database or a sync Engine, and call it in a thread (asyncio.to_thread).",
            field="database",
        )
    return database
