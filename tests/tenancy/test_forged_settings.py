"""Whoever can send SQL tries to name another tenant: with a secret all SQL passes, without one the known alone.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import psycopg
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, event, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from dotmac_database import RowLevelSecurity, UnscopedStatementError, ValidationError, bind_tenant, unscoped
from dotmac_database.engines import Database, create_database
from tests.conftest import Face, counted

from .conftest import Guarded, fill
from .models import Account, Base, Note
from .test_raw_sql import FORGERIES

SECRET = "a secret of more than sixteen bytes"
SIGNED = RowLevelSecurity(Base.metadata, secret=SECRET)
PLAIN = RowLevelSecurity(Base.metadata)
OWNER, ROLE = "dotmac_forged_owner", "dotmac_forged_app"
WAYS: dict[str, Callable[[Session, str], Any]] = {
    "text": lambda session, sql: session.execute(text(sql.replace(":", "\\:"))),
    "driver": lambda session, sql: session.connection().exec_driver_sql(sql),
    "no parameters": lambda session, sql: session.connection().exec_driver_sql(
        sql, execution_options={"no_parameters": True}
    ),
    "core": lambda session, sql: session.connection().execute(text(sql.replace(":", "\\:"))),
}


def _owned(postgres_url: str, rls: RowLevelSecurity) -> Iterator[Database]:
    """Tables that OWNER owns and ROLE, which is no more than an application's role, uses; gives ROLE's database."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for role in (OWNER, ROLE):
            if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone() is None:
                connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'dotmac' NOSUPERUSER NOBYPASSRLS")
        connection.execute(f"ALTER DATABASE {connection.info.dbname} OWNER TO {OWNER}")
        connection.execute(f"ALTER SCHEMA public OWNER TO {OWNER}")
    superuser = create_database(postgres_url)
    owner = create_database(superuser.url.set(username=OWNER, password="dotmac"))
    app = create_database(superuser.url.set(username=ROLE, password="dotmac"), pool_size=1, max_overflow=0)
    with owner.engine.begin() as connection:
        Base.metadata.create_all(connection)
        fill(connection)
        for table in Base.metadata.sorted_tables:
            connection.exec_driver_sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table.name} TO {ROLE}")
        rls.apply(connection)
        rls.apply(connection)
    yield app
    app.dispose()
    owner.dispose()
    superuser.dispose()


@pytest.fixture(scope="module", params=["signed", "plain"])
def rls(request: pytest.FixtureRequest) -> RowLevelSecurity:
    return SIGNED if request.param == "signed" else PLAIN


@pytest.fixture(scope="module")
def app(postgres_server: str, rls: RowLevelSecurity) -> Iterator[Database]:
    name = f"forged_{'plain' if rls.signer is None else 'signed'}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    yield from _owned(f"{postgres_server.rpartition('/')[0]}/{name}", rls)
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def owner(app: Database) -> Iterator[Database]:
    database = create_database(app.url.set(username=OWNER))
    yield database
    database.dispose()


@pytest.fixture(scope="module", params=["sync", "async"])
def face(app: Database, request: pytest.FixtureRequest) -> Iterator[Face]:
    face = Face(request.param, app)
    yield face
    if face.is_async:
        face.runner.run(app.async_engine.dispose())
        del app.__dict__["async_engine"]
        app.__dict__.pop("async_sessions", None)
    face.runner.close()


@pytest.fixture
def behind(face: Face, rls: RowLevelSecurity) -> Iterator[Guarded]:
    made = Guarded(face, rls=rls)
    yield made
    made.close()


def _bound(behind: Guarded, tenant: str) -> Any:
    session = behind.session()
    bind_tenant(session, tenant)
    return session


def _seen(session: Session) -> list[str]:
    return sorted(row[0] for row in session.execute(text("SELECT tenant_id FROM accounts")))


def _attempt(behind: Guarded, session: Any, way: str, sql: str) -> bool:
    """Send ``sql`` as it is; False: it was refused, or is an error."""
    try:
        behind.run(session, lambda s: WAYS[way](s, sql))
    except (DBAPIError, UnscopedStatementError):
        return False
    return True


# COMMIT is SQLAlchemy's own word, too: after it there is no tenant. A COPY leaves psycopg's connection unusable.
SENT = [each for each in FORGERIES if each and "\x00" not in each and not each.startswith("COPY")]


