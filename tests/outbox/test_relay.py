"""The relay: at least once, in order within a key, again after a failure, and never for ever."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import delete, text, update

from dotmac_database import (
    DatabaseError,
    MisuseError,
    OutboxRelay,
    RetryBudget,
    RetryPolicy,
    RowLevelSecurity,
    ValidationError,
    async_once,
    bind_tenant,
    create_database,
    idempotency_metadata,
    publish,
)
from dotmac_database.outbox.publishing import QUIET
from dotmac_database.outbox.waking import Waker
from dotmac_database.types import utc_now
from tests.conftest import counted

from .conftest import AT_ONCE, Inbox, Place, relay_of
from .models import OUTBOX, RLS

LATER = RetryPolicy(base_delay=3600.0)


def run(home: Place, work: Coroutine[Any, Any, Any]) -> Any:
    """Run ``work`` to its end. Relays that a failed test has left are cancelled, so that they disturb no other test."""

    async def limited() -> Any:
        try:
            async with asyncio.timeout(120):
                return await work
        finally:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    return home.face.runner.run(limited())


async def publish_all(home: Place, *messages: tuple[Any, str | None], tenant: str | None = None) -> None:
    async with home.database.async_sessions() as session:
        for payload, key in messages:
            publish(session, "t", payload, key=key)
        await session.commit()


def test_a_batch_is_delivered_and_deleted(home: Place) -> None:
    async def work() -> None:
        inbox = Inbox()
        await publish_all(home, *((number, f"k{number % 3}") for number in range(10)), ("free", None))
        relay = relay_of(home, inbox, batch=8)
        assert [await relay.run_once(), await relay.run_once(), await relay.run_once()] == [8, 3, 0]
        for key in ("k0", "k1", "k2"):
            numbers = [each.payload for each in inbox.messages if each.key == key]
            assert numbers == sorted(numbers)
        assert {each.attempt for each in inbox.messages} == {1}
        first = inbox.messages[0]
        assert (first.topic, first.tenant_id, first.created_at.tzinfo is not None) == ("t", None, True)
        with pytest.raises(AttributeError):
            first.payload = 1

    run(home, work())
    assert home.rows() == []


def test_keys_are_delivered_beside_each_other_and_never_twice_at_a_time(home: Place) -> None:
    async def work() -> None:
        active: dict[str | None, int] = {}
        most = 0

        async def deliver(message: Any) -> None:
            nonlocal most
            active[message.key] = active.get(message.key, 0) + 1
            assert message.key is None or active[message.key] == 1
            most = max(most, sum(active.values()))
            await asyncio.sleep(0)
            active[message.key] -= 1

        await publish_all(home, *((number, f"k{number % 5}") for number in range(20)), *[(1, None)] * 20)
        assert await relay_of(home, deliver, concurrency=4).run_once() == 40
        assert most == 4

    run(home, work())


def test_a_failure_holds_its_key_and_no_other(home: Place) -> None:
    async def work() -> None:
        inbox = Inbox()
        inbox.failing = {"a1": 1}
        await publish_all(home, ("a1", "a"), ("a2", "a"), ("b1", "b"), ("free", None), ("a3", "a"))
        relay = relay_of(home, inbox, policy=LATER)
        assert await relay.run_once() == 2
        assert sorted(inbox.payloads) == ["a1", "b1", "free"]
        assert await relay.run_once() == 0
        await publish_all(home, ("a4", "a"))
        assert await relay.run_once() == 0
        assert home.columns("payload", "attempt", "failures", "claim") == [
            ("a1", 1, 1, None),
            *[(each, 0, 0, None) for each in ("a2", "a3", "a4")],
        ]
        await due(home)
        assert await relay.run_once() == 4
        assert inbox.payloads[3:] == ["a1", "a2", "a3", "a4"]
        assert [each.attempt for each in inbox.messages[3:]] == [2, 1, 1, 1]

    run(home, work())


async def due(home: Place) -> None:
    """Let the waits of all messages, and the claims of all relays, be over."""
    async with home.database.async_engine.begin() as connection:
        held = OUTBOX.c.available_at.is_not(None)
        await connection.execute(update(OUTBOX).where(held).values(available_at=utc_now() - timedelta(hours=1)))


def test_a_key_is_one_of_its_tenant_and_topic(home: Place, places: Any) -> None:
    guarded = places[next(name for name, each in places.items() if each is home).replace("plain", "guarded")]

    async def work() -> None:
        inbox = Inbox()
        inbox.failing = {1: 1}
        for tenant, topic, payload in (("a", "t", 1), ("a", "t", 2), ("b", "t", 3), (None, "t", 4), ("a", "u", 5)):
            async with guarded.maker() as session:
                if tenant is not None:
                    bind_tenant(session, tenant)
                publish(session, topic, payload, key="k")
                await session.commit()
        assert await relay_of(home, inbox, policy=LATER).run_once() == 3
        assert sorted(inbox.payloads) == [1, 3, 4, 5]
        tenants = {each.payload: (each.tenant_id, each.topic) for each in inbox.messages}
        assert tenants == {1: ("a", "t"), 3: ("b", "t"), 4: (None, "t"), 5: ("a", "u")}

    run(home, work())


def test_dead_letters_release_their_key_and_can_be_requeued(home: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        inbox = Inbox()
        inbox.failing = {"bad": 100}
        await publish_all(home, ("bad", "k"), ("good", "k"))
        relay = relay_of(home, inbox, attempts=3)
        with caplog.at_level(logging.CRITICAL):
            assert [await relay.run_once() for _ in range(5)] == [0, 0, 0, 1, 0]
        assert inbox.payloads == ["bad", "bad", "bad", "good"]
        (letter,) = await relay.dead_letters()
        assert (letter.failures, letter.error, letter.message.payload) == (3, "builtins.ConnectionError", "bad")
        assert letter.message.id == inbox.messages[0].id
        assert home.columns("status", "available_at") == [("dead", None)]
        assert await relay.requeue(uuid4()) == 0
        assert await relay.requeue() == 0
        inbox.failing = {}
        assert await relay.requeue(letter.message.id, letter.message.id) == 1
        assert await relay.requeue(letter.message.id) == 0
        assert await relay.run_once() == 1
        assert inbox.messages[-1].attempt == 4
        assert await relay.dead_letters() == []

    run(home, work())


def test_a_delivery_that_never_returns_is_a_failure(home: Place) -> None:
    async def work() -> None:
        async def deliver(message: Any) -> None:
            if message.attempt == 1:
                await asyncio.Event().wait()

        await publish_all(home, (1, None))
        assert await relay_of(home, deliver, timeout=0.01).run_once() == 0
        assert await relay_of(home, deliver).run_once() == 1

    run(home, work())


def test_a_cancellation_of_the_users_own_is_a_failure(home: Place) -> None:
    async def work() -> None:
        async def deliver(message: Any) -> None:
            if message.attempt == 1:
                raise asyncio.CancelledError

        await publish_all(home, (1, None))
        relay = relay_of(home, deliver)
        assert [await relay.run_once(), await relay.run_once()] == [0, 1]

    run(home, work())


def test_a_cancelled_relay_releases_what_it_has(home: Place) -> None:
    async def work() -> None:
        inbox, begun = Inbox(), asyncio.Event()

        async def never(message: Any) -> None:
            begun.set()
            await asyncio.Event().wait()

        await publish_all(home, ("a1", "a"), ("a2", "a"), ("b1", "b"))
        task = asyncio.create_task(relay_of(home, never, concurrency=1).run())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert home.columns("payload", "attempt", "claim", "available_at") == [
            ("a1", 1, None, None),
            ("a2", 0, None, None),
            ("b1", 0, None, None),
        ]
        assert await relay_of(home, inbox).run_once() == 3
        assert {each.payload: each.attempt for each in inbox.messages} == {"a1": 2, "a2": 1, "b1": 1}

    run(home, work())


def test_a_stopped_relay_ends_its_deliveries_and_begins_no_other(home: Place) -> None:
    async def work() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(message: Any) -> None:
            begun.set()
            await go_on.wait()

        await publish_all(home, ("a1", "a"), ("a2", "a"))
        relay = relay_of(home, slow)
        task = asyncio.create_task(relay.run())
        await begun.wait()
        with pytest.raises(MisuseError, match="runs already"):
            await relay.run_once()
        relay.stop()
        go_on.set()
        await task
        assert home.columns("payload", "attempt", "claim") == [("a2", 0, None)]
        await relay.run()  # it is stopped for good
        assert await relay.run_once() == 0

    run(home, work())


def test_a_relay_that_runs_finds_new_messages(home: Place) -> None:
    async def work() -> None:
        inbox = Inbox()
        relay = relay_of(home, inbox, batch=4)
        task = asyncio.create_task(relay.run())
        for number in range(5):
            await publish_all(home, *((number * 10 + each, "k") for each in range(10)))
        await inbox.until(50)
        relay.stop()
        await task
        assert inbox.payloads == list(range(50))

    run(home, work())
    assert home.rows() == []


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg-async"])
def test_on_postgresql_a_notification_wakes_the_relay(
    driver: str, places: Any, outbox_url: Any, emptied: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay would look for messages only after an hour. Each message is notified of, however fast they come."""
    monkeypatch.setattr("dotmac_database.outbox.publishing.QUIET", 0.0)
    home = places[f"{driver}-plain"]

    async def work() -> None:
        inbox = Inbox()
        relay = relay_of(home, inbox, poll=3600.0)
        task = asyncio.create_task(relay.run())
        for number in range(3):
            await publish_all(home, (number, None))
            await inbox.until(number + 1)
        relay.stop()
        await task

    run(home, work())


