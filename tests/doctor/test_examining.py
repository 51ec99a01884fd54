"""An examination as a whole: read only, a bounded number of statements, skipped checks with their reasons."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import Column, ForeignKey, Index, Integer, MetaData, String, Table, event, make_url, text
from sqlalchemy.exc import DBAPIError

from dotmac_database import Database, DeclaredRead, MisuseError, RowLevelSecurity, create_database
from dotmac_database.doctor import CHECKS, DoctorFinding, Limits, Severity, examine
from dotmac_database.tenancy import Finding
from tests.conftest import counted

from .models import Account, Base, Note, loose

CODES = [each.code for each in CHECKS]


@pytest.fixture
def target(dialect: str, database_url: str) -> Iterator[Database]:
    """A database with the healthy tables. A test that changes them makes them anew."""
    database = create_database(database_url)
    Base.metadata.create_all(database.engine)
    yield database
    database.dispose()


ON_POSTGRESQL = pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
ON_SQLITE = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)


def test_healthy_models_have_no_finding(target: Database) -> None:
    """The tests connect as a superuser, without timeouts; of this nothing but notes and the timeouts remain."""
    report = examine(target, Base.metadata, skip=["timeout-missing"])
    assert report.findings == ()
    assert not any("refused" in each.reason for each in report.skipped)
    assert not report.failed
    on = target.url.get_backend_name()
    for each in (each for each in CHECKS if each.code != "timeout-missing"):
        assert (each.code in report.ran) or any(each.code == skipped.code for skipped in report.skipped), each.code
        if on not in each.on:
            assert f"it is a check of {', '.join(each.on)}." in [
                s.reason for s in report.skipped if s.code == each.code
            ]


def test_everything_is_read_only(target: Database) -> None:
    """A write between the checks is refused, and after the examination the connection can write again."""
    refused: list[str] = []

    def write(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not refused and ("pg_index" in statement or "pragma_index" in statement):
            refused.append("tried")
            raw = connection.connection.dbapi_connection.cursor()
            raw.execute("SAVEPOINT tried")
            try:
                raw.execute("DELETE FROM ledgers")
            except Exception as error:  # noqa: BLE001 - whatever the driver raises
                refused.append(str(error))
            raw.execute("ROLLBACK TO SAVEPOINT tried")
            raw.close()

    with target.engine.connect() as connection:
        event.listen(target.engine, "before_cursor_execute", write)
        try:
            examine(connection, Base.metadata, skip=["schema-drift"])
        finally:
            event.remove(target.engine, "before_cursor_execute", write)
        assert "read" in refused[1]
        connection.execute(text("INSERT INTO ledgers (tenant_id, amount) VALUES ('a', 1)"))
        connection.rollback()


@ON_POSTGRESQL
def test_it_leaves_an_open_transaction_as_it_was(target: Database) -> None:
    with target.engine.connect() as connection:
        connection.execute(text("CREATE TABLE bare (a int)"))
        report = examine(connection, Base.metadata, only=["no-primary-key"])
        assert [each.object for each in report] == ["public.bare"]
        assert connection.execute(text("SHOW transaction_read_only")).scalar_one() == "off"
        assert connection.execute(text("SHOW lock_timeout")).scalar_one() == "0"
        connection.execute(text("INSERT INTO bare VALUES (1)"))
        connection.rollback()
    report = examine(target, Base.metadata, only=["no-primary-key"])
    assert report.findings == ()


def tables(number: int) -> MetaData:
    metadata = MetaData()
    for each in range(number):
        table = Table(
            f"t{each}",
            metadata,
            Column("id", Integer, primary_key=True),
            Column("tenant_id", String(20)),
            Column("before", ForeignKey(f"t{each - 1}.id") if each else Integer),
            Column("colour", String(5)),
        )
        Index(f"t{each}_by_tenant", table.c.tenant_id)
    return metadata


def test_the_number_of_statements_does_not_depend_on_the_number_of_tables(
    dialect: str, request: Any, tmp_path: Any
) -> None:
    """Except that of schema-drift: Alembic reads each table by itself."""
    database = create_database(
        request.getfixturevalue("database_url") if dialect == "postgresql" else f"sqlite:///{tmp_path}/a.db"
    )
    numbers = []
    for number in (5, 50):
        metadata = tables(number)
        metadata.create_all(database.engine)
        rls = RowLevelSecurity(metadata) if dialect == "postgresql" else None
        with counted(database.engine) as sent:
            report = examine(database, metadata, skip=["schema-drift"], row_level_security=rls)
        assert len([each for each in report if each.code == "foreign-key-without-index"]) == number - 1
        numbers.append(len(sent))
        metadata.drop_all(database.engine)
    database.dispose()
    assert numbers[0] == numbers[1]
    assert numbers[0] < 120


@ON_POSTGRESQL
def test_a_role_without_rights_gets_findings_or_reasons(target: Database) -> None:
    with target.engine.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS doctors_guest"))
        connection.execute(text("CREATE ROLE doctors_guest LOGIN"))
        connection.execute(text("CREATE TABLE hidden (id serial); INSERT INTO hidden DEFAULT VALUES"))
    guest = create_database(target.url.set(username="doctors_guest"))
    other = psycopg.connect(make_url(target.url).set(drivername="postgresql").render_as_string(hide_password=False))
    try:
        report = examine(guest, Base.metadata, limits=Limits(bloat_bytes=1))
        reasons = {each.code: each.reason for each in report.skipped}
        assert "the role may not read" in reasons["sequence-near-end"]
        assert "no statistics of" in reasons["bloat"]
        assert "grant it pg_monitor" in reasons["long-transaction"]
        assert "no-primary-key" in report.ran
    finally:
        guest.dispose()
        other.close()
        with target.engine.begin() as connection:
            connection.execute(text("DROP TABLE hidden; DROP ROLE doctors_guest"))


@ON_POSTGRESQL
def test_a_check_that_the_database_refuses_is_skipped_and_the_others_run(
    target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dotmac_database.doctor.checks import storage

    monkeypatch.setattr(storage, "_AGE", "SELECT 1/0")
    report = examine(target, Base.metadata, only=["wraparound", "no-primary-key", "bloat"])
    assert [(each.code, each.reason) for each in report.skipped] == [
        ("wraparound", "the database refused it: division by zero")
    ]
    assert {*report.ran} == {"no-primary-key", "bloat"}


@ON_POSTGRESQL
def test_a_session_that_is_idle_in_a_transaction_is_found_and_ended(target: Database) -> None:
    url = make_url(target.url).set(drivername="postgresql").render_as_string(hide_password=False)
    limits = Limits(idle_seconds=0)
    assert examine(target, Base.metadata, only=["idle-in-transaction"], limits=limits).findings == ()
    with psycopg.connect(url, application_name="sleeper") as other:
        other.execute("SELECT 1")
        report = examine(target, Base.metadata, only=["idle-in-transaction"], limits=limits)
        assert [each.object for each in report] == [f"session {other.info.backend_pid} of {other.info.user} (sleeper)"]
        assert examine(target, Base.metadata, only=["idle-in-transaction"]).findings == ()
        run(target, report.findings[0])
        with pytest.raises(psycopg.OperationalError):
            other.execute("SELECT 1")
        wait_for_end(target, other.info.backend_pid)
    assert examine(target, Base.metadata, only=["idle-in-transaction"], limits=limits).findings == ()


@ON_POSTGRESQL
def test_a_long_transaction_is_found_and_ended(target: Database) -> None:
    """The other session waits for an advisory lock, so that it is active for as long as the test needs."""
    url = make_url(target.url).set(drivername="postgresql").render_as_string(hide_password=False)
    limits = Limits(transaction_seconds=0)
    with target.engine.connect() as holder, psycopg.connect(url, autocommit=True) as other:
        holder.execute(text("SELECT pg_advisory_lock(17)"))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE pid = :pid AND wait_event = 'advisory'"
        pid = other.info.backend_pid
        with waiting_for_the_lock(other) as ended:
            while not holder.execute(text(waiting), {"pid": pid}).scalar_one():
                holder.execute(text("SELECT pg_stat_clear_snapshot()"))
            report = examine(target, Base.metadata, only=["long-transaction"], limits=limits)
            assert [each.object.startswith(f"session {pid} ") for each in report] == [True]
            run(target, report.findings[0])
            assert isinstance(ended.result(), psycopg.OperationalError)
            wait_for_end(target, pid)
        holder.execute(text("SELECT pg_advisory_unlock(17)"))
        holder.rollback()
    assert examine(target, Base.metadata, only=["long-transaction"], limits=limits).findings == ()


def wait_for_end(database: Database, pid: int) -> None:
    """Until the server has forgotten a session that was terminated."""
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while connection.execute(text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid"), {"pid": pid}).scalar():
            pass


@contextmanager
def waiting_for_the_lock(connection: psycopg.Connection[Any]) -> Iterator[Future[BaseException | None]]:
    """A block in which a session waits for the lock in a thread. The result is the error of its statement."""

    def wait() -> BaseException | None:
        try:
            connection.execute("SELECT pg_advisory_lock(17)")
        except psycopg.Error as error:
            return error
        return None

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(wait)


def run(database: Database, finding: DoctorFinding) -> None:
    engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in finding.sql:
            connection.exec_driver_sql(statement)


@ON_POSTGRESQL
def test_missing_timeouts_are_found_and_set(target: Database) -> None:
    with target.engine.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS doctors_app"))
        connection.execute(text("CREATE ROLE doctors_app LOGIN"))
    url = target.url.set(username="doctors_app")
    app = create_database(url)
    try:
        report = examine(app, Base.metadata, only=["timeout-missing"])
        assert [(each.object, each.severity.value) for each in report] == [
            ("setting statement_timeout", "warning"),
            ("setting idle_in_transaction_session_timeout", "warning"),
            ("setting lock_timeout", "note"),
        ]
        for each in report:
            run(target, each)
        app.dispose()
        assert examine(app, Base.metadata, only=["timeout-missing"]).findings == ()
    finally:
        app.dispose()
        with target.engine.begin() as connection:
            connection.execute(text("DROP ROLE doctors_app"))
    limited = create_database(target.url, statement_timeout=30, idle_in_transaction_timeout=60)
    assert [each.object for each in examine(limited, Base.metadata, only=["timeout-missing"])] == [
        "setting lock_timeout"
    ]
    limited.dispose()


@ON_POSTGRESQL
def test_a_role_that_bypasses_policies_is_found_and_cured(target: Database) -> None:
    with target.engine.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS doctors_admin"))
        connection.execute(text("CREATE ROLE doctors_admin LOGIN SUPERUSER BYPASSRLS"))
        connection.execute(text("ALTER TABLE ledgers ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"))
    admin = create_database(target.url.set(username="doctors_admin"))
    try:
        report = examine(admin, Base.metadata, only=["role-bypasses-policies"])
        assert [each.object for each in report] == ["role doctors_admin", "role doctors_admin"]
        for each in report:
            run(target, each)
        admin.dispose()
        assert examine(admin, Base.metadata, only=["role-bypasses-policies"]).findings == ()
    finally:
        admin.dispose()
        with target.engine.begin() as connection:
            connection.execute(text("DROP ROLE doctors_admin"))
            connection.execute(text("ALTER TABLE ledgers DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY"))


@ON_POSTGRESQL
def test_row_level_security_is_verified(target: Database) -> None:
    rls = RowLevelSecurity(Base.metadata)
    report = examine(target, Base.metadata, only=["row-level-security"], row_level_security=rls)
    assert report.findings[0].code == "row-level-security"
    assert report.findings[0].severity is Severity.ERROR
    objects = [each.object for each in report]
    assert len(objects) == len(set(objects))
    accounts = next(each for each in report if each.object.endswith("accounts"))
    assert "row-level security is off" in accounts.risk
    assert "it has no policy" in accounts.risk
    assert accounts.remedy.count("ENABLE ROW LEVEL SECURITY") == 1
    assert accounts.remedy.count("FORCE ROW LEVEL SECURITY") == 1
    assert accounts.remedy.endswith("\nOr for all tables: dotmac-db rls apply --app …")
    with target.engine.begin() as connection:
        rls.apply(connection)
    try:
        report = examine(target, Base.metadata, only=["row-level-security"], row_level_security=rls)
        assert not any("accounts" in each.object for each in report)
    finally:
        with target.engine.begin() as connection:
            for statement in rls.drop_statements():
                connection.exec_driver_sql(statement)


@ON_POSTGRESQL
def test_pools_that_may_open_too_many_connections(target: Database) -> None:
    small = create_database(target.url, pool_size=5, max_overflow=5)
    with small.engine.connect() as connection:
        most = int(str(connection.execute(text("SHOW max_connections")).scalar_one()))
    report = examine(small, Base.metadata, only=["too-many-connections"], processes=most)
    assert [each.object for each in report] == ["setting max_connections"]
    assert f"{most * 10} connections" in report.findings[0].risk
    assert examine(small, Base.metadata, only=["too-many-connections"], processes=1).findings == ()
    unlimited = create_database(target.url, max_overflow=-1)
    reason = "it needs the number of processes, and a pool with a limit; pass --processes, or in Python processes=."
    for database, processes in ((small, None), (unlimited, 1)):
        report = examine(database, Base.metadata, only=["too-many-connections"], processes=processes)
        assert [each.reason for each in report.skipped] == [reason]
        database.dispose()


@ON_SQLITE
def test_loose_keys_are_found_in_the_models(target: Database) -> None:
    metadata = loose()
    report = examine(target, metadata, only=["loose-key"])
    assert [each.object for each in report] == ["parents.code", "children.parent_id"]
    assert "tenant_foreign_key" in report.findings[1].remedy
    assert examine(target, Base.metadata, only=["loose-key"]).findings == ()


def test_the_reads_of_routes_are_advised(target: Database) -> None:
    reads = [
        DeclaredRead(Note, "-order", filters=("account_id",), sorts=("order",)),
        DeclaredRead(Account, filters=("colour", "at", "is_deleted")),
    ]
    schema = "public" if target.url.get_backend_name() == "postgresql" else "main"
    report = examine(target, Base.metadata, only=["missing-index"], reads=reads, limits=Limits(large_rows=0))
    found = {each.object: each for each in report}
    by_order = found[f"{schema}.Note.tenant_id, order, id"]
    assert by_order.severity is Severity.WARNING
    assert "default order" in by_order.risk
    others = [each for each in report if each is not by_order]
    assert others
    assert {each.severity for each in others} == {Severity.NOTE}
    for each in report:
        run(target, each)
    after = examine(target, Base.metadata, only=["missing-index"], reads=reads)
    assert after.findings == ()
    skipped = examine(target, Base.metadata, only=["missing-index"]).skipped
    assert [each.reason.partition(";")[0] for each in skipped] == ["no route declares what it reads"]
    Base.metadata.drop_all(target.engine)


@ON_SQLITE
@pytest.mark.parametrize("option", ["only", "skip"])
def test_an_unknown_code_is_refused(target: Database, option: Any) -> None:
    with pytest.raises(MisuseError, match=rf"{option}: there is no check 'bloats'. There are: row-level-security, "):
        examine(target, Base.metadata, **{option: ["bloats"]})


def test_only_and_skip_choose_the_checks(target: Database) -> None:
    report = examine(target, Base.metadata, only=["no-primary-key", "duplicate-index"], skip=["duplicate-index"])
    assert report.ran == ("no-primary-key",)
    assert report.skipped == ()


@ON_POSTGRESQL
def test_a_connection_without_transactions_is_refused(target: Database) -> None:
    engine = target.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection, pytest.raises(MisuseError, match="The doctor needs a transaction"):
        examine(connection, Base.metadata)


def test_an_async_connection_is_examined_by_run_sync(target: Database) -> None:
    async def main() -> Any:
        async with target.async_engine.connect() as connection:
            report = await connection.run_sync(
                examine, Base.metadata, skip=["timeout-missing"], reads=[DeclaredRead(Note)]
            )
        await target.dispose_async()
        return report

    report = asyncio.run(main())
    assert [each for each in report if each.code != "missing-index"] == []
    assert not any("refused" in each.reason for each in report.skipped)


def test_the_report_is_json(target: Database) -> None:
    document = examine(target, Base.metadata, only=["missing-index", "timeout-missing", "no-primary-key"]).as_dict()
    assert set(document) == {"failed", "findings", "skipped", "ran"}
    finding = DoctorFinding("a", "b", "c", code="d", severity=Severity.NOTE, sql=("e",))
    assert isinstance(finding, Finding)


def test_a_broken_connection_is_an_error_and_not_a_skipped_check(target: Database) -> None:
    """No check may look clean because the database has gone."""
    with target.engine.connect() as connection:
        connection.connection.dbapi_connection.close()  # type: ignore[union-attr]
        with pytest.raises(DBAPIError):
            examine(connection, Base.metadata)
        connection.invalidate()


def test_the_checks_have_codes_sources_and_summaries() -> None:
    assert len(set(CODES)) == len(CODES)
    for each in CHECKS:
        assert each.code == each.code.lower()
        assert " " not in each.code
        assert each.source.startswith("https://")
        assert each.summary.endswith(".")


def test_nothing_of_the_doctor_is_imported_without_it() -> None:
    script = (
        "import sys, dotmac_database, dotmac_database_fastapi\n"
        "print([m for m in sys.modules if m.startswith(('dotmac_database.doctor', 'postgast', 'alembic'))])\n"
        "import dotmac_database.doctor\n"
        "print([m for m in sys.modules if m.startswith(('postgast', 'alembic', 'google.'))])"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["[]", "[]"]


@ON_SQLITE
def test_without_alembic_the_schema_is_not_compared(target: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("alembic", "alembic.autogenerate", "alembic.runtime.migration", "alembic.operations"):
        monkeypatch.setitem(sys.modules, name, None)
    report = examine(target, Base.metadata, only=["schema-drift"])
    assert [each.reason for each in report.skipped] == [
        "Alembic is not installed: pip install 'dotmac-database-toolkit[migrations]'."
    ]


@pytest.mark.parametrize(("rows", "severity"), [(0, Severity.NOTE), (1, Severity.NOTE), (30, Severity.WARNING)])
def test_a_missing_index_of_a_small_table_is_a_note(
    target: Database, dialect: str, rows: int, severity: Severity
) -> None:
    """A database that the migrations have just made has no statistics yet, and nothing to hurry for."""
    metadata = tables(2)
    metadata.create_all(target.engine)
    try:
        with target.engine.begin() as connection:
            connection.exec_driver_sql("DROP INDEX t1_by_tenant")
            for each in range(rows):
                connection.exec_driver_sql(f"INSERT INTO t1 (id, colour) VALUES ({each}, 'red')")
        limits = Limits(large_rows=20, large_bytes=16_000)
        if rows == 30 and dialect == "postgresql":
            with target.engine.begin() as connection:
                connection.exec_driver_sql("ANALYZE t1")
        report = examine(target, metadata, only=["foreign-key-without-index"], limits=limits)
        assert [each.severity for each in report] == [severity]
        size = {
            ("sqlite", 0): "(0 rows)",
            ("sqlite", 1): "(1 row)",
            ("sqlite", 30): "(at least 20 rows)",
            ("postgresql", 30): "(about 30 rows, less than 0.1 MiB)",
        }.get((dialect, rows), "(less than 0.1 MiB)")
        assert size in report.findings[0].risk
        assert report.failed is (rows == 30)
    finally:
        metadata.drop_all(target.engine)


def test_the_remedy_of_a_missing_index_says_what_to_write_in_the_model(target: Database) -> None:
    """With the name from the model, the database has what the model says."""

    def models(*arguments: object) -> MetaData:
        metadata = MetaData()
        Table("buyers", metadata, Column("id", Integer, primary_key=True))
        columns = (Column("id", Integer, primary_key=True), Column("order", ForeignKey("buyers.id")))
        Table("purchases", metadata, *columns, *arguments)  # type: ignore[arg-type]  # columns and indexes
        return metadata

    before = models()
    before.create_all(target.engine)
    try:
        (found,) = examine(target, before, only=["foreign-key-without-index"])
        sql, text_of_model = found.remedy.split("\n")
        assert found.sql == (sql,)
        assert text_of_model == "In the model, in __table_args__: Index('ix_purchases_order', 'order')"
        run(target, found)
        after = models(Index("ix_purchases_order", "order"))
        report = examine(target, after, only=["foreign-key-without-index", "schema-drift"])
        assert not [each for each in report if "purchases" in each.object]
        with target.engine.begin() as connection:
            connection.exec_driver_sql("DROP INDEX ix_purchases_order")
        (found,) = examine(target, after, only=["foreign-key-without-index"])
        assert "The model has this index already." in found.remedy
    finally:
        before.drop_all(target.engine)
