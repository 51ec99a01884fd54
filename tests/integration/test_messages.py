"""How many statements and round trips each call costs, counted on the wire by a proxy in front of the server.

The table `EXPECTED` has a row for each circumstance of a session, and a column for each call. A count is written as
``statements/round trips``. Statements include BEGIN, COMMIT and savepoints.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from threading import Thread
from typing import Any, Self

import pytest
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry
from sqlalchemy import URL, delete, event, insert, make_url
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from benchmarks.wire import Proxy, Sent
from dotmac_database import (
    HistoryMixin,
    Policy,
    QueryFilter,
    RowLevelSecurity,
    StatementBudget,
    TenantMixin,
    acting_as,
    bind_policies,
    bind_tenant,
    create_database,
    guard_tenants,
    instrument,
    outbox_table,
    publish,
)
from dotmac_database.execution.settings import FOR_WRITES, provide_for_transactions, provide_for_writes
from dotmac_database.execution.state import SettingsProvider
from tests.confined import SECRETS, confined_database
from tests.conftest import DRIVERS, Face
from tests.ways import block


class Base(DeclarativeBase):
    """The table of these tests."""


class Item(TenantMixin, Base):
    __tablename__ = "message_items"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    note: Mapped[str | None]


class Recorded(HistoryMixin, TenantMixin, Base):
    """The same with a history."""

    __tablename__ = "message_recorded"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]


outbox_table(Base.metadata)


@dataclass(frozen=True)
class Actor:
    id: str


def other_name(actor: Actor) -> list[QueryFilter]:
    return [QueryFilter("name", "ne", actor.id)]


RULES = Policy(Item, read=other_name, create=other_name, update=other_name)
HIDDEN = Policy(Item, read=other_name, create=other_name, update=other_name, hidden=("note",))
"""Policies of conditions, without and with a hidden column. Each statement has a condition."""

POLICY_OF = {"policy": RULES, "hidden column": HIDDEN, "actors' policies": RULES}
"""The circumstances with a policy of an actor."""

ROWS = 30
PER_PAGE = 20
PAGE = {"sorts": [{"field": "id"}], "pagination": {"page": 1, "per_page": PER_PAGE}}

POLICIES = {
    **{kind: RowLevelSecurity(Base.metadata, secret=secret) for kind, secret in SECRETS.items()},
    "actors": RowLevelSecurity(Base.metadata, policies=[RULES]),
}
RLS_OF = {"policies": "unsigned", "signed policies": "signed", "actors' policies": "actors"}
"""The circumstances with row-level security, each with the kind of its policies."""

WARM_UP = 8
"""How often a call is made before it is counted: psycopg prepares a statement at its sixth execution."""

EXPECTED = """
| circumstance     | driver        | get | list | page | create | update | block | without savepoints |
| plain            | asyncpg       | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 11/11 | 7/7                |
| plain            | psycopg       | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 11/11 | 7/7                |
| plain            | psycopg-async | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 11/11 | 7/7                |
| guarded          | asyncpg       | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 11/11 | 7/7                |
| guarded          | psycopg       | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 11/11 | 7/7                |
| guarded          | psycopg-async | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 11/11 | 7/7                |
| observed         | asyncpg       | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 11/11 | 7/7                |
| observed         | psycopg       | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 11/11 | 7/7                |
| observed         | psycopg-async | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 11/11 | 7/7                |
| listened         | asyncpg       | 1/1 | 1/1  | 1/1  | 3/3    | 3/3    | 11/11 | 7/7                |
| listened         | psycopg       | 1/1 | 1/1  | 1/1  | 3/3    | 3/3    | 11/11 | 7/7                |
| listened         | psycopg-async | 1/1 | 1/1  | 1/1  | 3/3    | 3/3    | 11/11 | 7/7                |
| inside           | asyncpg       | 1/1 | 1/1  | 1/1  | 2/2    | 2/2    | 12/12 | 7/7                |
| inside           | psycopg       | 1/1 | 1/1  | 1/1  | 2/2    | 2/2    | 12/12 | 7/7                |
| inside           | psycopg-async | 1/1 | 1/1  | 1/1  | 2/2    | 2/2    | 12/12 | 7/7                |
| policies         | asyncpg       | 3/3 | 3/3  | 3/3  | 3/3    | 3/3    | 11/11 | 7/7                |
| policies         | psycopg       | 4/4 | 4/4  | 4/4  | 4/4    | 4/4    | 12/12 | 8/8                |
| policies         | psycopg-async | 4/4 | 4/4  | 4/4  | 4/4    | 4/4    | 12/12 | 8/8                |
| signed policies  | asyncpg       | 4/4 | 4/4  | 4/4  | 4/4    | 4/4    | 12/12 | 8/8                |
| signed policies  | psycopg       | 4/4 | 4/4  | 4/4  | 4/4    | 4/4    | 12/12 | 8/8                |
| signed policies  | psycopg-async | 4/4 | 4/4  | 4/4  | 4/4    | 4/4    | 12/12 | 8/8                |
| actor            | asyncpg       | 1/1 | 1/1  | 1/1  | 3/3    | 3/3    | 11/11 | 7/7                |
| actor            | psycopg       | 1/1 | 1/1  | 1/1  | 4/4    | 4/4    | 12/12 | 8/8                |
| actor            | psycopg-async | 1/1 | 1/1  | 1/1  | 4/4    | 4/4    | 12/12 | 8/8                |
| named            | asyncpg       | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 11/11 | 7/7                |
| named            | psycopg       | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 12/12 | 8/8                |
| named            | psycopg-async | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 12/12 | 8/8                |
| policy           | asyncpg       | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 13/13 | 7/7                |
| policy           | psycopg       | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 13/13 | 7/7                |
| hidden column    | asyncpg       | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 13/13 | 7/7                |
| hidden column    | psycopg       | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 13/13 | 7/7                |
| telemetry        | asyncpg       | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 11/11 | 7/7                |
| telemetry        | psycopg       | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 11/11 | 7/7                |
| history          | asyncpg       | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 11/11 | 7/7                |
| history          | psycopg       | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 11/11 | 7/7                |
| history, actor   | asyncpg       | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 11/11 | 7/7                |
| history, actor   | psycopg       | 1/1 | 1/1  | 1/1  | 1/1    | 1/1    | 12/12 | 8/8                |
| message          | asyncpg       | 1/1 | 1/1  | 1/1  | 4/4    | 4/4    | 12/12 | 8/8                |
| message          | psycopg       | 1/1 | 1/1  | 1/1  | 4/4    | 4/4    | 12/12 | 8/8                |
| actors' policies | asyncpg       | 3/3 | 3/3  | 3/3  | 3/3    | 4/4    | 13/13 | 7/7                |
| actors' policies | psycopg       | 4/4 | 4/4  | 4/4  | 4/4    | 4/4    | 14/14 | 8/8                |
"""

"""The counts. A block is three creates and two updates. The circumstances:

- plain: a plain session, outside of a transaction
- guarded: a guarded session
- observed: a listener before and a listener after each statement, which are marked as observers
- listened: the same, not marked. They could write, so that a write needs BEGIN and COMMIT
- inside: in an open block, whose begin and end are not counted. The block is a savepoint there
- actor: a plain session, and a setting for writes to the table
- named: a plain session, and a setting for all transactions of the engine
- policies, signed policies: a guarded session with row-level security, without and with a secret
- policy, hidden column: a plain session with a policy of conditions, without and with a hidden column. An update in a
  savepoint is one statement more, because the driver does not change rows with conditions there, so that SQLAlchemy
  sets the savepoint
- actors' policies: as policies, and the database has the policy, too. SQLAlchemy sends an update, so that asyncpg sends
  its settings in a message of their own
- telemetry: metrics, spans, the log of slow statements, and a budget of statements
- history, and history, actor: a table with a history, without and with an actor
- message: each create and each update also publishes a message to the outbox. A block has one statement for all of them

In all of them a class with a history is mapped, the metadata has an outbox, and telemetry's packages are imported: what
is there and not used costs nothing.
"""


class CountingProxy:
    """A `Proxy` in an event loop of its own thread, so that sync drivers can use it, too."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._proxy = Proxy(port)

    @property
    def port(self) -> int:
        return self._proxy.port

    @property
    def sent(self) -> Sent:
        """The messages since the last `restart`."""
        return self._proxy.sent

    def restart(self) -> None:
        """Count from zero."""
        self._proxy.sent = Sent()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._proxy.__aenter__(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._proxy.__aexit__(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def proxy(postgres_server: str) -> Iterator[CountingProxy]:
    with CountingProxy(make_url(postgres_server).port or 5432) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def urls(postgres_server: str) -> Iterator[dict[str, URL]]:
    """The URLs of two databases with row-level security, whose settings are signed or not."""
    with ExitStack() as stack:
        yield {
            kind: make_url(stack.enter_context(confined_database(postgres_server, f"{kind}_{os.getpid()}", rls)))
            for kind, rls in POLICIES.items()
        }


@pytest.fixture
def rows(postgres_server: str, urls: dict[str, URL]) -> None:
    """The same rows in both databases."""
    items = [{"id": number, "name": "n", "tenant_id": "a"} for number in range(ROWS)]
    for url in urls.values():
        owner = create_database(make_url(postgres_server).set(database=url.database))
        with owner.engine.begin() as connection:
            for model in (Item, Recorded):
                connection.execute(delete(model))
                connection.execute(insert(model), items)
        owner.dispose()


@contextmanager
def face_of(driver: str, url: URL, proxy: CountingProxy) -> Iterator[Face]:
    """The face of a driver with a pool of one connection, which goes through the proxy."""
    kind, scheme = DRIVERS[driver]
    through = url.set(drivername=scheme, host="127.0.0.1", port=proxy.port)
    face = Face(kind, create_database(through, pool_size=1, max_overflow=0))
    try:
        yield face
    finally:
        face.runner.run(face.database.dispose_async())
        face.runner.close()


def sessions(face: Face, circumstance: str) -> Callable[[], Any]:
    """A function that makes sessions for a circumstance, bound to a tenant if they are guarded."""
    kind = async_sessionmaker if face.is_async else sessionmaker
    bind: Any = face.database.async_engine if face.is_async else face.engine
    maker: Any = kind(bind, expire_on_commit=False)
    policies = RLS_OF.get(circumstance)
    is_guarded = circumstance == "guarded" or policies is not None
    if is_guarded:
        guard_tenants(maker, rls=None if policies is None else POLICIES[policies])

    def bound() -> Any:
        session = maker()
        if is_guarded:
            bind_tenant(session, "a")
        if circumstance in POLICY_OF:
            bind_policies(session, [POLICY_OF[circumstance]], actor=Actor("nobody"))
        return session

    return bound


def observe(*_: object) -> None:
    """A listener that is marked as an observer."""


observe.dotmac_observes = True  # type: ignore[attr-defined]


def listen(*_: object) -> None:
    """A listener that is not marked."""


ACTOR = SettingsProvider(lambda: "alice", lambda value: {"dotmac.actor": str(value or "")})
NAME = SettingsProvider(lambda: "GET /items", lambda value: {"application_name": str(value or "")})
LISTENERS: dict[str, Callable[..., None]] = {"observed": observe, "listened": listen}


@contextmanager
def listened(face: Face, circumstance: str) -> Iterator[None]:
    """Add the listeners of a circumstance to the engine."""
    listener = LISTENERS.get(circumstance)
    if listener is not None:
        event.listen(face.engine, "before_cursor_execute", listener)
        event.listen(face.engine, "after_cursor_execute", listener)
    if circumstance == "actor":
        provide_for_writes(ACTOR, lambda table: table.name == Item.__tablename__)
    end = provide_for_transactions(face.engine, NAME) if circumstance == "named" else None
    try:
        with ExitStack() as stack:
            if circumstance == "telemetry":
                options: Any = {"prometheus": CollectorRegistry(), "opentelemetry": TracerProvider()}
                stack.callback(instrument(face.database, slow_statement=60.0, **options).remove)
                stack.enter_context(StatementBudget(10_000))
            if circumstance == "history, actor":
                stack.enter_context(acting_as("alice"))
            yield
    finally:
        if end is not None:
            end()
        FOR_WRITES[:] = [each for each in FOR_WRITES if each.provider is not ACTOR]


class Calls:
    """The calls of the table, on the sessions of a face."""

    def __init__(self, face: Face, make: Callable[[], Any], proxy: CountingProxy, circumstance: str) -> None:
        self._face, self._make, self._proxy = face, make, proxy
        self._inside, self._publishes = circumstance == "inside", circumstance == "message"
        self._model = Recorded if circumstance.startswith("history") else Item
        self._numbers = itertools.count(ROWS)
        self._calls: dict[str, Callable[[Any, Any], None]] = {
            "get": self._get,
            "list": self._list,
            "page": self._page,
            "create": self._create,
            "update": self._update,
            "block": self._block,
            "without savepoints": self._block_without_savepoints,
        }

    def counts(self) -> list[str]:
        """The counts of all calls, each after a warm-up."""
        return [self._count(call) for call in self._calls.values()]

    def _count(self, call: Callable[[Any, Any], None]) -> str:
        for _ in range(WARM_UP):
            self._run(call)
        first, second = self._run(call), self._run(call)
        assert first == second
        return f"{first.statements}/{first.trips}"

    def _run(self, call: Callable[[Any, Any], None]) -> Sent:
        """Make the call on a new session. Inside of a transaction, its begin and its end are not counted."""
        session = self._make()
        items = self._face.repository(session, self._model, "a")
        if self._inside:
            with block(self._face, session):
                self._face(items.count)
                self._proxy.restart()
                call(session, items)
                sent = replace(self._proxy.sent)
            self._face(session.close)
            return sent
        self._proxy.restart()
        call(session, items)
        self._face(session.close)
        return replace(self._proxy.sent)

    def _get(self, _: Any, items: Any) -> None:
        assert self._face(items.get_by_id, 1).id == 1

    def _list(self, _: Any, items: Any) -> None:
        assert len(self._face(items.list, PAGE)) == PER_PAGE

    def _page(self, _: Any, items: Any) -> None:
        page = self._face(items.list_paginated, PAGE)
        assert len(page.items) == PER_PAGE
        assert page.total >= ROWS

    def _publish(self, session: Any) -> None:
        if self._publishes:
            publish(session, "changed", 1)

    def _create(self, session: Any, items: Any) -> None:
        self._publish(session)
        self._face(items.create, {"id": next(self._numbers), "name": "new"})

    def _update(self, session: Any, items: Any) -> None:
        self._publish(session)
        self._face(items.update, 1, {"name": f"changed {next(self._numbers)}"})

    def _block(self, session: Any, items: Any, **options: bool) -> None:
        """Three creates and two updates."""
        with block(self._face, session, **options):
            for write in (self._create, self._create, self._update, self._create, self._update):
                write(session, items)

    def _block_without_savepoints(self, session: Any, items: Any) -> None:
        self._block(session, items, savepoints=False)


def expected() -> dict[tuple[str, str], list[str]]:
    """The lines of the table: for each circumstance and driver, the counts."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in EXPECTED.strip().splitlines()]
    return {(circumstance, driver): counts for circumstance, driver, *counts in lines[1:]}


CASES = expected()


@pytest.mark.fast_way("driver", "autocommit", "page-totals", "joined-messages", "update-statements")
@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(("circumstance", "driver"), CASES)
def test_each_call_costs_exactly_these_messages(
    proxy: CountingProxy,
    urls: dict[str, URL],
    postgres_server: str,
    monkeypatch: pytest.MonkeyPatch,
    circumstance: str,
    driver: str,
) -> None:
    monkeypatch.setattr("dotmac_database.outbox.publishing.QUIET", 3600.0)  # the same statement for each message
    policies = RLS_OF.get(circumstance)
    url = urls[policies] if policies else make_url(postgres_server).set(database=urls["unsigned"].database)
    with face_of(driver, url, proxy) as face, listened(face, circumstance):
        calls = Calls(face, sessions(face, circumstance), proxy, circumstance)
        assert calls.counts() == CASES[circumstance, driver]
