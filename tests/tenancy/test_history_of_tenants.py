"""A history belongs to the tenant of its rows, in guarded sessions and under row-level security."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import URL, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from dotmac_database import (
    HistoryMixin,
    RowLevelSecurity,
    TenantIsolationError,
    TenantMixin,
    acting_as,
    bind_tenant,
    bound_tenant,
    create_database,
    guard_tenants,
)
from dotmac_database.history.tables import history_of
from dotmac_database.testing.leaks import find_leaks
from dotmac_database.types import utc_now
from tests.confined import SECRETS, confined_database
from tests.conftest import DRIVERS, Face
from tests.tenancy.conftest import Guarded


class Base(DeclarativeBase):
    """The tables of these tests."""


class Letter(HistoryMixin, TenantMixin, Base):
    __tablename__ = "letters_of_tenants"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str]


class Chair(HistoryMixin, Base):
    """Its tenant column has another name, and is part of the primary key."""

    __tablename__ = "chairs_of_tenants"
    __tenant_column__ = "org"

    org: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    holder: Mapped[str]


LETTERS: Any = history_of(Letter.__table__)  # type: ignore[arg-type]
POLICIES = {kind: RowLevelSecurity(Base.metadata, secret=secret) for kind, secret in SECRETS.items()}
CASES = [(kind, driver) for kind in POLICIES for driver, (_, scheme) in DRIVERS.items() if "postgresql" in scheme]


@pytest.fixture(scope="module")
def urls(postgres_server: str) -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        yield {
            kind: stack.enter_context(confined_database(postgres_server, f"history_{kind}_{os.getpid()}", rls))
            for kind, rls in POLICIES.items()
        }


@pytest.fixture(params=CASES, ids=["-".join(case) for case in CASES])
def guarded(request: pytest.FixtureRequest, urls: dict[str, str]) -> Iterator[Guarded]:
    """Guarded sessions of a role that row-level security confines."""
    kind, driver = request.param
    name, scheme = DRIVERS[driver]
    url: URL = make_url(urls[kind]).set(drivername=scheme)
    face = Face(name, create_database(url))
    sessions = Guarded(face, rls=POLICIES[kind])
    yield sessions
    sessions.close()
    face.runner.run(face.database.dispose_async())
    face.runner.close()


def test_the_policies_know_the_history_tables() -> None:
    names = {table.name: column for table, column in POLICIES["unsigned"].tables()}
    assert names["letters_of_tenants_history"] == "tenant_id"
    assert names["chairs_of_tenants_history"] == "org"


def test_row_level_security_confines_the_history(guarded: Guarded) -> None:
    face = guarded.face
    for tenant in ("a", "b"):
        session = guarded.session()
        bind_tenant(session, tenant)
        letters = face.repository(session, Letter, tenant)
        with acting_as(f"of {tenant}"):
            number = 1 if tenant == "a" else 2
            face(letters.upsert, {"id": number, "text": tenant}, conflict_fields=["id"])
            face(letters.update, number, {"text": f"{tenant}{id(session)}"})
        entries = face(letters.history, number)
        assert {entry.actor for entry in entries} == {f"of {tenant}"}
        assert face(letters.history, 3 - number) == []
        tenants = guarded.run(session, lambda session: session.execute(select(LETTERS.c.tenant_id)).scalars().all())
        assert set(tenants) == {tenant}
        face(session.close)


def test_row_level_security_confines_the_past(guarded: Guarded) -> None:
    face = guarded.face
    moments = []
    for tenant in ("past a", "past b"):
        session = guarded.session()
        bind_tenant(session, tenant)
        letters = face.repository(session, Letter, tenant)
        number = 11 if tenant == "past a" else 12
        face(letters.upsert, {"id": number, "text": f"old {tenant}"}, conflict_fields=["id"])
        moments.append(utc_now())
        time.sleep(0.003)
        face(letters.update, number, {"text": "new"})
        face(letters.delete, number)
        past = letters.as_of(moments[-1])
        assert [each.text for each in face(past.list)] == [f"old {tenant}"]
        assert face(past.get_by_id, 23 - number) is None
        assert face(letters.list) == []
        with pytest.raises(TenantIsolationError):
            face(letters.with_tenant("past x").as_of(moments[-1]).list)
        with pytest.raises(TenantIsolationError):
            face(past.with_tenant("past x").list)
        face(session.close)


def test_the_past_of_an_unbound_session_is_the_repositorys_tenants(guarded: Guarded) -> None:
    session = guarded.session()
    letters = guarded.face.repository(session, Letter, "past c").as_of(utc_now())
    assert guarded.face(letters.list) == []
    assert bound_tenant(session) == "past c"
    guarded.face(session.close)


def test_the_leak_kit_knows_histories(faces: Any) -> None:
    for driver in ("sqlite3", "psycopg"):
        face = faces[driver]
        with face.session() as session:
            _create(session)
        assert [str(each) for each in find_leaks(Base.metadata, guard_tenants(sessionmaker(face.engine)))] == []


def test_verify_finds_nothing(urls: dict[str, str]) -> None:
    for kind, url in urls.items():
        database = create_database(make_url(url))
        with database.engine.connect() as connection:
            assert POLICIES[kind].verify(connection) == []
        database.dispose()


def test_an_entry_of_another_tenant_cannot_be_forged(guarded: Guarded) -> None:
    session = guarded.session()
    bind_tenant(session, "a")
    forged = LETTERS.insert().values(tenant_id="a", id=1, at=utc_now(), operation="create")
    with pytest.raises(DBAPIError, match="triggers only"):
        guarded.run(session, lambda session: session.execute(forged))
    guarded.face(session.rollback)


def _create(session: Session) -> None:
    Base.metadata.create_all(session.connection())
    session.commit()


def test_a_guarded_session_confines_the_history_without_policies(faces: Any) -> None:
    for driver in ("sqlite3", "aiosqlite", "psycopg", "asyncpg"):
        face = faces[driver]
        engine: Any = face.database.async_engine if face.is_async else face.engine
        plain: Any = (async_sessionmaker if face.is_async else sessionmaker)(engine)
        with face.session() as session:
            face(session.run_sync, _create) if face.is_async else _create(session)
        guard_tenants(plain)
        for tenant in ("a", "b"):
            session = plain()
            bind_tenant(session, tenant)
            letters = face.repository(session, Letter, tenant)
            number = 1 if tenant == "a" else 2
            face(letters.upsert, {"id": number, "text": tenant}, conflict_fields=["id"])
            assert [each.after["text"] for each in face(letters.history, number)][:1] == [tenant]
            assert face(letters.history, 3 - number) == []
            face(session.rollback)
            with pytest.raises(TenantIsolationError):
                face(session.execute, select(LETTERS))
            with pytest.raises(TenantIsolationError):
                face(session.execute, text("SELECT * FROM letters_of_tenants_history"))
            face(session.close)
