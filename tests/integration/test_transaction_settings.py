"""Settings of a transaction, such as an actor, arrive before each way of writing, and cost reads nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from sqlalchemy import DDL, event, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from dotmac_database import (
    DatabaseTransaction,
    RowLevelSecurity,
    TenantMixin,
    bind_tenant,
    guard_tenants,
)
from dotmac_database.errors import DuplicateEntityError
from dotmac_database.execution.settings import FOR_WRITES, add_provider, provide_for_writes
from dotmac_database.execution.state import SettingsProvider
from dotmac_database.tenancy.rls.policies import SETTING
from tests.conftest import DRIVERS, Face, Faces, counted
from tests.sync_work import create_anew, sync

NAME = "dotmac.test_setting"
VALUE: ContextVar[str | None] = ContextVar("value", default=None)


class Base(DeclarativeBase):
    """The tables of these tests."""


class Noted(TenantMixin, Base):
    """A row notes the setting of its transaction."""

    __tablename__ = "noted_settings"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    value: Mapped[str | None]


class Plain(Base):
    """A table that needs no setting."""

    __tablename__ = "plain_settings"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]


NOTED: Any = Noted.__table__

SQLITE = """
CREATE TABLE IF NOT EXISTS dotmac_settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TRIGGER note_setting AFTER INSERT ON noted_settings BEGIN
UPDATE noted_settings SET value = (SELECT NULLIF(value, '') FROM dotmac_settings WHERE name = 'dotmac.test_setting')
WHERE id = NEW.id; END
"""
POSTGRESQL = f"""
CREATE FUNCTION note_setting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.value := NULLIF(current_setting('{NAME}', true), ''); RETURN NEW; END $$;
CREATE TRIGGER note_setting BEFORE INSERT ON noted_settings FOR EACH ROW EXECUTE FUNCTION note_setting()
"""
for _dialect, _script in (("sqlite", SQLITE.split(";\n")), ("postgresql", POSTGRESQL.split(";\n"))):
    for _statement in _script:
        event.listen(NOTED, "after_create", DDL(_statement).execute_if(dialect=_dialect))  # type: ignore[no-untyped-call]

PROVIDER = SettingsProvider(VALUE.get, lambda value: {NAME: str(value or "")}, for_triggers=True)


@pytest.fixture(autouse=True)
def provided() -> Iterator[None]:
    """Provide the setting for writes to the table that notes it."""
    provide_for_writes(PROVIDER, lambda table: table is NOTED)
    yield
    FOR_WRITES[:] = [each for each in FOR_WRITES if each.provider is not PROVIDER]


@pytest.fixture(params=DRIVERS)
def on(request: pytest.FixtureRequest, faces: Faces) -> Face:
    """The face of each driver, with empty tables."""
    face = faces[request.param]
    if face.engine.dialect.name == "postgresql":
        drop = "DROP FUNCTION IF EXISTS note_setting CASCADE"
        sync(face, lambda session: session.connection().exec_driver_sql(drop) and session.commit())
    return create_anew(face, Base.metadata)


def values(face: Face) -> list[str | None]:
    return sync(face, lambda session: list(session.scalars(select(Noted.value).order_by(Noted.id))))  # type: ignore[no-any-return]


def rows(count: int) -> list[dict[str, object]]:
    return [{"id": number, "name": "n", "tenant_id": "t"} for number in range(count)]


def _core(session: Session) -> None:
    session.execute(insert(NOTED), rows(1))
    session.commit()


def _unit_of_work(session: Session) -> None:
    session.add(Noted(**rows(1)[0]))
    session.commit()


def _raw(session: Session) -> None:
    session.execute(text("INSERT INTO noted_settings (id, name, tenant_id) VALUES (1, 'n', 't')"))
    session.commit()


def _by_engine(session: Session) -> None:
    with session.get_bind().engine.begin() as connection:  # type: ignore[union-attr]
        connection.execute(insert(NOTED), rows(1))


def _from_statement(session: Session) -> None:
    statement = select(Noted).from_statement(insert(Noted).values(rows(1)).returning(Noted))
    assert session.scalars(statement).one().id == 0
    session.commit()


WAYS: dict[str, Callable[[Face, Any, Any], object]] = {
    "create": lambda face, _session, noted: face(noted.create, rows(1)[0]),
    "few": lambda face, _session, noted: face(noted.bulk_create, rows(3)),
    "arrays": lambda face, _session, noted: face(noted.bulk_create, rows(30)),
    "copy": lambda face, _session, noted: face(noted.bulk_create, rows(600), returning=False),
    "upsert": lambda face, _session, noted: face(noted.upsert, rows(1)[0], conflict_fields=["id"]),
    "core": lambda face, session, _noted: sync(face, _core, session),
    "unit of work": lambda face, session, _noted: sync(face, _unit_of_work, session),
    "raw": lambda face, session, _noted: sync(face, _raw, session),
    "engine": lambda face, session, _noted: sync(face, _by_engine, session),
    "from statement": lambda face, session, _noted: sync(face, _from_statement, session),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_writing_has_the_setting(on: Face, way: str) -> None:
    for expected in ("first", None, "it's \\ a %s :name"):
        sync(on, lambda session: (session.execute(NOTED.delete()), session.commit()))
        token = VALUE.set(expected)
        try:
            with on.session() as session:
                WAYS[way](on, session, on.repository(session, Noted, "t"))
        finally:
            VALUE.reset(token)
        assert set(values(on)) == {expected}
    assert left_behind(on) == []


def left_behind(face: Face) -> list[Any]:
    """The settings that SQLite's table has after a commit."""
    if face.engine.dialect.name == "postgresql":
        return []
    return sync(face, lambda session: session.execute(text("SELECT * FROM dotmac_settings")).all())  # type: ignore[no-any-return]


