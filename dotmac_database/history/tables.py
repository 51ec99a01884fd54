"""The history tables: which tables have one, and what `metadata.create_all` creates for it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TypeAlias

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Identity,
    Index,
    Integer,
    String,
    Table,
    Text,
    event,
)
from sqlalchemy import exc as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapper
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine

from ..dialects.history_triggers import (
    MarkKind,
    Recorded,
    create_statements,
    drop_statements,
    has_history,
    history_name,
)
from ..errors import MisuseError
from ..models.expressions import is_private
from ..models.table_columns import role_key
from ..models.traits import ROLES
from ..types import UTCDateTime, undecorated

_SOURCE = "_dotmac_history_of"
_HISTORY = "_dotmac_history"
_ROLES = "_dotmac_history_roles"
"""The attributes of tables: of a history table the table whose history it has, and of that table its history table, and
its tenant column with the column that marks deleted rows. Alembic would write ``info`` into migrations.
"""

ENTRY_COLUMNS = ("history_id", "at", "actor", "operation", "before", "after")
"""The columns of a history table, besides the primary key and the tenant of the row."""

AnyColumn: TypeAlias = Column[object]


class _Values(TypeDecorator[object]):
    """JSON, which is JSONB on PostgreSQL.

    Alembic writes a type into a migration as its ``__module__`` and its repr, and can't write a variant with JSONB.
    """

    impl = JSON
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(none_as_null=True)
        self.__module__ = "sa"

    def __repr__(self) -> str:
        return "JSON().with_variant(sa.dialects.postgresql.JSONB(), 'postgresql')"

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[object]:
        """The type on a database."""
        return _JSON.dialect_impl(dialect)


_JSON = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def history_of(table: Table) -> Table | None:
    """The history table of a table; None if it has no history."""
    history: Table | None = vars(table).get(_HISTORY)
    return history


def with_histories(tables: Iterable[Table]) -> list[Table]:
    """The tables, each followed by its history table if it has one."""
    return [each for table in tables for each in (table, history_of(table)) if each is not None]


def source_of(table: Table) -> Table | None:
    """The table whose history a table has; None if it is no history table."""
    source: Table | None = vars(table).get(_SOURCE)
    return source


def add_history(mapper: Mapper[object]) -> None:
    """Add the history table of a class to its metadata. Raises `MisuseError` if the class can't have a history."""
    name, table = mapper.class_.__name__, mapper.local_table
    if not isinstance(table, Table):
        raise MisuseError(f"{name} is not mapped on a table, so it can't have a history.")
    inherited = mapper.inherits is not None and not mapper.concrete
    if inherited and mapper.inherits is not None and mapper.inherits.local_table is not table:
        raise MisuseError(
            f"{name} has a table of its own besides its parent's: joined inheritance can't have a history. Use "
            "single-table inheritance, or derive the classes from HistoryMixin that have only one table."
        )
    if history_of(table) is not None:
        return  # single-table inheritance
    if not table.primary_key.columns:
        raise MisuseError(f"{name} has no primary key, so it can't have a history.")
    tenant = _role(mapper, table, "tenant")
    copied = [*table.primary_key.columns]
    if tenant is not None and tenant not in copied:
        copied.append(tenant)
    clash = next((each.name for each in copied if each.name in ENTRY_COLUMNS), None)
    if clash is not None:
        raise MisuseError(f"{name}.{clash} can't be a key of a table with a history, which has such a column itself.")
    history = Table(
        history_name(table.name),
        table.metadata,
        Column("history_id", BigInteger().with_variant(Integer(), "sqlite"), Identity(always=True), primary_key=True),
        *(Column(each.name, _type_of(name, each), nullable=each.nullable, autoincrement=False) for each in copied),
        Column("at", UTCDateTime, nullable=False),
        Column("actor", Text),
        Column("operation", String(20), nullable=False),
        Column("before", _Values),
        Column("after", _Values),
        schema=table.schema,
    )
    Index(
        f"ix_{history.name}_row"[:63],
        *(history.c[each.name] for each in table.primary_key.columns),
        history.c.history_id,
    )
    setattr(history, _SOURCE, table)
    setattr(table, _HISTORY, history)
    setattr(table, _ROLES, (tenant, _mark(mapper, table)))
    history.add_is_dependent_on(table)
    # The table is bound, since `to_metadata` copies the listeners, but not the attributes.
    event.listen(history, "after_create", partial(_create, table))
    event.listen(history, "before_drop", partial(_drop, table))


def tenant_of(table: Table) -> AnyColumn | None:
    """The tenant column of a table with a history; None if it has none."""
    tenant: AnyColumn | None = vars(table)[_ROLES][0]
    return tenant


def recorded(table: Table) -> Recorded:
    """What the triggers of a table with a history must know. It is read anew, since classes can add columns."""
    tenant, mark = vars(table)[_ROLES]
    keys = tuple(each.name for each in table.primary_key.columns)
    private = tuple(each.name for each in table.columns if is_private(each))
    return Recorded(
        table.name,
        table.schema,
        keys,
        None if tenant is None or tenant.name in keys else tenant.name,
        None if mark is None else mark.name,
        _mark_kind(mark),
        private,
        tuple(each.name for each in table.columns if each.name not in private),
        by_row=bool(table.dialect_options["postgresql"]["partition_by"]),
    )


def run_statements(connection: Connection, statements: Iterable[str]) -> None:
    """Run DDL unchanged, whatever the driver's parameters look like."""
    for statement in statements:
        doubled = statement.replace("%", "%%") if connection.dialect.paramstyle in ("format", "pyformat") else statement
        connection.exec_driver_sql(doubled)


def _create(table: Table, _history: Table, connection: Connection, **_: object) -> None:
    if has_history(connection.dialect.name):
        run_statements(connection, create_statements(connection, recorded(table)))


def _drop(table: Table, _history: Table, connection: Connection, **_: object) -> None:
    if has_history(connection.dialect.name):
        run_statements(connection, drop_statements(connection, recorded(table)))


def _role(mapper: Mapper[object], table: Table, role: str) -> AnyColumn | None:
    """The column of a role. `traits_of` is not used, since it needs the class's relationships, which come later."""
    name = role_key(mapper, role) or ROLES[role]
    column = mapper.columns.get(name)
    if column is None:
        column = table.columns.get(name)
    return column if isinstance(column, Column) and column.table is table else None


def _mark(mapper: Mapper[object], table: Table) -> AnyColumn | None:
    mark = _role(mapper, table, "is_deleted")
    return _role(mapper, table, "deleted_at") if mark is None else mark


def _mark_kind(mark: AnyColumn | None) -> MarkKind:
    """As `models.living.not_deleted` reads the column."""
    kind = None if mark is None else undecorated(mark.type)
    if isinstance(kind, Boolean):
        return MarkKind.FLAG
    return MarkKind.NUMBER if isinstance(kind, Integer) else MarkKind.TIME


def _type_of(name: str, column: AnyColumn) -> TypeEngine[object]:
    """The type of a column, also if it comes from the column to which it refers."""
    if not isinstance(column.type, NullType):
        return column.type
    for key in column.foreign_keys:
        try:
            return key.column.type
        except sa.NoReferencedTableError:
            continue
    raise MisuseError(
        f"{name}.{column.name} has the type of a column that is not defined yet: give it a type, for its history.",
        field=column.name,
    )
