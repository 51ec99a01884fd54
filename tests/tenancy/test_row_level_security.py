"""PostgreSQL's own ring: what it stops when the ORM's rings let raw SQL through."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import MetaData, func, literal, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import Session

from dotmac_database import (
    DatabaseTransaction,
    DuplicateEntityError,
    RowLevelSecurity,
    TenantRequiredError,
    UnscopedStatementError,
    bind_tenant,
    guard_tenants,
    tenant_scope,
    unscoped,
)
from dotmac_database.dialects.drivers import driver_of, link_of
from dotmac_database.engines import Database, create_database
from dotmac_database.execution.settings import opening, providers_for
from dotmac_database.tenancy.rls.policies import ALL_TENANTS_SETTING, SETTING
from dotmac_database_pytest.server import free_port
from tests.conftest import Face, counted

from .conftest import Guarded, fill
from .models import Account, Base, Dog, Note, note_labels

RLS = RowLevelSecurity(Base.metadata)
ROLE = "dotmac_tenant_app"


@pytest.fixture(scope="module")
def owner(postgres_url: str) -> Iterator[Database]:
    """The database with its policies on, by an owner whom they bind as well."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone()
        if exists is None:
            connection.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'dotmac' NOSUPERUSER NOBYPASSRLS")
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} OWNER TO {ROLE}")
        connection.execute(f"GRANT ALL ON SCHEMA public TO {ROLE}")
    superuser = create_database(postgres_url)
    app = create_database(superuser.url.set(username=ROLE, password="dotmac"), pool_size=2, max_overflow=0)
    Base.metadata.create_all(app.engine)
    with app.engine.begin() as connection:
        fill(connection)
        RLS.apply(connection)
        RLS.apply(connection)
    yield app
    app.dispose()
    superuser.dispose()


@pytest.fixture(params=["sync", "async"])
def behind(owner: Database, request: pytest.FixtureRequest) -> Iterator[Guarded]:
    """Guarded sessions with the policies behind them."""
    face = Face(request.param, owner)
    made = Guarded(face, rls=RLS)
    yield made
    made.close()
    if face.is_async:
        face.runner.run(owner.async_engine.dispose())
        del owner.__dict__["async_engine"]
        owner.__dict__.pop("async_sessions", None)
    face.runner.close()


def _raw(session: Session) -> list[int]:
    return sorted(session.scalars(text("SELECT id FROM accounts")))


def _bound(behind: Guarded, tenant: str) -> Any:
    session = behind.session()
    bind_tenant(session, tenant)
    return session


def test_raw_sql_sees_the_tenants_rows_alone(behind: Guarded) -> None:
    for tenant, expected in (("a", [1, 3]), ("b", [2]), ("nobody", [])):
        session = _bound(behind, tenant)
        assert behind.run(session, _raw) == expected
        assert behind.run(session, lambda s: sorted(s.scalars(select(Account.__table__.c.id)))) == expected
        assert (
            behind.run(session, lambda s: sorted(s.scalars(select(Account.id).where(text("1=1 OR 1=1"))))) == expected
        )
        assert (
            behind.run(session, lambda s: sorted(s.connection().exec_driver_sql("SELECT id FROM accounts").scalars()))
            == expected
        )
        behind.face(session.close)


def test_one_transaction_serves_tenants_in_turn_whose_blocks_release_their_rows(behind: Guarded) -> None:
    session = behind.session()
    for tenant, expected in (("a", [1, 3]), ("b", [2]), ("a", [1, 3])):
        with tenant_scope(session, tenant, release=True):
            assert behind.run(session, _raw) == expected
            assert behind.run(session, lambda s: sorted(s.scalars(select(Account.id)))) == expected
        with pytest.raises(TenantRequiredError):
            behind.run(session, _raw)
    assert session.in_transaction()


@pytest.mark.parametrize("across", [False, True])
def test_after_a_savepoint_the_policies_serve_nobody_where_nobody_is_bound(behind: Guarded, across: bool) -> None:
    """The tenant was told before the savepoint, so that its rollback leaves that setting."""
    session = behind.session()
    with unscoped(session, reason="test") if across else tenant_scope(session, "a", release=True):
        behind.run(session, _raw)

    def told_after_savepoint(s: Session) -> set[str | None]:
        with s.begin_nested() as savepoint:
            s.execute(select(literal(1)))
            savepoint.rollback()
        settings = select(func.current_setting(SETTING, True), func.current_setting(ALL_TENANTS_SETTING, True))
        return set(s.execute(settings).one())

    assert behind.run(session, told_after_savepoint) <= {None, "", "off"}