@pytest.mark.parametrize("way", WAYS)
def test_no_forgery_shows_a_foreign_row(behind: Guarded, rls: RowLevelSecurity, way: str) -> None:
    """In its own transaction, after its commit, and to whom the pooled connection serves next."""
    for sql in SENT:
        session = _bound(behind, "a")
        # text() doubles a percent sign, which makes a string, or nothing at all, of what follows it.
        if rls.signer is None and sql != "COMMIT" and ("%" not in sql or way in ("driver", "no parameters")):
            with pytest.raises(UnscopedStatementError):
                behind.run(session, lambda s, sql=sql: WAYS[way](s, sql))
        for end in ("in the transaction", "after the commit"):
            if end == "in the transaction" and not _attempt(behind, session, way, sql):
                behind.face(session.rollback)
            assert "b" not in _seen_now(behind, session), (sql, end)
            behind.face(session.commit)
        behind.face(session.close)
        with behind.face.session() as bare:
            assert behind.run(bare, _seen) == [], sql
        other = _bound(behind, "b")
        assert behind.run(other, _seen) == ["b"], sql
        behind.face(other.close)


def _seen_now(behind: Guarded, session: Any) -> list[str]:
    """What the session sees, nothing where the SQL before it spoiled the transaction or the search path."""
    try:
        return behind.run(session, _seen)
    except DBAPIError:
        behind.face(session.rollback)
        return []


def _is_free(owner: Database, lock: int) -> bool:
    """Whether nobody holds a lock, once the server has ended what was closed: it does so after the client has gone on.

    The lock is taken for a transaction, so that this connection does not hold it itself when the next test asks.
    """
    until = time.monotonic() + 60
    while True:
        with owner.engine.connect() as connection:
            if connection.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": lock}):
                return True
        if time.monotonic() > until:
            return False
        time.sleep(0.02)


STAYS = {
    "a role": "SET ROLE NONE",
    "a search path": "SET search_path = pg_temp",
    "a table that hides another": "CREATE TEMP TABLE accounts AS SELECT * FROM accounts",
    "a table by INTO": "SELECT * INTO TEMP accounts FROM accounts",
    "the tenant": "SET dotmac.tenant_id = 'a'",
    "another tenant": "SET dotmac.all_tenants = 'on'; COMMIT; SET dotmac.tenant_id = 'b'; BEGIN",
    "its own signature": "SELECT set_config('dotmac.tenant_id', current_setting('dotmac.tenant_id'), false)",
    "a function's doing": "SELECT ts_stat('SELECT set_config(''dotmac.tenant_id'', ''a'', false)::tsvector')",
    "a lock": "SELECT pg_advisory_lock(7)",
}


@pytest.mark.parametrize("name", STAYS)
@pytest.mark.parametrize("across", [False, True])
def test_nothing_stays_on_the_connection(
    behind: Guarded, owner: Database, rls: RowLevelSecurity, name: str, across: bool
) -> None:
    session = _bound(behind, "a")
    with unscoped(session, reason="test") if across else nullcontext():
        passed = _attempt(behind, session, "no parameters", STAYS[name])
    # asyncpg sends one statement at a time.
    assert passed is ((across or rls.signer is not None) and not (behind.face.is_async and ";" in STAYS[name]))
    behind.face(session.commit)
    behind.face(session.close)
    with behind.face.session() as bare:
        assert behind.run(bare, _seen) == []
        shown = "SELECT current_setting('dotmac.tenant_id', true), current_setting('dotmac.all_tenants', true)"
        assert not any(behind.run(bare, lambda s: s.execute(text(shown)).one()))
    other = _bound(behind, "b")
    assert behind.run(other, _seen) == ["b"]
    assert _is_free(owner, 7)


def test_only_raw_sql_of_unknown_structure_pays(behind: Guarded, rls: RowLevelSecurity) -> None:
    opened: list[Any] = []
    event.listen(behind.face.engine, "connect", lambda *each: opened.append(each))
    session = _bound(behind, "a")
    with counted(behind.face.engine) as sent:
        for work in (_seen, lambda s: s.scalars(select(Account)).all(), lambda s: s.execute(text("SELECT now()"))):
            behind.run(session, work)
            behind.face(session.commit)
            behind.face(session.close)
    assert len(sent) == 3 * 4, sent  # BEGIN, the tenant, the statement, COMMIT
    before = len(opened)
    assert before <= 1
    with unscoped(session, reason="test"), counted(behind.face.engine) as sent:
        behind.run(session, lambda s: s.execute(text("SELECT pg_advisory_xact_lock(1)")))
        behind.face(session.commit)
        behind.face(session.close)
        behind.run(session, _seen)
    assert sum("set_config" in each for each in sent) == 3
    assert len(opened) == before + 1


