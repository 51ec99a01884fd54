"""Translates the exceptions of SQLAlchemy and the drivers to the toolkit's.

The error code (SQLSTATE, or SQLite's result code) determines the exception's class. Messages are parsed only where the
database says something nowhere else: here those of SQLite, which names columns and constraints only there, and in
`policy_refusals` those of PostgreSQL with the name of a policy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Dialect, Index, PrimaryKeyConstraint, Table, UniqueConstraint
from sqlalchemy import exc as sa
from sqlalchemy.orm import exc as orm_exc

from ..errors import (
    ConstraintViolationError,
    DatabaseError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    DuplicateEntityError,
    PermissionDeniedError,
    StaleEntityError,
    TenantIsolationError,
    TransactionError,
    ValidationError,
)
from ..models.traits import Traits, traits_of
from .policy_refusals import refused_right
from .sqlstates import FOREIGN_KEY_STATES, Kind, kind_of_sqlite, kind_of_sqlstate, refusal_of_sqlstate
from .stale_plans import is_stale_plan
from .type_errors import refused_by_type

_SQLITE_COLUMNS = re.compile(r"^(?:UNIQUE|NOT NULL) constraint failed: (?P<columns>[^:]+)$")
_SQLITE_NAME = re.compile(r"^(?:CHECK constraint failed|UNIQUE constraint failed: index): '?(?P<name>[^']+)'?$")

_SQLITE_LACKS = {
    "no such table: ": Kind.NO_TABLE,
    "no such column: ": Kind.NO_COLUMN,
    " has no column named ": Kind.NO_COLUMN,
}
"""The words about a table or a column that is not there; the code of these errors is that of any error in SQL."""


@dataclass(frozen=True, slots=True)
class Report:
    """The facts that a driver reports about a failure, in one form for all drivers."""

    kind: Kind
    sqlstate: str | None = None
    table: str | None = None
    columns: tuple[str, ...] = ()
    constraint: str | None = None
    foreign: bool = False
    """Whether the violated constraint is a foreign key."""


class translated:  # noqa: N801 - it is used like a function
    """Raise the exceptions of SQLAlchemy in this block as the toolkit's. Their messages name ``model``."""

    __slots__ = ("_model",)

    def __init__(self, model: type | None = None) -> None:
        self._model = model

    def __enter__(self) -> None:
        """Nothing is done before the block."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, (sa.SQLAlchemyError, OSError)) and not isinstance(error, DatabaseError):
            raise translate(error, self._model) from cause_of(error)


def cause_of(error: BaseException) -> BaseException:
    """The driver's exception that SQLAlchemy's ``error`` wraps; ``error`` itself if it wraps none."""
    orig = getattr(error, "orig", None)
    if orig is None:
        return error
    # SQLAlchemy's adapter for asyncpg has exceptions of its own: the driver's exception is their __cause__.
    inner = orig.__cause__
    return inner if inner is not None and hasattr(inner, "sqlstate") else orig  # type: ignore[no-any-return]  # the drivers' classes are known at run time


def lost_connection(error: BaseException) -> bool:
    """Whether ``error`` means that the connection is lost."""
    return (
        bool(getattr(error, "connection_invalidated", False))
        or (isinstance(error, OSError) and not isinstance(error, TimeoutError))
        or is_client_failure(cause_of(error))
    )


def loses_connection(dialect: Dialect, pooled: Any, error: Exception) -> bool:
    """Whether the driver's exception means that ``pooled``, the connection on which it was raised, is lost."""
    return is_client_failure(error) or dialect.is_disconnect(error, pooled.dbapi_connection, None)  # type: ignore[arg-type]  # the drivers' classes are known at run time


def is_client_failure(cause: BaseException) -> bool:
    """Whether asyncpg raised its `InternalClientError`, for example because the server ended during a statement.

    The connection can't be used any more, and it is unknown what the server has done.
    """
    # SQLAlchemy's adapter has a class of the same name.
    return type(cause).__name__ == "InternalClientError" and type(cause).__module__.startswith(
        ("asyncpg.", "sqlalchemy.")
    )