def test_tables_without_a_tenant_of_their_own(behind: Guarded) -> None:
    session = _bound(behind, "a")
    assert behind.run(session, lambda s: list(s.scalars(text("SELECT id FROM dogs")))) == [11]
    assert behind.run(session, lambda s: list(map(tuple, s.execute(select(note_labels))))) == [(1, 1)]
    assert behind.run(session, lambda s: s.execute(update(Dog.__table__).values(tricks="sit"))).rowcount == 1


def test_raw_writes(behind: Guarded) -> None:
    session = _bound(behind, "a")
    assert (
        behind.run(session, lambda s: s.execute(text("UPDATE notes SET title = 'x' WHERE id IN (2, 4)"))).rowcount == 0
    )
    assert behind.run(session, lambda s: s.execute(text("DELETE FROM notes WHERE id IN (2, 4)"))).rowcount == 0
    for sql in (
        "INSERT INTO notes (id, tenant_id, title) VALUES (77, 'b', 'forged')",
        "UPDATE notes SET tenant_id = 'b' WHERE id = 1",
        "INSERT INTO note_labels VALUES (3, 2)",
        "INSERT INTO dogs VALUES (2, 'forged')",
    ):
        with pytest.raises(DBAPIError, match="row-level security"):
            behind.run(session, lambda s, sql=sql: s.execute(text(sql)))
        behind.face(session.rollback)


def test_without_a_tenant_raw_sql_is_refused(behind: Guarded) -> None:
    with pytest.raises(TenantRequiredError):
        behind.run(behind.session(), _raw)


def test_raw_sql_can_not_steer(behind: Guarded) -> None:
    session = _bound(behind, "a")
    for sql in (
        "SET LOCAL dotmac.tenant_id = 'b'",
        "SELECT set_config('dotmac.tenant_id', 'b', true)",
        "RESET ALL",
        "DISCARD ALL",
        "SELECT 1; SET ROLE postgres",
        "SET SESSION AUTHORIZATION postgres",
    ):
        with pytest.raises(UnscopedStatementError):
            behind.run(session, lambda s, sql=sql: s.execute(text(sql)))
        with pytest.raises(UnscopedStatementError):
            behind.run(session, lambda s, sql=sql: s.connection().exec_driver_sql(sql))
    assert behind.run(session, _raw) == [1, 3]


def test_the_tenant_is_told_after_each_end(behind: Guarded) -> None:
    session = _bound(behind, "a")
    for end in (session.commit, session.rollback, session.commit):
        assert behind.run(session, _raw) == [1, 3]
        behind.face(end)
    with pytest.raises(DBAPIError):
        behind.run(session, lambda s: s.execute(text("SELECT 1/0 FROM accounts")))
    behind.face(session.rollback)
    assert behind.run(session, _raw) == [1, 3]


def test_the_tenant_outlives_a_savepoint(behind: Guarded) -> None:
    def orm(session: Session) -> Any:
        nested = session.begin_nested()
        inside = _raw(session)
        nested.rollback()
        return inside, _raw(session)

    def core(session: Session) -> Any:
        nested = session.connection().begin_nested()
        inside = _raw(session)
        nested.rollback()
        return inside, _raw(session)

    for work in (orm, core):
        session = _bound(behind, "b")
        assert behind.run(session, work) == ([2], [2])
        behind.face(session.close)


def test_the_pool_carries_nothing_to_the_next(behind: Guarded) -> None:
    for _ in range(5):
        for tenant, expected in (("a", [1, 3]), ("b", [2])):
            session = _bound(behind, tenant)
            assert behind.run(session, _raw) == expected
            behind.face(session.close)
    with behind.face.session() as bare:
        assert behind.run(bare, _raw) == []


def test_a_change_of_tenant_is_told(behind: Guarded) -> None:
    session = behind.session()
    with tenant_scope(session, "a"):
        assert behind.run(session, _raw) == [1, 3]
    behind.face(session.commit)
    with tenant_scope(session, "b"):
        assert behind.run(session, _raw) == [2]


def test_unscoped_goes_across_and_comes_back(behind: Guarded) -> None:
    session = _bound(behind, "a")
    assert behind.run(session, _raw) == [1, 3]
    with unscoped(session, reason="report"):
        assert behind.run(session, _raw) == [1, 2, 3]
        assert len(behind.run(session, lambda s: s.scalars(select(Account)).all())) == 3
    assert behind.run(session, _raw) == [1, 3]
    other = behind.session()
    with unscoped(other, reason="report"):
        assert behind.run(other, _raw) == [1, 2, 3]