def test_a_failed_transaction_can_be_committed(behind: Guarded) -> None:
    """PostgreSQL makes a rollback of it; emptying the settings before it must not raise."""
    session = _bound(behind, "a")
    with unscoped(session, reason="test"):
        with pytest.raises(DBAPIError):
            behind.run(session, lambda s: s.execute(text("SELECT pg_advisory_xact_lock(1), 1/0")))
        behind.face(session.commit)
    assert behind.run(session, _seen) == ["a", "a"]


def test_both_databases_are_sound(app: Database, rls: RowLevelSecurity) -> None:
    with app.engine.connect() as connection:
        assert rls.verify(connection) == []


@pytest.mark.parametrize("rls", ["signed"], indirect=True, scope="module")
class TestSigned:
    """What only signatures do."""

    def test_the_orm_and_repositories_work_behind_it(self, behind: Guarded) -> None:
        session = behind.session()
        accounts = behind.face.repository(session, Account, "a")
        assert sorted(each.id for each in behind.face(accounts.list)) == [1, 3]
        made = behind.face(accounts.create, {"id": 50, "name": "new"})
        assert behind.face(accounts.delete, made.id, soft_delete=False)
        assert behind.face(accounts.get_by_id, 2) is None
        behind.face(session.close)
        devices = "00000000-0000-0000-0000-00000000000a"
        other = _bound(behind, devices)
        found = behind.run(other, lambda s: s.scalars(text("SELECT name FROM devices")).all())
        assert found == ["ten"]
        behind.face(other.close)
        children = _bound(behind, "a")
        assert behind.run(children, lambda s: s.scalars(text("SELECT id FROM dogs")).all()) == [11]
        assert behind.run(children, lambda s: s.scalars(select(Note.id)).all()) == [1, 3]

    def test_unscoped_goes_across_and_comes_back(self, behind: Guarded) -> None:
        session = _bound(behind, "a")
        assert behind.run(session, _seen) == ["a", "a"]
        with unscoped(session, reason="report"):
            assert behind.run(session, _seen) == ["a", "a", "b"]
        assert behind.run(session, _seen) == ["a", "a"]

    def test_the_signature_of_one_setting_or_tenant_is_no_others(self, app: Database) -> None:
        signer = SIGNED.signer
        assert signer is not None
        of_a, across = signer.sign("dotmac.tenant_id", "a"), signer.sign("dotmac.all_tenants", "on")
        forged = [
            *[of_a[:64] + "b", of_a[:63] + ("0" if of_a[63] != "0" else "1") + "a", of_a[:64], of_a[:64].upper() + "a"],
            *[
                across[:64] + "a",
                signer.sign("dotmac.tenant_id", "on")[:64] + "a",
                " " + of_a,
                of_a + " ",
                "a",
                "é" * 70,
            ],
            *[
                "0" * 64 + "a",
                "x" * 65,
                RowLevelSecurity(MetaData(), secret=SECRET * 2).signer.sign("dotmac.tenant_id", "a"),
            ],  # type: ignore[union-attr]
        ]
        with app.engine.connect() as connection:
            for value in forged:
                connection.execute(select(func.set_config("dotmac.tenant_id", str(value), True)))
                assert connection.execute(select(Account.__table__)).all() == [], value
            connection.execute(select(func.set_config("dotmac.tenant_id", "", True)))
            for value in (of_a, "on", "true", signer.sign("dotmac.tenant_id", "on"), across[:64] + "off"):
                connection.execute(select(func.set_config("dotmac.all_tenants", str(value), True)))
                assert connection.execute(select(Account.__table__)).all() == [], value
            connection.execute(select(func.set_config("dotmac.tenant_id", str(of_a), True)))
            assert len(connection.execute(select(Account.__table__)).all()) == 2

    @pytest.mark.parametrize("tenant", ["a'b", "ümlaut 日本", "x" * 300, " ", "\\", "%s", "on", "0" * 64])
    def test_any_name_can_be_signed(self, app: Database, tenant: str) -> None:
        signer = SIGNED.signer
        assert signer is not None
        with app.engine.connect() as connection:
            connection.execute(
                select(func.set_config("dotmac.tenant_id", str(signer.sign("dotmac.tenant_id", tenant)), True))
            )
            assert connection.scalar(text("SELECT dotmac.tenant_id()")) == tenant

    def test_the_key_is_the_owners(self, app: Database) -> None:
        for sql in (
            "SELECT * FROM dotmac.signing_keys",
            "INSERT INTO dotmac.signing_keys VALUES (9, '', '')",
            "DELETE FROM dotmac.signing_keys",
            "CREATE OR REPLACE FUNCTION dotmac.tenant_id() RETURNS text LANGUAGE sql AS $$ SELECT 'b' $$",
            "CREATE FUNCTION dotmac.mine() RETURNS text LANGUAGE sql AS $$ SELECT 'b' $$",
            "ALTER FUNCTION dotmac.tenant_id() SECURITY INVOKER",
            "DROP SCHEMA dotmac CASCADE",
        ):
            with app.engine.connect() as connection, pytest.raises(DBAPIError, match=r"permission|owner"):
                connection.exec_driver_sql(sql)

    def test_what_is_in_front_on_the_search_path_is_not_called(self, app: Database) -> None:
        with app.engine.connect() as connection:
            connection.exec_driver_sql(
                "CREATE FUNCTION pg_temp.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT ''::bytea $$"
            )
            connection.exec_driver_sql("SET LOCAL search_path = pg_temp, pg_catalog")
            connection.exec_driver_sql(f"SELECT set_config('dotmac.tenant_id', '{'0' * 64}b', true)")
            assert connection.exec_driver_sql("SELECT tenant_id FROM public.accounts").all() == []
            connection.rollback()

    def test_no_secret_in_statements_logs_or_errors(self, owner: Database, caplog: pytest.LogCaptureFixture) -> None:
        signer = SIGNED.signer
        assert signer is not None
        caplog.set_level(logging.DEBUG, logger="sqlalchemy.engine")
        secrets = [SECRET, *(key.hex() for key in signer._keys), signer.sign("dotmac.tenant_id", "a")[:64]]
        with owner.engine.connect() as connection:
            SIGNED.apply(connection)
            connection.rollback()
        logged = create_database(owner.url, echo=True)
        with logged.engine.connect() as connection:
            sent: list[Any] = []
            event.listen(logged.engine, "before_cursor_execute", lambda *each: sent.append(each[3]))
            SIGNED.install_secret(connection)
            blocks = [str(value) for each in sent if isinstance(each, dict) for value in each.values()]
            blocks += [str(value) for each in sent if isinstance(each, list) for row in each for value in row.values()]
            secrets += [value for value in blocks if len(value) == 128]
            assert len(secrets) == 5
            connection.exec_driver_sql("DROP TABLE dotmac.signing_keys CASCADE")
            connection.exec_driver_sql("CREATE TABLE dotmac.signing_keys (number integer)")
            with pytest.raises(DBAPIError) as caught:
                SIGNED.install_secret(connection)
            connection.rollback()
        logged.dispose()
        printed = caplog.text + repr(caught.value) + str(caught.value) + repr(SIGNED) + repr(vars(SIGNED))
        assert "INSERT INTO dotmac.signing_keys" in printed
        assert "".join(SIGNED.create_statements()) not in printed
        for secret in secrets:
            assert str(secret) not in printed
            assert str(secret) not in "".join(SIGNED.create_statements())

    def test_a_change_of_secrets(self, app: Database, owner: Database) -> None:
        new = RowLevelSecurity(Base.metadata, secret=b"another secret, which is new")
        both = RowLevelSecurity(Base.metadata, secret=("another secret, which is new", SECRET))
        accepted = {"old": SIGNED, "both": both, "new": new}
        for installed, expected in ((both, {"old", "both", "new"}), (new, {"both", "new"}), (SIGNED, {"old"})):
            with owner.engine.begin() as connection:
                installed.install_secret(connection)
            with app.engine.connect() as connection:
                found = {name for name, each in accepted.items() if each.verify(connection) == []}
                assert found == expected

    def test_a_statement_asks_once_and_uses_the_tenants_index(self, app: Database, owner: Database) -> None:
        """The function is in an InitPlan: not called for each row, and its value is looked up in the index."""
        only = RowLevelSecurity(Base.metadata, secret=SECRET, all_tenants=False)
        with owner.engine.connect() as connection:
            only.apply(connection)
            connection.exec_driver_sql("ALTER TABLE accounts NO FORCE ROW LEVEL SECURITY")
            connection.execute(
                text(
                    "INSERT INTO accounts (id, tenant_id, name) SELECT n, 't' || n % 1000, 'x' "
                    "FROM generate_series(1000, 20000) AS n"
                )
            )
            connection.exec_driver_sql("ALTER TABLE accounts FORCE ROW LEVEL SECURITY")
            connection.exec_driver_sql("ANALYZE accounts")
            assert only.signer is not None
            connection.execute(
                select(func.set_config("dotmac.tenant_id", str(only.signer.sign("dotmac.tenant_id", "t7")), True))
            )
            plan = "\n".join(connection.scalars(text("EXPLAIN (ANALYZE) SELECT * FROM accounts")))
            assert "InitPlan" in plan
            assert "ix_accounts_tenant_id" in plan
            assert "Index Cond: ((tenant_id)::text = (InitPlan 1).col1)" in plan
            assert "rows=19" in plan
            SIGNED.apply(connection)
            plan = "\n".join(connection.scalars(text("EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM accounts")))
            assert "InitPlan 1" in plan
            assert "InitPlan 2" in plan
            assert plan.count("loops=1") >= 3
            connection.rollback()


