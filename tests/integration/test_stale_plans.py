"""Plans that the server refuses since the schema has changed: what is sent again, and what never is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import (
    Database,
    DatabaseTransaction,
    RowLevelSecurity,
    TenantMixin,
    TransactionError,
    bind_tenant,
    create_database,
    guard_tenants,
    is_transient,
)
from dotmac_database.dialects.stale_plans import is_stale_plan
from tests.conftest import Face


class Local(DeclarativeBase):
    """The table that is changed."""


class Thing(TenantMixin, Local):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    size: Mapped[int]


@pytest.fixture(params=["psycopg", "psycopg_async", "asyncpg"])
def face(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[Face]:
    """A pool of one connection that prepares at once, over a table with one row."""
    driver = request.param.removesuffix("_async")
    connect: dict[str, Any] = {"prepare_threshold": 0} if driver == "psycopg" else {}
    url = postgres_url.replace("postgresql:", f"postgresql+{driver}:")
    database: Database = create_database(url, pool_size=1, max_overflow=0, connect_args=connect)
    migrate(postgres_url, "DROP TABLE IF EXISTS things, logs; CREATE TABLE logs (number integer)")
    migrate(postgres_url, "CREATE TABLE things (id integer PRIMARY KEY, size integer, tenant_id varchar)")
    migrate(postgres_url, "INSERT INTO things VALUES (1, 1, 'a')")
    made = Face("sync" if request.param == "psycopg" else "async", database)
    yield made
    if made.is_async:
        made.runner.run(database.dispose_async())
    database.dispose()
    made.runner.close()


def migrate(url: str, statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statements.encode())


WIDER = "ALTER TABLE things ALTER COLUMN size TYPE bigint"


def read(face: Face, session: Any) -> Any:
    return face(face.repository(session, Thing, "a").list)


def block(session: Any, face: Face) -> Any:
    make = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
    return face.entered(make(session))


def raw(face: Face, session: Any, statement: str) -> None:
    """A statement by the driver, of which SQLAlchemy knows nothing."""
    connection = face(session.connection)
    connection = connection.sync_connection if face.is_async else connection
    sent = connection.connection.driver_connection.execute(statement)
    if face.is_async:
        face(lambda: sent)


def test_what_the_driver_alone_has_written_is_never_undone(face: Face, postgres_url: str) -> None:
    if face.database.url.get_driver_name() == "asyncpg":
        pytest.skip("asyncpg's driver commits it by itself, before SQLAlchemy begins")
    for number in range(4):
        with face.session() as session:
            if number == 3:
                migrate(postgres_url, WIDER)
            try:
                raw(face, session, f"INSERT INTO logs VALUES ({number})")
                read(face, session)
                face(session.commit)
            except TransactionError as refused:
                assert number == 3 and refused.transient  # noqa: PT017, PT018 - a write is lost, and is said to be
                face(session.rollback)
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM logs").fetchone() == (3,)


def test_after_other_work_it_is_transient_and_the_next_attempt_is_right(face: Face, postgres_url: str) -> None:
    def attempt(number: int) -> None:
        with face.session() as session, block(session, face):
            face(face.repository(session, Thing, "a").create, {"id": number, "size": 1})
            assert len(read(face, session)) >= 2

    attempt(2)
    attempt(3)
    migrate(postgres_url, WIDER)
    with pytest.raises(TransactionError) as refused, face.session() as session, block(session, face):  # noqa: PT012
        sent = session.execute(text("INSERT INTO logs VALUES (1)"))
        if face.is_async:
            face(lambda: sent)
        read(face, session)
    assert refused.value.transient
    assert refused.value.sqlstate == "0A000"
    assert is_transient(refused.value)
    attempt(4)


def test_features_that_the_server_does_not_have_are_another_matter(face: Face) -> None:
    """SQLSTATE 0A000, too."""
    with face.session() as session, pytest.raises(DBAPIError) as refused:
        face(session.execute, text("SELECT 1 FROM things FOR UPDATE NOWAIT SKIP LOCKED OFFSET 1; CREATE DATABASE x"))
    assert not is_stale_plan(refused.value.orig)
    with face.session() as session, pytest.raises(DBAPIError) as refused:
        face(session.execute, text("SELECT count(*) FROM things FOR UPDATE"))
    assert getattr(refused.value.orig, "sqlstate", None) == "0A000"
    assert not is_transient(refused.value)


def test_what_somebody_else_has_deallocated_is_prepared_anew(face: Face) -> None:
    """As a pooler does it, or DISCARD ALL."""
    for number in range(6):
        with face.session() as session:
            assert len(read(face, session)) == 1
        if number == 3:
            with face.session() as session:
                raw(face, session, "DEALLOCATE ALL  ")
                face(session.commit)


def test_the_tenants_setting_is_sent_again_with_the_statement(face: Face, postgres_url: str) -> None:
    """Row-level security: each transaction begins with the tenant's setting, and a read has a transaction."""
    rls = RowLevelSecurity(Local.metadata)
    maker: Any = face.database.async_sessions if face.is_async else face.database.sessions
    guarded = guard_tenants(type(maker)(face.database.async_engine if face.is_async else face.engine), rls=rls)
    migrate(postgres_url, "; ".join(rls.create_statements()))
    for number in range(5):
        if number == 3:
            migrate(postgres_url, WIDER)
        session = guarded()
        bind_tenant(session, "a")
        things = face.repository(session, Thing, "a")
        assert len(face(things.list)) == number + 1
        face(things.create, {"id": number + 2, "size": 1})
        face(session.close)


@pytest.mark.parametrize("names", [("_prepared",)])
def test_what_is_private_is_there(names: tuple[str, ...], postgres_url: str) -> None:
    from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

    with psycopg.connect(postgres_url) as connection:
        assert all(hasattr(connection, name) for name in names)
        assert callable(connection._prepared.clear)
    assert callable(PGDialect_asyncpg._invalidate_schema_cache)
    assert asyncio.iscoroutinefunction(__import__("asyncpg").Connection.reload_schema_state)