def test_the_orm_and_repositories_work_behind_it(behind: Guarded) -> None:
    session = behind.session()
    accounts = behind.face.repository(session, Account, "a")
    assert sorted(each.id for each in behind.face(accounts.list)) == [1, 3]
    made = behind.face(accounts.create, {"id": 50, "name": "new"})
    assert made.tenant_id == "a"
    assert behind.face(accounts.delete, 50, soft_delete=False)
    assert behind.face(accounts.get_by_id, 2) is None


def test_what_it_costs(behind: Guarded) -> None:
    """One statement more in each transaction, whatever the number of its statements."""
    session = _bound(behind, "a")
    with counted(behind.face.engine) as sent:
        behind.run(session, lambda s: [_raw(s) for _ in range(3)])
        behind.face(session.commit)
        behind.run(session, _raw)
    told = [each for each in sent if "set_config" in each]
    assert len(told) == 2
    assert sent.count("BEGIN") == 2
    assert len(sent) == 2 + 2 + 4 + 1


def test_dropping_undoes_creating(owner: Database) -> None:
    with owner.engine.connect() as connection:
        for statement in RLS.drop_statements():
            connection.exec_driver_sql(statement)
        assert len(connection.execute(select(Note.__table__)).all()) == 4
        assert {each.risk for each in RLS.verify(connection)} >= {"it has no policy"}
        connection.rollback()


def test_metadata_without_tenants_needs_nothing() -> None:
    assert RowLevelSecurity(MetaData()).create_statements() == []


def test_a_long_name_is_not_cut_to_anothers(owner: Database) -> None:
    with owner.engine.connect() as connection:
        long = "a" * 128
        connection.execute(text("SELECT set_config('dotmac.tenant_id', :t, true)"), {"t": long})
        connection.execute(text("INSERT INTO labels (tenant_id, id, name) VALUES (:t, 900, 'x')"), {"t": long})
        connection.execute(text("SELECT set_config('dotmac.tenant_id', :t, true)"), {"t": long + "b"})
        assert connection.execute(text("SELECT id FROM labels")).all() == []
        connection.rollback()