def translate(error: BaseException, model: type | None = None) -> DatabaseError:
    """The toolkit's exception for ``error``. The caller should raise it ``from cause_of(error)``."""
    who = model.__name__ if model is not None else "The database"
    if isinstance(error, DatabaseError):
        return error
    if isinstance(error, (sa.TimeoutError, TimeoutError)):
        return DatabaseTimeoutError("No connection became free or was opened in time.")
    if isinstance(error, OSError):
        return DatabaseUnavailableError("The database can't be reached.")
    if isinstance(error, orm_exc.StaleDataError):
        return StaleEntityError(f"{who}: the row was changed or deleted since it was read.")
    if isinstance(error, sa.PendingRollbackError):
        return TransactionError("An earlier error has ended this transaction; it must be rolled back.")
    if isinstance(error, sa.MissingGreenlet):
        return DatabaseError(
            f"{who}: an attribute that is not loaded was read where nothing can be awaited; name it in relationships=."
        )
    if isinstance(error, sa.DBAPIError):
        return _from_driver(error, model, who)
    if isinstance(error, sa.StatementError):
        inner = error.orig
        if isinstance(inner, DatabaseError):
            return inner
        return refused_by_type(error, model, who) or ValidationError(f"{who}: a value does not fit its column.")
    return DatabaseError(f"{who}: the statement could not be run.")


def _from_driver(error: sa.DBAPIError, model: type | None, who: str) -> DatabaseError:
    report = read(error)
    if report.sqlstate is None and (refused := refused_by_type(error, model, who)) is not None:
        return refused
    affected = _fields(report, model)
    fields = tuple(field for field in affected if not _is_private(field, report, model))
    constraint = report.constraint if not affected and not _names_private(report, model) else None
    named = f": {', '.join(fields)}" if fields else f" ({constraint})" if constraint else ""
    state = f" (SQLSTATE {report.sqlstate})" if report.sqlstate else ""
    match report.kind:
        case Kind.DUPLICATE:
            return DuplicateEntityError(f"{who} exists already{named}.", fields=fields, constraint=report.constraint)
        case Kind.CONSTRAINT:
            return _refused_by_constraint(error, report, model, named, fields)
        case Kind.INVALID:
            detail = refusal_of_sqlstate(report.sqlstate)
            reason = f"; {detail}" if detail else ""
            return ValidationError(f"{who}: the database refused a value{named}{reason}{state}.")
        case Kind.FORBIDDEN:
            if (right := refused_right(cause_of(error))) is not None:
                return PermissionDeniedError(f"{who}: a policy in the database does not allow {right}{state}.")
            return TenantIsolationError(f"{who}: a policy or a missing privilege refused the statement{state}.")
        case Kind.TRANSIENT:
            return TransactionError(
                f"{who}: the transaction conflicts with another one; run it again{state}.",
                transient=True,
                sqlstate=report.sqlstate,
            )
        case Kind.STALE_PLAN:
            return TransactionError(
                f"{who}: the schema has changed during the transaction; run it again{state}.",
                transient=True,
                sqlstate=report.sqlstate,
            )
        case Kind.TRANSACTION:
            return TransactionError(f"{who}: the transaction can't go on{state}.", sqlstate=report.sqlstate)
        case Kind.UNAVAILABLE:
            return DatabaseUnavailableError(f"The database can't be reached, or refuses work{state}.")
        case Kind.TIMEOUT:
            return DatabaseTimeoutError(f"{who}: the statement or its lock took too long{state}.")
        case Kind.NO_TABLE | Kind.NO_COLUMN:
            what = "table" if report.kind is Kind.NO_TABLE else "column"
            return DatabaseError(f"{who}: the database has no such {what}{state}. Were all migrations run?")
        case Kind.OTHER:
            return DatabaseError(f"{who}: the statement failed{state}.")


def _refused_by_constraint(
    error: sa.DBAPIError, report: Report, model: type | None, named: str, fields: tuple[str, ...]
) -> ConstraintViolationError:
    """The error for a violated constraint.

    If the constraint is on another table than the model's, the message names that table, and the error has no fields,
    since the columns are not fields of the model.
    """
    who = model.__name__ if model is not None else "The database"
    deletes = (error.statement or "").lstrip()[:6].upper() == "DELETE"
    mapper: Any = None if model is None else traits_of(model).mapper
    other = report.table if mapper is None or report.table not in {table.name for table in mapper.tables} else None
    if deletes and report.foreign:
        rows = f"rows of {report.table}" if report.table else "other rows"
        message = f"{who}: {rows} still refer to the row{named}."
    elif other is not None and mapper is not None:
        message = f"{who}: a constraint of {other} refused a row{named}."
    else:
        message = f"{who}: a constraint refused the row{named}."
    own_fields = () if mapper is not None and (other is not None or (deletes and report.foreign)) else fields
    return ConstraintViolationError(message, fields=own_fields, constraint=report.constraint)