class Clock:
    """The clock of a relay, which a test moves on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize("notified_while", ["waiting", "working"])
def test_a_notification_lets_the_relay_look_twice(notified_while: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and when the messages that are written without a notification are there, but not a third time."""

    async def work() -> None:
        waker = Waker()
        if notified_while == "working":
            waker.notified()
        else:
            asyncio.get_running_loop().call_soon(waker.notified)
        async with asyncio.timeout(60):
            await waker.wait(3600.0)  # until the notification
            begun = time.monotonic()
            clock.now += QUIET
            loop = asyncio.get_running_loop()
            loop.call_later(QUIET, setattr, clock, "now", clock.now + QUIET)  # before the wait ends
            await waker.wait(3600.0)
        assert time.monotonic() - begun >= QUIET
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3 * QUIET):
                await waker.wait(3600.0)

    clock = Clock()
    monkeypatch.setattr("dotmac_database.outbox.waking.time", clock)
    asyncio.run(work())


def test_behind_a_transaction_pooler_the_relay_polls(outbox_url: Any, places: Any, emptied: Any) -> None:
    home = places["asyncpg-plain"]

    async def work() -> None:
        database = create_database(outbox_url, transaction_pooler=True, pool_size=1, max_overflow=0)
        listening = database.async_engine
        inbox = Inbox()
        relay = OutboxRelay(database, inbox, poll=0.05)
        task = asyncio.create_task(relay.run())
        await publish_all(home, (1, None))
        await inbox.until(1)
        listens = text("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND state = 'idle'")
        async with asyncio.timeout(60):  # the server ends the connections of other tests after they have gone on
            while True:
                with home.admin.engine.connect() as connection:
                    if not connection.scalar(listens):
                        break
                await asyncio.sleep(0.01)
        relay.stop()
        await task
        await listening.dispose()

    run(home, work())