HOLES = {
    "readable keys": (f"GRANT SELECT ON dotmac.signing_keys TO {ROLE}", "signing_keys"),
    "readable column": (f"GRANT SELECT (inner_block) ON dotmac.signing_keys TO {ROLE}", "signing_keys"),
    "no function": ("DROP FUNCTION dotmac.all_tenants() CASCADE", "dotmac.all_tenants()"),
    "another function": (
        (
            "CREATE OR REPLACE FUNCTION dotmac.tenant_id() RETURNS text LANGUAGE sql STABLE "
            "AS $$ SELECT current_setting('dotmac.tenant_id') $$"
        ),
        "dotmac.tenant_id()",
    ),
    "no key": ("DELETE FROM dotmac.signing_keys", "signing_keys"),
    "owner": (f"GRANT {OWNER} TO {ROLE}", "dotmac.tenant_id()"),
    "search path": ("ALTER FUNCTION dotmac.tenant_id() RESET ALL", "dotmac.tenant_id()"),
}


@pytest.mark.parametrize("rls", ["signed"], indirect=True)
@pytest.mark.parametrize("name", HOLES)
def test_each_planted_hole_is_found(app: Database, name: str, postgres_server: str) -> None:
    sql, thing = HOLES[name]
    superuser = create_database(f"{postgres_server.rpartition('/')[0]}/{app.url.database}")
    with superuser.engine.connect() as connection:
        connection.exec_driver_sql(sql)
        connection.exec_driver_sql(f"SET LOCAL SESSION AUTHORIZATION {ROLE}")
        findings = SIGNED.verify(connection)
        connection.rollback()
    superuser.dispose()
    assert any(thing in each.object and each.risk and each.remedy for each in findings), findings


