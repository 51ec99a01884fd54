"""What the plugin's routers declare, and the doctor on the example application."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from uuid import uuid4

import pytest
from fastapi import APIRouter, FastAPI
from sqlalchemy import insert, text

from dotmac_database import Database, DeclaredRead, SortField, SortOrder, create_database, declare_read
from dotmac_database.doctor import Limits, Report, Severity, examine
from dotmac_database_fastapi import crud_router, declared_reads, list_router
from example_app.app import create_app
from example_app.models import Airport, Base, Country, Inspection, Role, Status, Topic, User
from example_app.settings import Settings

from .models import Account, Note


def test_routers_declare_their_reads_wherever_they_are_included() -> None:
    app, outer = FastAPI(), APIRouter(prefix="/api")

    @outer.get("/by-hand")
    def by_hand() -> None: ...

    declare_read(by_hand, DeclaredRead(Account, "email"))
    outer.include_router(list_router(Note, default_sort="-order", filters=("account_id",), sorts=["order", "id"]))
    app.include_router(outer)
    app.include_router(crud_router(Account, "/accounts", sorts=[Account.email]))
    assert declared_reads(app) == [
        DeclaredRead(Account, "email"),
        DeclaredRead(Note, (SortField("order", SortOrder.DESC),), ("account_id",), ("order", "id")),
        DeclaredRead(Account, (), (), ("email",)),
    ]
    assert declared_reads(FastAPI()) == []


@pytest.fixture
def example(database_url: str) -> Iterator[Database]:
    """The tables of the example application with a few rows, on a connection like that of its plugin."""
    database = create_database(database_url, statement_timeout=None)
    Base.metadata.create_all(database.engine)
    with database.engine.begin() as connection:
        connection.execute(insert(Country), [{"code": each, "name": each, "airports": 1} for each in ("NO", "SE")])
        connection.execute(
            insert(Airport),
            [
                {"icao": f"{each}{n}", "tenant_id": each, "name": f"Airport {n}", "elevation_ft": n, "latitude": 1.0}
                | {"longitude": 1.0, "timezone": "UTC", "keywords": "a"}
                for each in ("NO", "SE")
                for n in range(10)
            ],
        )
        now = {"created_at": dt.datetime.now(dt.UTC), "updated_at": dt.datetime.now(dt.UTC)}
        user = {"id": uuid4(), "tenant_id": "NO", "name": "Ada", "email": "ada@example.com", "role": Role.LEAD}
        connection.execute(insert(User), [user | now])
        connection.execute(
            insert(Inspection),
            [
                {"id": uuid4(), "tenant_id": "NO", "airport_icao": "NO1", "inspector_id": user["id"], "version": 1}
                | {
                    "topic": Topic.RUNWAY,
                    "status": Status.OPEN,
                    "due_on": dt.date(2030, 1, 1),
                    "is_deleted": False,
                }
                | now
            ],
        )
    yield database
    Base.metadata.drop_all(database.engine)
    database.dispose()


STRICT = Limits(large_rows=0)
"""No table is small."""


def diagnosed(example: Database) -> Report:
    app = create_app(Settings(example.url.render_as_string(hide_password=False)))
    plugin = app.state.plugin
    try:
        return examine(plugin.database, Base.metadata, reads=declared_reads(app), processes=1, limits=STRICT)
    finally:
        plugin.database.dispose()


def test_the_example_application_is_healthy(example: Database) -> None:
    report = diagnosed(example)
    assert [(each.code, each.object, each.risk) for each in report if each.severity is not Severity.NOTE] == []
    assert {each.code for each in report} <= {"missing-index", "timeout-missing"}
    assert not report.failed


def test_a_fault_in_the_example_application_is_found(example: Database) -> None:
    with example.engine.begin() as connection:
        connection.execute(text("DROP INDEX airports_by_name"))
    failed = [each.code for each in diagnosed(example) if each.severity is not Severity.NOTE]
    assert failed == ["schema-drift", "missing-index"]