def test_relays_side_by_side_keep_the_order_of_keys(home: Place) -> None:
    async def work() -> None:
        inbox = Inbox()
        inbox.failing = dict.fromkeys(range(0, 200, 17), 1)
        await publish_all(home, *((number, f"k{number % 7}") for number in range(200)))
        relays = [relay_of(home, inbox, batch=5) for _ in range(3)]
        tasks = [asyncio.create_task(relay.run()) for relay in relays]
        await inbox.until(200 + 12)
        for relay in relays:
            relay.stop()
        await asyncio.gather(*tasks)
        for key in range(7):
            numbers = [each.payload for each in inbox.messages if each.key == f"k{key}"]
            expected = [each for number in range(key, 200, 7) for each in [number] * (1 + (number % 17 == 0))]
            assert numbers == expected

    run(home, work())
    assert home.rows() == []


def test_a_claim_that_is_over_is_taken_by_another_relay(home: Place, caplog: pytest.LogCaptureFixture) -> None:
    """The first relay records nothing then: not even a failure, which would delay the message again."""

    async def work(fails: bool) -> None:
        begun, go_on, inbox = asyncio.Event(), asyncio.Event(), Inbox()

        async def slow(message: Any) -> None:
            begun.set()
            await go_on.wait()
            if fails:
                raise ConnectionError

        await publish_all(home, ("a1", "a"), ("a2", "a"))
        first = asyncio.create_task(relay_of(home, slow, policy=LATER, batch=1).run_once())
        await begun.wait()
        second = relay_of(home, inbox)
        assert await second.run_once() == 0, "the claim holds the key"
        await due(home)
        assert await second.run_once() == 2
        await publish_all(home, ("a3", "a"))
        go_on.set()
        assert await first == (0 if fails else 1)
        assert await second.run_once() == 1
        assert inbox.payloads == ["a1", "a2", "a3"]
        assert [each.attempt for each in inbox.messages] == [2, 1, 1]

    for fails in (False, True):
        run(home, work(fails))
    assert "claims of 1 messages were over" in caplog.text


