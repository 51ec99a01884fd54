"""Each entry has the actor of its write, however the actor is sent, and no write has the actor of another."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, text
from sqlalchemy.orm import Session

from dotmac_database import BaseRepository, DatabaseTransaction, DuplicateEntityError, acting_as, current_actor
from dotmac_database.dialects.drivers import driver_of
from dotmac_database.dialects.settings import SETTINGS_TABLE
from dotmac_database.execution.announcing import with_settings
from dotmac_database.history.tables import history_of
from tests.conftest import DRIVERS, Face
from tests.integration.test_history import DOCUMENTS, FILTER, ROW, TENANT, Document, execute, on
from tests.sync_work import sync

__all__ = ["on"]  # a fixture

ENTRIES: Any = history_of(DOCUMENTS)
POSTGRESQL = [name for name, (_, scheme) in DRIVERS.items() if "postgresql" in scheme]

SINGLE: dict[str, Callable[[Any, int], Any]] = {
    "create": lambda documents, number: documents.create({**ROW, "id": 100 + number}),
    "update": lambda documents, number: documents.update(1, {"words": 50 + number}),
    "delete": lambda documents, number: documents.delete(10 + number),
    "restore": lambda documents, number: documents.restore(20 + number),
    "erase": lambda documents, number: documents.delete(10 + number, soft_delete=False),
}
"""Writes of one row, for the numbers 0 to 9: see `set_up`."""

NAMED: dict[str, Callable[[Any], Any]] = {
    "create": lambda documents: documents.create({**ROW, "id": 30}, "named"),
    "update": lambda documents: documents.update(1, {"words": 4}, "named"),
    "update, keyword": lambda documents: documents.update(1, {"words": 4}, user_id="named"),
    "delete": lambda documents: documents.delete(1, user_id="named"),
    "delete, for good": lambda documents: documents.delete(1, False, "named"),
    "restore": lambda documents: documents.restore(20, "named"),
    "bulk_create": lambda documents: documents.bulk_create([{**ROW, "id": 30}, {**ROW, "id": 31}], "named"),
    "bulk_create, copy": lambda documents: documents.bulk_create(
        [{**ROW, "id": number} for number in range(100, 700)], "named", returning=False
    ),
    "bulk_update": lambda documents: documents.bulk_update([{"id": 1, "words": 4}], "named"),
    "upsert": lambda documents: documents.upsert({**ROW, "words": 4}, ["id"], "named"),
    "bulk_upsert": lambda documents: documents.bulk_upsert([{**ROW, "words": 4}], ["id"], "named"),
    "get_or_create": lambda documents: documents.get_or_create({**ROW, "id": 30}, ["id"], "named"),
    "update_where": lambda documents: documents.update_where(FILTER, {"words": 4}, "named"),
    "delete_where": lambda documents: documents.delete_where(FILTER, user_id="named"),
}
"""Every method that takes ``user_id``."""


def actors(face: Face) -> list[str | None]:
    """The actors of all entries, in the order of the writes."""
    return list(sync(face, lambda session: session.scalars(select(ENTRIES.c.actor).order_by(ENTRIES.c.history_id))))


def set_up(face: Face) -> int:
    """Make the rows anew: 1 to 19 are living, and 20 to 29 are deleted. Returns how many entries there are then."""
    rows = [{**ROW, **TENANT, "id": number, "is_deleted": number >= 20} for number in range(1, 30)]
    execute(delete(DOCUMENTS), insert(DOCUMENTS).values(rows))(face, None, None)
    return len(actors(face))


def block_of(face: Face, session: Any) -> Any:
    make = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
    return face.entered(make(session))


@pytest.mark.parametrize("usable", [True, False], ids=["driver", "sqlalchemy"])
def test_ten_writes_of_a_pooled_connection_have_their_own_actors(
    on: Face, usable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [None if number in (3, 7) else f"actor {number} %s ' é" for number in range(10)]
    if not usable:
        monkeypatch.setattr(type(driver_of(on.engine.dialect)), "is_usable", lambda *_: False)
    for way, write in SINGLE.items():
        before = set_up(on)
        for number, actor in enumerate(expected):
            with on.session(expire_on_commit=False) as session, acting_as(actor):
                on(write, on.repository(session, Document, "t"), number)
        assert actors(on)[before:] == expected, way


@pytest.mark.parametrize("bound", ["bound", None])
def test_user_id_is_the_actor_of_every_method_that_takes_it(on: Face, bound: str | None) -> None:
    for way, write in NAMED.items():
        before = set_up(on)
        with on.session() as session, acting_as(bound):
            documents = on.repository(session, Document, "t")
            on(write, documents)
            assert current_actor() == bound
            on(documents.create, {**ROW, "id": 40})
        *named, last = actors(on)[before:]
        assert (set(named), last) == ({"named"}, bound), way


def test_user_id_is_the_actor_within_a_transaction_of_another(on: Face) -> None:
    for way, write in NAMED.items():
        before = set_up(on)
        with on.session() as session, acting_as("bound"):
            documents = on.repository(session, Document, "t")
            with block_of(on, session):
                on(documents.create, {**ROW, "id": 40})
                on(write, documents)
                on(documents.create, {**ROW, "id": 41})
        first, *named, last = actors(on)[before:]
        assert (first, set(named), last) == ("bound", {"named"}, "bound"), way


def test_the_methods_are_those_that_take_user_id() -> None:
    taking = {
        name
        for name, method in inspect.getmembers(BaseRepository, inspect.isfunction)
        if not name.startswith("_") and "user_id" in inspect.signature(method).parameters
    }
    assert taking == {way.partition(",")[0] for way in NAMED}


LEAKS: dict[str, Callable[[Any], Any]] = {
    "failure": lambda documents: documents.create(ROW),  # the row exists
    "create": lambda documents: documents.create({**ROW, "id": 30}),
}
ENDS = ("alone", "rolled back", "raised", "committed")


@pytest.mark.parametrize("end", ENDS)
def test_no_actor_is_left_on_a_pooled_connection(on: Face, end: str) -> None:
    for way in LEAKS:
        set_up(on)
        with on.session(expire_on_commit=False) as session, acting_as("alice"):
            write_and_end(on, session, way, end)
        before = len(actors(on))
        execute(insert(DOCUMENTS).values({**ROW, **TENANT, "id": 31}))(on, None, None)
        with on.session(expire_on_commit=False) as session:
            on(on.repository(session, Document, "t").create, {**ROW, "id": 32})
        assert actors(on)[before:] == [None, None], way
    if on.engine.dialect.name == "sqlite":
        assert sync(on, lambda session: session.scalar(text(f"SELECT count(*) FROM {SETTINGS_TABLE}"))) == 0


def write_and_end(face: Face, session: Any, way: str, end: str) -> None:
    """Write in a transaction that ends so, or ``alone``: without one."""
    documents = face.repository(session, Document, "t")
    failed = pytest.raises(DuplicateEntityError) if way == "failure" else nullcontext()
    if end == "alone":
        with failed:
            face(LEAKS[way], documents)
        return
    with pytest.raises(RuntimeError) if end == "raised" else nullcontext(), block_of(face, session):
        with failed:
            face(LEAKS[way], documents)
        if end == "raised":
            raise RuntimeError
        if end == "rolled back":
            face(session.rollback)


@pytest.mark.parametrize("on", ["asyncpg", "psycopg-async"], indirect=True)
def test_a_cancelled_write_leaves_no_actor(on: Face) -> None:
    set_up(on)
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE%'")

    async def cancel() -> None:
        async with on.database.async_sessions() as locking, on.database.async_sessions() as looking:
            await locking.execute(text("SELECT 1 FROM history_documents WHERE id = 1 FOR UPDATE"))

            async def update() -> None:
                async with on.database.async_sessions(expire_on_commit=False) as session:
                    await on.repository(session, Document, "t").update(1, {"words": 9}, "alice")

            task = asyncio.create_task(update())
            while not await looking.scalar(waiting):
                await looking.rollback()
                assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await locking.rollback()

    on.runner.run(cancel())
    before = len(actors(on))
    for number in range(5):  # the connections of the pool
        with on.session(expire_on_commit=False) as session:
            on(on.repository(session, Document, "t").create, {**ROW, "id": 30 + number})
    assert actors(on)[before:] == [None] * 5


@pytest.mark.parametrize("on", POSTGRESQL, indirect=True)
@pytest.mark.parametrize("method", ["create", "update"])
def test_postgresql_sets_the_actor_before_triggers_run(on: Face, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan decides the condition with the setting first. So also BEFORE triggers for rows know the actor."""
    set_up(on)
    execute(
        """CREATE OR REPLACE FUNCTION tell_actor() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.title := current_setting('dotmac.audit_user', true); RETURN NEW; END $$""",
        "CREATE TRIGGER tell BEFORE INSERT OR UPDATE ON history_documents FOR EACH ROW EXECUTE FUNCTION tell_actor()",
    )(on, None, None)
    sent: list[str] = []

    def noted(*args: Any) -> Any:
        made = with_settings(*args)
        assert made is not None
        sent.append(made.sql)
        return made

    monkeypatch.setattr("dotmac_database.execution.driver.with_settings", noted)
    with on.session(expire_on_commit=False) as session, acting_as("alice"):
        documents = on.repository(session, Document, "t")
        written = (
            on(documents.create, {**ROW, "id": 30}) if method == "create" else on(documents.update, 1, {"words": 9})
        )
    assert written.title == "alice"
    plan = sync(on, lambda session: plan_of(session, sent[0]))
    scans = [place for place, line in enumerate(plan) if "Scan" in line]
    first = next(place for place, line in enumerate(plan) if re.match("One-Time Filter: .*IS NOT NULL", line))
    assert plan[first - 1] in ("Result", "->  Result"), plan
    assert all(first < place for place in scans), plan


def plan_of(session: Session, sql: str) -> list[str]:
    """The lines of the plan of a statement with the value 1 for each parameter."""
    plain = re.sub(r"%\(\w+\)s|\$\d+", "'1'", sql)
    return [line.strip() for line in session.scalars(text(f"EXPLAIN (COSTS OFF) {plain.replace(':', chr(92) + ':')}"))]
