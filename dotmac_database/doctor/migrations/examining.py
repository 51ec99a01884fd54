"""`examine_migrations`: renders what a database does not have yet by Alembic's offline mode, and judges it."""

from __future__ import annotations

from collections.abc import Collection
from io import StringIO
from typing import TYPE_CHECKING

from sqlalchemy import Connection, MetaData, text

from ...engines import Database
from ...errors import MisuseError
from ..examination import Examination
from ..examining import read_only
from ..findings import DoctorFinding, Report, Skipped, report_of
from ..limits import Limits
from ..registry import chosen
from .judging import Judge
from .parsing import statements
from .rules import RULES

if TYPE_CHECKING:
    from alembic.config import Config

_CODE = "migration"


def examine_migrations(
    database: Database | Connection,
    config: Config,
    revision: str = "head",
    *,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    limits: Limits | None = None,
) -> Report:
    """Judge the statements of the migrations between the database's revision and ``revision``.

    ``config`` is Alembic's. Its ``env.py`` runs in offline mode (``--sql``), and nothing is written. The sizes of the
    tables are those of the database, so connect to the one that will be migrated, or to a copy. A table is large from
    ``limits.large_rows`` or ``limits.large_bytes`` on; what is only slow on a large table is a note on a small one.
    Migrations that need a connection can't be rendered: the report then has what comes before, and says where it stops.

    ``only`` and ``skip`` are codes of `RULES`. It sends nine statements at most, and needs PostgreSQL: on another
    database everything is skipped. Raises `MisuseError` for an unknown revision or code, and without postgast or
    Alembic.
    """
    if isinstance(database, Connection):
        return _examine(database, config, revision, only, skip, limits or Limits())
    with database.engine.connect() as connection:
        try:
            return _examine(connection, config, revision, only, skip, limits or Limits())
        finally:
            connection.rollback()


def examine_statements(
    connection: Connection,
    sql: str,
    *,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    limits: Limits | None = None,
) -> Report:
    """Judge the statements of an SQL script as `examine_migrations` does those of migrations."""
    codes = chosen([each.code for each in RULES], only, skip)
    examination = Examination(connection, [MetaData()], limits or Limits())
    with read_only(examination):
        if "lock_timeout" not in examination.settings:
            return Report((), (Skipped(_CODE, "the rules are those of PostgreSQL's locks."),))
        examination.schemas = list(connection.execute(text(_SCHEMAS)).scalars())
        judge = Judge(examination)
        findings: list[DoctorFinding] = []
        for each in statements(sql):
            findings += judge.findings(each)
        findings += judge.last_findings()
    return report_of([each for each in findings if each.code in codes], [], codes)


def _examine(
    connection: Connection, config: Config, revision: str, only: Collection[str], skip: Collection[str], limits: Limits
) -> Report:
    current = _current(connection)
    if len(current) > 1:
        reason = f"the database has several current revisions ({', '.join(current)}): merge them first."
        return Report((), (Skipped(_CODE, reason),))
    sql, stop = _rendered(config, current[0] if current else "base", revision)
    report = examine_statements(connection, sql, only=only, skip=skip, limits=limits)
    return report if stop is None else report.merged(Report((), (Skipped(_CODE, stop),)))


def _current(connection: Connection) -> tuple[str, ...]:
    try:
        from alembic.runtime.migration import MigrationContext
    except ModuleNotFoundError:
        raise MisuseError("Migrations need Alembic: pip install 'dotmac-database-toolkit[doctor]'.") from None
    return tuple(MigrationContext.configure(connection).get_current_heads())


def _rendered(config: Config, current: str, revision: str) -> tuple[str, str | None]:
    """The SQL of the migrations, and why it stops before the end; None: it does not."""
    from alembic import command
    from alembic.util import CommandError

    buffer, before = StringIO(), config.output_buffer
    config.output_buffer = buffer
    try:
        command.upgrade(config, f"{current}:{revision}", sql=True)
    except CommandError as error:
        raise MisuseError(f"Alembic refuses revision {revision!r}: {error}", field="revision") from None
    except Exception as error:  # noqa: BLE001 - whatever a migration raises without a connection
        return buffer.getvalue(), f"a migration can't be rendered offline: {type(error).__name__}: {error}"
    finally:
        config.output_buffer = before
    return buffer.getvalue(), None


_SCHEMAS = "SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
