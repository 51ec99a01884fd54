"""`examine`: runs the checks of the registry in a transaction that is read only and rolled back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from sqlalchemy import Connection, MetaData, QueuePool, text
from sqlalchemy.exc import DBAPIError

from ..declared_reads import DeclaredRead
from ..engines import Database
from ..errors import MisuseError
from ..row_policies import RowLevelSecurity
from .checks import CHECKS
from .examination import Examination, Pools
from .findings import DoctorFinding, Report, Skipped, report_of
from .limits import Limits
from .registry import Check, Symptom, Unchecked, chosen


def examine(
    database: Database | Connection,
    metadata: MetaData | Sequence[MetaData],
    *,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    row_level_security: RowLevelSecurity | None = None,
    reads: Sequence[DeclaredRead] | None = None,
    processes: int | None = None,
    limits: Limits | None = None,
) -> Report:
    """Examine a database and the models of ``metadata`` by the checks of the registry.

    ``only`` are the codes of the checks to run (empty: all), ``skip`` those to leave out. ``row_level_security`` is
    what the application applies, for the check ``row-level-security``. ``reads`` are the reads that the routes declare
    (`dotmac_database_fastapi.declared_reads`), for ``missing-index``. ``processes`` are the processes of the
    application, for ``too-many-connections``, which needs a `Database`. Without one of them its check is skipped, and
    the report says so. ``limits``: what counts as much; None: the defaults.

    Connect as the application does, since rights and settings are those of the connection. On PostgreSQL everything
    runs in a savepoint that is read only and rolled back, so it works inside a transaction, too; a lock is awaited for
    at most two seconds. On SQLite the connection is set to ``query_only`` meanwhile. The number of statements does not
    depend on the number of tables, except that of ``schema-drift``, which is Alembic's; see the table in
    docs/doctor.md. All is sync; use `AsyncConnection.run_sync`. Raises `MisuseError` for an unknown code, and for a
    connection that commits each statement.
    """
    every = (metadata,) if isinstance(metadata, MetaData) else tuple(metadata)
    by_code = {each.code: each for each in CHECKS}
    codes = chosen(list(by_code), only, skip)
    if isinstance(database, Connection):
        return _examine(
            Examination(database, every, limits or Limits(), row_level_security, reads), [by_code[c] for c in codes]
        )
    with database.engine.connect() as connection:
        try:
            pools = _pools(database, processes)
            examination = Examination(connection, every, limits or Limits(), row_level_security, reads, pools)
            return _examine(examination, [by_code[code] for code in codes])
        finally:
            connection.rollback()


def _pools(database: Database, processes: int | None) -> Pools | None:
    """What the processes may open by one engine each; None: their number is unknown, or the pool has no limit."""
    pool = database.engine.pool
    overflow = int(database.engine_options.get("max_overflow", 10))
    if processes is None or not isinstance(pool, QueuePool) or pool.size() == 0 or overflow < 0:
        return None
    return Pools(pool.size() + overflow, processes)


def _examine(examination: Examination, checks: Sequence[Check]) -> Report:
    findings: list[DoctorFinding] = []
    skipped: list[Skipped] = []
    ran: list[str] = []
    dialect = examination.dialect
    with read_only(examination):
        for each in checks:
            if dialect not in each.on:
                skipped.append(each.skip(f"it is a check of {', '.join(sorted(each.on))}."))
                continue
            outcomes, reason = _run(examination, each)
            findings += [each.finding(symptom) for symptom in outcomes if not isinstance(symptom, Unchecked)]
            skipped += [each.skip(part.reason) for part in outcomes if isinstance(part, Unchecked)]
            if reason is not None:
                skipped.append(each.skip(reason))
            elif not outcomes or any(not isinstance(part, Unchecked) for part in outcomes):
                ran.append(each.code)
    return report_of(findings, skipped, ran)


def read_only(examination: Examination) -> AbstractContextManager[None]:
    """A block in which the connection can only read. It also reads the session's settings.

    Raises `MisuseError` for an unknown database, and for a connection that commits each statement.
    """
    if examination.dialect not in _READ_ONLY:
        raise MisuseError(f"The doctor examines PostgreSQL and SQLite, not {examination.dialect!r}.")
    if getattr(examination.connection.connection.dbapi_connection, "autocommit", False) is True:
        raise MisuseError("The doctor needs a transaction, but this connection commits each statement.")
    return _READ_ONLY[examination.dialect](examination)


def _run(examination: Examination, check: Check) -> tuple[list[Symptom | Unchecked], str | None]:
    """What a check has seen, and why it failed; None: it did not. A failure is undone, so that the others can run."""
    savepoint = examination.connection.begin_nested()
    try:
        return list(check.examine(examination)), None
    except DBAPIError as error:
        if examination.connection.invalidated:
            raise
        return [], f"the database refused it: {str(error.orig).strip().splitlines()[0]}"
    finally:
        if savepoint.is_active:
            savepoint.rollback()


_SETTINGS = """
SELECT name, setting FROM pg_settings WHERE name IN (
  'statement_timeout', 'idle_in_transaction_session_timeout', 'lock_timeout', 'max_connections',
  'superuser_reserved_connections', 'reserved_connections', 'autovacuum', 'transaction_read_only', 'search_path')
"""
_ON = "SELECT set_config('transaction_read_only', 'on', true), set_config('lock_timeout', :lock_timeout, true)"


@contextmanager
def _read_only_savepoint(examination: Examination) -> Iterator[None]:
    connection = examination.connection
    savepoint = connection.begin_nested()
    try:
        settings = {row.name: row.setting for row in connection.execute(text(_SETTINGS))}
        examination.settings = settings
        lock_timeout = settings["lock_timeout"]
        connection.execute(text(_ON), {"lock_timeout": "2000" if lock_timeout == "0" else lock_timeout})
        yield
    finally:
        if savepoint.is_active:
            savepoint.rollback()


@contextmanager
def _query_only(examination: Examination) -> Iterator[None]:
    connection = examination.connection
    before = connection.exec_driver_sql("PRAGMA query_only").scalar_one()
    connection.exec_driver_sql("PRAGMA query_only = ON")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA query_only = {int(before)}")


_READ_ONLY: Mapping[str, Callable[[Examination], AbstractContextManager[None]]] = {
    "postgresql": _read_only_savepoint,
    "sqlite": _query_only,
}