def read(error: sa.DBAPIError) -> Report:
    """The report of the driver's exception in ``error``: psycopg 3, asyncpg, or sqlite3 and aiosqlite."""
    cause: object = cause_of(error)
    sqlite_code = getattr(cause, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return _read_sqlite(sqlite_code, str(cause))
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate is None:
        is_lost = lost_connection(error) or isinstance(error, (sa.OperationalError, sa.InterfaceError))
        other = Kind.INVALID if isinstance(error, sa.DataError) else Kind.OTHER
        return Report(Kind.UNAVAILABLE if is_lost else other)
    diagnostics = getattr(cause, "diag", cause)  # psycopg has these fields in diag, asyncpg on the exception
    column = getattr(diagnostics, "column_name", None)
    return Report(
        kind=Kind.STALE_PLAN if is_stale_plan(cause) else kind_of_sqlstate(sqlstate),
        sqlstate=sqlstate,
        table=getattr(diagnostics, "table_name", None),
        columns=(column,) if column else (),
        constraint=getattr(diagnostics, "constraint_name", None),
        foreign=sqlstate in FOREIGN_KEY_STATES,
    )


def _read_sqlite(code: int, text: str) -> Report:
    kind = next((kind for words, kind in _SQLITE_LACKS.items() if words in text), kind_of_sqlite(code))
    if match := _SQLITE_COLUMNS.match(text):
        pairs = [name.strip().rpartition(".") for name in match["columns"].split(",")]
        return Report(kind, table=pairs[0][0] or None, columns=tuple(column for _, _, column in pairs))
    match = _SQLITE_NAME.match(text)
    return Report(kind, constraint=match["name"] if match else None, foreign=text == "FOREIGN KEY constraint failed")


def _fields(report: Report, model: type | None) -> tuple[str, ...]:
    """The model's attributes that the failure is about.

    The tenant column is left out, since the user did not set it, unless it is the only attribute.
    """
    if model is None:
        return report.columns
    traits: Traits[object] = traits_of(model)
    mapper = traits.mapper
    table = _table(mapper, report.table)
    columns = report.columns or (_constrained(table, report.constraint) if table is not None else ())
    keys = {column.name: prop.key for prop in mapper.column_attrs for column in prop.columns if hasattr(column, "name")}
    own = table is not None and table in mapper.tables
    fields = tuple(keys.get(column, column) if own else column for column in columns)
    return tuple(field for field in fields if field != traits.tenant) or fields


def _is_private(field: str, report: Report, model: type | None) -> bool:
    """Whether the field is private, so that messages must not name it."""
    if model is None:
        return False
    traits: Traits[object] = traits_of(model)
    return field in traits.private or field in _private_columns(_table(traits.mapper, report.table))


def _names_private(report: Report, model: type | None) -> bool:
    """Whether the name or the SQL text of the violated constraint contains the name of a private column."""
    table = None if model is None else _table(traits_of(model).mapper, report.table)
    if table is None or report.constraint is None:
        return False
    texts = [report.constraint]
    texts += [str(getattr(each, "sqltext", "")) for each in table.constraints if each.name == report.constraint]
    return any(name in text for name in _private_columns(table) for text in texts)


def _private_columns(table: Table | None) -> list[str]:
    return [] if table is None else [column.name for column in table.columns if column.info.get("private")]


def _table(mapper: Any, name: str | None) -> Table | None:
    tables = list(mapper.tables)
    if name is None:
        return tables[0] if tables else None
    metadata = tables[0].metadata.tables.values()
    return next((table for table in [*tables, *metadata] if table.name == name), None)


def _constrained(table: Table, constraint: str | None) -> tuple[str, ...]:
    """The columns of the constraint or index with this name.

    A constraint without a name in the metadata has the name that PostgreSQL generates.
    """
    if constraint is None:
        return ()
    suffixes = {UniqueConstraint: "key", PrimaryKeyConstraint: "pkey"}
    items: list[Any] = [*table.constraints, *table.indexes]
    for item in items:
        columns = tuple(column.name for column in getattr(item, "columns", ()))
        if item.name is not None:
            if str(item.name) == constraint:
                return columns
            continue
        if isinstance(item, Index):
            continue
        suffix = suffixes.get(type(item), "fkey" if hasattr(item, "referred_table") else "check")
        middle = () if suffix == "pkey" else columns
        if "_".join([table.name, *middle, suffix])[:63] == constraint:
            return columns
    return ()