def test_a_change_within_a_transaction_is_announced_before_the_next_write(on: Face) -> None:
    block = DatabaseTransaction.async_transaction if on.is_async else DatabaseTransaction.sync_transaction
    with on.session() as session:
        noted = on.repository(session, Noted, "t")
        with on.entered(block(session)):
            for number, value in enumerate(["a", "b", "b", None, "c"]):
                token = VALUE.set(value)
                on(noted.create, {"id": number, "name": "n"})
                VALUE.reset(token)
    assert values(on) == ["a", "b", "b", None, "c"]
    assert left_behind(on) == []


def test_it_is_announced_again_after_a_rollback_to_a_savepoint(on: Face) -> None:
    block = DatabaseTransaction.async_transaction if on.is_async else DatabaseTransaction.sync_transaction
    token = VALUE.set("a")
    try:
        with on.session() as session:
            noted = on.repository(session, Noted, "t")
            with on.entered(block(session)):
                nested = sync(on, lambda session: session.begin_nested(), session)
                on(noted.create, {"id": 1, "name": "n"})
                if on.is_async:
                    sync(on, lambda _: nested.rollback(), session)
                else:
                    nested.rollback()
                on(noted.create, {"id": 2, "name": "n"})
                with pytest.raises(DuplicateEntityError):
                    on(noted.create, {"id": 2, "name": "n"})
                on(noted.create, {"id": 3, "name": "n"})
    finally:
        VALUE.reset(token)
    assert values(on) == ["a", "a"]


def test_reads_and_other_tables_send_nothing(on: Face) -> None:
    def sent() -> list[str]:
        with on.session() as session, counted(on.engine) as statements:
            noted, plain = on.repository(session, Noted, "t"), on.repository(session, Plain)
            on(noted.get_by_id, 1)
            on(noted.list)
            on(plain.create, {"id": len(statements) + next(_NUMBERS), "name": "n"})
            sync(on, lambda session: session.execute(text("SELECT 1")), session)
        return statements

    before = sent()
    token = VALUE.set("a")
    try:
        assert sent() == before
    finally:
        VALUE.reset(token)
    with on.session() as session, counted(on.engine) as statements:
        on(on.repository(session, Noted, "t").create, {"id": 90, "name": "n"})
    assert not [each for each in statements if "dotmac" in each or "set_config" in each]


_NUMBERS = iter(range(100, 1000, 10))


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_the_tenant_and_another_setting_are_one_message(faces: Faces, driver: str) -> None:
    face = faces[driver]
    sync(face, lambda session: (Base.metadata.create_all(session.connection()), session.commit()))
    maker: Any = (async_sessionmaker if face.is_async else sessionmaker)(
        face.database.async_engine if face.is_async else face.engine
    )
    guard_tenants(maker, rls=RowLevelSecurity(Base.metadata))
    session = maker()
    bind_tenant(session, "t")
    add_provider(session.sync_session if face.is_async else session, PROVIDER)
    names = text(f"SELECT current_setting('{SETTING}'), current_setting('{NAME}')")
    token = VALUE.set("a")
    try:
        with counted(face.engine) as sent:
            assert sync(face, lambda session: session.execute(names).one(), session) == ("t", "a")
            assert sync(face, lambda session: session.execute(names).one(), session) == ("t", "a")
        assert len([each for each in sent if "set_config" in each]) == 1
    finally:
        VALUE.reset(token)
        face(session.close)


def test_nothing_is_announced_before_a_failed_savepoint_is_rolled_back(on: Face) -> None:
    if on.engine.dialect.name == "sqlite":
        pytest.skip("a failed statement does not spoil SQLite's transaction")
    token = VALUE.set("a")
    try:
        with on.session() as session:
            add_provider(session.sync_session if on.is_async else session, PROVIDER)
            sync(on, _fail_twice, session)
    finally:
        VALUE.reset(token)


def _fail_twice(session: Any) -> None:
    shown = text(f"SELECT current_setting('{NAME}')")
    for _ in range(2):
        assert session.scalar(shown) == "a"
        nested = session.begin_nested()
        with pytest.raises(DBAPIError, match="division by zero"):
            session.execute(text("SELECT 1 / 0"))
        nested.rollback()
        assert session.scalar(shown) == "a"
    session.rollback()


def test_a_session_can_have_a_provider_for_reads_too(on: Face) -> None:
    if on.engine.dialect.name == "sqlite":
        pytest.skip("SQLite's settings are for triggers, so that reads never see them")
    token = VALUE.set("a")
    try:
        with on.session() as session:
            add_provider(session.sync_session if on.is_async else session, PROVIDER)
            read = text(f"SELECT current_setting('{NAME}')")
            assert sync(on, lambda session: session.execute(read).scalar(), session) == "a"
            on(session.rollback)
            assert on(on.repository(session, Noted, "t").list) == []
    finally:
        VALUE.reset(token)