def test_a_short_secret_is_refused() -> None:
    for secret in ("", "fifteen bytes..", b"short", ("long enough for a secret", "short"), ()):
        with pytest.raises(ValidationError) as caught:
            RowLevelSecurity(MetaData(), secret=secret)
        assert "short" not in str(caught.value)


@pytest.mark.parametrize("rls", ["plain"], indirect=True)
def test_without_a_secret_there_is_none_to_install(app: Database) -> None:
    with app.engine.connect() as connection, pytest.raises(ValidationError):
        PLAIN.install_secret(connection)


@pytest.mark.parametrize("rls", [PLAIN, SIGNED])
@pytest.mark.parametrize("name", ["50% off", "a:b", "per%%cent", "%s", "%(x)s", 'quo"ted'])
def test_a_tables_name_may_hold_anything(postgres_url: str, rls: RowLevelSecurity, name: str) -> None:
    metadata = MetaData()
    Table(name, metadata, Column("id", Integer, primary_key=True), Column("tenant_id", Text))
    made = RowLevelSecurity(metadata, secret=None if rls.signer is None else SECRET)
    database = create_database(postgres_url)
    with database.engine.connect() as connection:
        metadata.create_all(connection)
        made.apply(connection)
        made.apply(connection)
        assert [each.object for each in made.verify(connection) if "signing" not in each.object] == [
            "role postgres"
        ] + ([] if rls.signer is None else ["function dotmac.tenant_id()", "function dotmac.all_tenants()"])
        connection.rollback()
    database.dispose()