@pytest.fixture
def pgbouncer(owner: Database, tmp_path: Path) -> Iterator[int]:
    """PgBouncer in transaction mode with two server connections; gives its port."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    port, url = free_port(), owner.url
    users = tmp_path / "users.txt"
    users.write_text(f'"{ROLE}" "dotmac"\n')
    (tmp_path / "pgbouncer.ini").write_text(
        f"[databases]\n{url.database} = host={url.host} port={url.port} dbname={url.database}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = plain\nauth_file = {users}\n"
        "pool_mode = transaction\ndefault_pool_size = 2\nmax_client_conn = 100\nunix_socket_dir =\n"
        f"logfile = {tmp_path}/log\npidfile = {tmp_path}/pid\n"
    )
    for path in (tmp_path, users, tmp_path / "pgbouncer.ini"):
        shutil.chown(path, "postgres" if _known("postgres") else None) if _known("postgres") else None
        path.chmod(0o777)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    command = (
        [program, "-u", "postgres", str(tmp_path / "pgbouncer.ini")]
        if _known("postgres")
        else [program, str(tmp_path / "pgbouncer.ini")]
    )
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60  # a busy machine starts processes slowly
    try:
        while True:
            try:
                psycopg.connect(host="127.0.0.1", port=port, dbname=url.database, user=ROLE, password="dotmac").close()
                break
            except psycopg.OperationalError:
                log = tmp_path / "log"
                assert process.poll() is None, log.exists() and log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(60)


def _known(user: str) -> bool:
    import os
    import pwd

    return os.geteuid() == 0 and any(each.pw_name == user for each in pwd.getpwall())


@pytest.mark.parametrize("name", ["sync", "async"])
def test_a_transaction_pooler_leaks_nothing(owner: Database, pgbouncer: int, name: str) -> None:
    """1,000 transactions of alternating tenants over two server connections."""
    database = create_database(
        owner.url.set(host="127.0.0.1", port=pgbouncer), transaction_pooler=True, pool_size=5, max_overflow=0
    )
    face = Face(name, database)
    sessions = Guarded(face, rls=RLS)
    pair = [_bound(sessions, "a"), _bound(sessions, "b")]
    expected = {0: [1, 3], 1: [2]}
    for turn in range(500):
        for index, session in enumerate(pair):
            assert sessions.run(session, _raw) == expected[index]
            face(session.rollback if turn % 3 == index else session.commit)
    with face.session() as bare:
        assert sessions.run(bare, _raw) == []
    sessions.close()
    if face.is_async:
        face.runner.run(database.async_engine.dispose())
    database.dispose()
    face.runner.close()


def test_rls_on_sqlite_is_no_ring(tmp_path: Path) -> None:
    """Raw SQL is refused where there are no policies, also when the maker was given some."""
    database = create_database(f"sqlite:///{tmp_path}/test.db")
    Base.metadata.create_all(database.engine)
    with guard_tenants(database.sessions, rls=RLS)() as session:
        bind_tenant(session, "a")
        with pytest.raises(UnscopedStatementError):
            _raw(session)
    database.dispose()


AWKWARD = [
    *(
        "o'brien",
        "a\\",
        "\\'; SELECT 1; --",
        "'; ROLLBACK; SELECT set_config('dotmac.tenant_id', 'b', true); --",
        "$$",
        "$1",
    ),
    *(
        "%s",
        "%(v0)s",
        ":tenant",
        "E'x'",
        'quo"ted',
        "über",
        "\N{SNOWMAN}\N{GRINNING FACE}",
        "x" * 300,
        " a",
        "line\nbreak",
    ),
]
"""Tenants whose names would end a literal, be a placeholder, or be changed by a careless quotation."""


@pytest.fixture(params=["on", "off"])
def literals(owner: Database, request: pytest.FixtureRequest) -> Iterator[None]:
    """Each setting of ``standard_conforming_strings``: "off" makes a backslash in a literal begin an escape."""
    with owner.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER ROLE CURRENT_USER SET standard_conforming_strings = {request.param}")
    owner.engine.dispose()
    yield
    with owner.engine.begin() as connection:
        connection.exec_driver_sql("ALTER ROLE CURRENT_USER RESET standard_conforming_strings")
    owner.engine.dispose()


@pytest.mark.usefixtures("literals")
@pytest.mark.parametrize("tenant", AWKWARD, ids=range(len(AWKWARD)))
def test_a_transaction_begins_with_exactly_the_tenants_name(behind: Guarded, tenant: str) -> None:
    """The driver sends the name in the same message as BEGIN, for every setting of the server for literals."""
    session = behind.session()
    bind_tenant(session, tenant)
    accounts = behind.face.repository(session, Account, tenant)
    assert behind.face(accounts.list) == []
    assert session.in_transaction()
    current = "SELECT current_setting('{}')"
    assert behind.run(session, lambda s: s.scalar(text(current.format(SETTING)))) == tenant
    assert behind.run(session, lambda s: s.scalar(text(current.format(ALL_TENANTS_SETTING)))) == ""


def test_after_a_failed_first_write_the_transaction_still_has_its_tenant(behind: Guarded) -> None:
    """The whole transaction was rolled back, and its tenant with it, so SQLAlchemy's next statement sends it again."""
    session = _bound(behind, "a")
    face = behind.face
    open_block = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
    with face.entered(open_block(session)):
        with pytest.raises(DuplicateEntityError):
            face(face.repository(session, Account, "a").create, {"id": 1, "name": "again"})
        assert behind.run(session, _raw) == [1, 3]


@pytest.mark.fast_way("joined-messages")
@pytest.mark.parametrize("signed", [False, True])
def test_a_signed_tenant_is_in_no_text_that_other_sessions_can_read(owner: Database, signed: bool) -> None:
    """PostgreSQL shows the text of a session's last statement to other sessions of its role, but not the values."""
    rls = RowLevelSecurity(Base.metadata, secret="a secret of sixteen bytes" if signed else None)
    face = Face("async", owner)
    last = text("SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%set_config%'")

    def begin(session: Session) -> None:
        connection = session.connection()
        settings = opening(connection, providers_for(session, ()))
        assert settings is not None
        assert settings.is_secret is signed
        driver = driver_of(connection.dialect)
        assert driver is not None
        driver.open(link_of(connection.connection), settings)

    async def run() -> list[str]:
        maker = guard_tenants(async_sessionmaker(owner.async_engine, expire_on_commit=False), rls=rls)
        async with maker() as session, owner.async_engine.connect() as other:
            bind_tenant(session, "a")
            await session.run_sync(begin)
            texts = [str(each) for each in (await other.execute(last)).scalars()]
            await session.rollback()
            return texts

    try:
        texts = face(run)
    finally:
        face.runner.run(owner.async_engine.dispose())
        del owner.__dict__["async_engine"]
        face.runner.close()
    assert len(texts) == 1
    assert ("$1" in texts[0]) is signed
    assert ("decode('61', 'hex')" in texts[0]) is not signed