def test_a_claim_is_renewed_while_its_messages_are_delivered(home: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        begun, go_on, inbox = asyncio.Event(), [asyncio.Event(), asyncio.Event()], Inbox()

        async def slow(message: Any) -> None:
            if message.payload:
                begun.set()
            await go_on[message.payload].wait()

        await publish_all(home, (0, None), (1, None))
        first = asyncio.create_task(relay_of(home, slow, lease=300.0).run_once())
        await begun.wait()
        until = home.columns("available_at")
        clock.now += 150.0
        go_on[0].set()  # what is recorded of one message renews the claim of the other
        while (found := home.columns("available_at")) == until[:1] or len(found) == 2:
            assert await relay_of(home, inbox).run_once() == 0
        assert found > until[1:]
        assert await relay_of(home, inbox).run_once() == 0
        go_on[1].set()
        assert await first == 2

    clock = Clock()
    monkeypatch.setattr("dotmac_database.outbox.deliveries.time", clock)
    run(home, work())


def test_a_claim_that_was_over_is_not_renewed(home: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that did not run for a time begins no further delivery, also if it records something meanwhile."""

    async def work() -> None:
        begun, go_on, recorded = asyncio.Event(), asyncio.Event(), asyncio.Event()
        attempted: list[Any] = []
        inbox = Inbox()

        async def slow(message: Any) -> None:
            attempted.append(message.payload)
            begun.set()
            await go_on.wait()

        await publish_all(home, ("a1", "a"), ("a2", "a"))
        relay = relay_of(home, slow, lease=0.6)
        record = relay._store.record

        async def noted(*arguments: Any) -> int:
            found = await record(*arguments)
            recorded.set()
            return found

        monkeypatch.setattr(relay._store, "record", noted)
        first = asyncio.create_task(relay.run_once())
        await begun.wait()
        clock.now += 10.0
        while inbox.payloads != ["a1", "a2"]:
            await due(home)
            await relay_of(home, inbox).run_once()
        recorded.clear()
        await recorded.wait()
        go_on.set()
        assert await first == 1
        assert attempted == ["a1"]

    clock = Clock()
    monkeypatch.setattr("dotmac_database.outbox.deliveries.time", clock)
    run(home, work())


def test_a_row_that_another_transaction_has_locked_holds_its_key(places: Any, outbox_url: Any, emptied: Any) -> None:
    home = places["asyncpg-plain"]

    async def work() -> None:
        inbox = Inbox()
        await publish_all(home, ("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a"))
        with home.admin.engine.begin() as connection:
            connection.execute(OUTBOX.select().where(OUTBOX.c.key == "a").limit(1).with_for_update())
            assert await relay_of(home, inbox).run_once() == 1
            assert inbox.payloads == ["b1"]
        assert home.columns("payload", "attempt", "claim") == [(f"a{number}", 0, None) for number in (1, 2, 3)]
        assert await relay_of(home, inbox).run_once() == 3
        assert inbox.payloads == ["b1", "a1", "a2", "a3"]

    run(home, work())


def test_a_lower_position_that_commits_later_waits_for_the_key(places: Any, outbox_url: Any, emptied: Any) -> None:
    """Two transactions that nothing puts in order: either order is right, but not both messages at a time."""
    home = places["psycopg-async-plain"]

    async def work() -> None:
        begun, go_on, inbox = asyncio.Event(), asyncio.Event(), Inbox()

        async def slow(message: Any) -> None:
            begun.set()
            await go_on.wait()

        async with home.database.async_engine.connect() as late:
            await late.execute(text("SELECT nextval('dotmac_outbox_position_seq')"))
            position = await late.scalar(text("SELECT lastval()"))
            await late.rollback()
        await publish_all(home, ("higher", "k"))
        first = asyncio.create_task(relay_of(home, slow).run_once())
        await begun.wait()
        await publish_all(home, ("lower", "k"))
        async with home.database.async_engine.begin() as connection:
            lower = update(OUTBOX).where(OUTBOX.c.claim.is_(None))
            await connection.execute(lower.values(position=position))
        assert await relay_of(home, inbox).run_once() == 0
        go_on.set()
        assert await first == 1
        assert await relay_of(home, inbox).run_once() == 1

    run(home, work())


def test_the_relay_survives_a_database_that_is_away(home: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a claim nor a record is lost when some transactions fail."""

    async def work() -> None:
        from dotmac_database import DatabaseUnavailableError

        inbox = Inbox()
        relay = relay_of(home, inbox)
        plain, calls = relay._store._run, 0

        async def failing(work: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls % 3 == 0:
                return await plain(work)
            raise DatabaseUnavailableError("away")

        monkeypatch.setattr(relay._store, "_run", failing)
        monkeypatch.setattr("dotmac_database.outbox.deliveries._PAUSE", 0.01)
        await publish_all(home, *((number, "k") for number in range(5)))
        task = asyncio.create_task(relay.run())
        await inbox.until(5)
        relay.stop()
        await task
        assert inbox.payloads == list(range(5))

    run(home, work())
    assert home.rows() == []


def test_a_missing_table_ends_the_relay(tmp_path: Any) -> None:
    async def work() -> None:
        database = create_database(f"sqlite:///{tmp_path}/empty.db")
        with pytest.raises(DatabaseError, match="has no such table"):
            await OutboxRelay(database, Inbox()).run()
        memory = create_database("sqlite://")
        with pytest.raises(MisuseError, match="database in memory"):
            await OutboxRelay(memory, Inbox()).run()
        await database.dispose_async()
        await memory.dispose_async()

    asyncio.run(work())


def test_a_block_runs_the_relay_and_awaits_what_has_begun(home: Place) -> None:
    async def work() -> None:
        begun, ended = asyncio.Event(), 0

        async def slow(message: Any) -> None:
            nonlocal ended
            begun.set()
            await asyncio.sleep(0)  # the block ends meanwhile
            ended += 1

        await publish_all(home, ("a1", "a"), ("b1", "b"))
        relay = relay_of(home, slow)
        async with relay.running():
            await begun.wait()
            with pytest.raises(MisuseError, match="runs already"):
                await relay.run_once()
        assert ended == 2 - len(home.rows())
        with pytest.raises(ZeroDivisionError):
            async with relay_of(home, slow).running():
                _ = 1 / 0
        assert len(asyncio.all_tasks()) == 1

    run(home, work())


def test_a_cancelled_block_cancels_its_relay(home: Place) -> None:
    async def work() -> None:
        begun, never = asyncio.Event(), asyncio.Event()

        async def endless(message: Any) -> None:
            begun.set()
            await never.wait()

        async def block() -> None:
            async with relay_of(home, endless).running():
                await never.wait()

        await publish_all(home, ("a1", "a"))
        task = asyncio.create_task(block())
        await begun.wait()
        task.cancel()
        ended, _ = await asyncio.wait([task], timeout=20)
        assert ended, "the block waits for a delivery that does not end"
        assert task.cancelled()
        assert home.columns("payload", "claim") == [("a1", None)], "it is released, and will be delivered again"

    run(home, work())


@pytest.mark.parametrize("body", [None, ZeroDivisionError("in the block")])
def test_an_error_of_the_relay_is_logged_at_once_and_raised_at_the_end(
    body: Exception | None, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        database = create_database(f"sqlite:///{tmp_path}/empty.db")
        try:
            async with asyncio.timeout(20), OutboxRelay(database, Inbox()).running():
                while not caplog.records:  # noqa: ASYNC110 - the record is written by a callback of the task
                    await asyncio.sleep(0.01)
                if body is not None:
                    raise body
        finally:
            await database.dispose_async()

    with pytest.raises(DatabaseError if body is None else ZeroDivisionError):
        asyncio.run(work())
    assert [each.message for each in caplog.records] == ["The relay of the outbox has ended by an error"]
    assert caplog.records[0].exc_info is not None


@pytest.mark.parametrize(
    "options",
    [
        *({name: 0} for name in ("batch", "attempts", "concurrency", "timeout", "lease", "poll")),
        {"policy": RetryPolicy(deadline=1.0)},
        {"policy": RetryPolicy(budget=RetryBudget())},
        {"policy": RetryPolicy(hooks=(lambda attempt: None,))},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        OutboxRelay(create_database("sqlite:///x.db"), Inbox(), **options)


@pytest.fixture
def relay_role(places: Any, outbox_url: Any) -> Iterator[None]:
    """A role of relays, which is gone after the test, also if it fails."""
    engine = places["asyncpg-plain"].admin.engine
    with engine.begin() as connection:
        connection.execute(text("CREATE ROLE dotmac_outbox_relay LOGIN NOSUPERUSER NOBYPASSRLS"))
        connection.execute(text("GRANT SELECT, UPDATE, DELETE ON dotmac_outbox TO dotmac_outbox_relay"))
    yield
    with engine.begin() as connection:
        connection.execute(text("DROP OWNED BY dotmac_outbox_relay; DROP ROLE dotmac_outbox_relay"))


@pytest.mark.usefixtures("relay_role")
def test_row_level_security_and_the_role_of_the_relay(outbox_url: Any, places: Any, emptied: Any) -> None:
    """Without a way across, the relay would see no message, and say nothing."""
    admin, app = places["asyncpg-plain"], places["asyncpg-rls"]

    async def work() -> None:
        for tenant in ("a", "b"):
            async with app.maker() as session:
                bind_tenant(session, tenant)
                publish(session, "t", tenant, key="k")
                await session.commit()
        inbox = Inbox()
        inbox.failing = {"a": 1}
        database = create_database(outbox_url.set(drivername="postgresql+asyncpg", username="dotmac_outbox_relay"))
        for hidden in (None, RowLevelSecurity(RLS.metadata, all_tenants=False)):
            with pytest.raises(MisuseError, match="hides the messages"):
                await OutboxRelay(database, inbox, rls=hidden).run()
        relay = OutboxRelay(database, inbox, rls=RLS, policy=LATER)
        assert await relay.run_once() == 1, "the failing message of one tenant holds no other tenant's key"
        assert [(each.tenant_id, each.payload) for each in inbox.messages] == [("a", "a"), ("b", "b")]
        with admin.admin.engine.begin() as connection:
            connection.execute(text("CREATE POLICY relay ON dotmac_outbox TO dotmac_outbox_relay USING (true)"))
        try:
            await due(admin)
            assert await OutboxRelay(database, inbox).run_once() == 1
        finally:
            with admin.admin.engine.begin() as connection:
                connection.execute(text("DROP POLICY relay ON dotmac_outbox"))
        await database.dispose_async()

    run(admin, work())


def test_a_consumer_that_takes_each_message_once(home: Place) -> None:
    async def work() -> None:
        done: list[Any] = []
        engine = home.database.async_engine
        async with engine.begin() as connection:
            await connection.run_sync(idempotency_metadata.create_all)

        async def consume(message: Any) -> None:
            async with home.database.async_sessions.begin() as session:
                record = await async_once(session, str(message.id))
                if record.first:
                    done.append(message.payload)
            if message.attempt == 1:
                raise ConnectionError("the answer was lost")

        await publish_all(home, (1, "k"), (2, "k"))
        relay = relay_of(home, consume)
        while home.rows():
            await relay.run_once()
        assert done == [1, 2]
        async with engine.begin() as connection:
            await connection.execute(delete(idempotency_metadata.tables["dotmac_idempotency_keys"]))

    run(home, work())


def test_the_statements_of_a_batch(places: Any, outbox_url: Any, emptied: Any) -> None:
    """The number of statements does not depend on the number of messages."""
    home = places["asyncpg-plain"]

    async def sent(count: int) -> list[str]:
        await publish_all(home, *((number, "k") for number in range(count)))
        go_on = asyncio.Event()
        go_on.set()
        relay = relay_of(home, Inbox())
        await relay._store.check()
        with counted(home.engine.sync_engine) as statements:
            assert await relay.run_once() == count
        return [each for each in statements if each not in ("BEGIN", "COMMIT")]

    first, second = run(home, sent(1)), run(home, sent(90))
    assert len(first) == len(second) == 2 + 4 + 2  # the check, the claim, the record


def test_policies_at_once_and_by_default() -> None:
    assert AT_ONCE.delay(3) == 0.0
    database = create_database("sqlite:///x.db")
    policy = OutboxRelay(database, Inbox())._rules.policy
    assert [round(policy.delay(number), -1) for number in (9, 20)] == [
        pytest.approx(250, abs=30),
        pytest.approx(290, abs=20),
    ]
