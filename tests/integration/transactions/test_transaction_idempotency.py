"""`once`: a repeated request gets its first result and writes nothing again, whatever failed in between."""

# ruff: noqa: PT012  # the block that an exception leaves is what is tested
from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event, select
from sqlalchemy.orm import Session

from dotmac_database.errors import DatabaseError, DuplicateEntityError, TransactionError, ValidationError
from dotmac_database.retry import RetryPolicy
from dotmac_database.tenancy import bind_tenant, guard_tenants
from dotmac_database.transactions import (
    DatabaseTransaction,
    TransactionManager,
    TransactionOptions,
    idempotency,
    idempotency_metadata,
    once,
    purge_idempotency_keys,
)
from dotmac_database.types import utc_now
from tests.conftest import counted

KEYS = idempotency_metadata.tables["dotmac_idempotency_keys"]
START = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
SECOND, TICK = timedelta(seconds=1), timedelta(microseconds=1)


def order(session: Session, world: Any, key: str, **options: Any) -> Any:
    """A request: make an account once, and answer with its id."""
    record = once(session, key, **options)
    if record.first:
        account = world.Account(name=f"made by {key}")
        session.add(account)
        session.flush()
        record.save({"id": account.id})
        return {"id": account.id}
    return record.result


@pytest.fixture
def manager(world: Any) -> TransactionManager:
    return TransactionManager(world.maker, policy=RetryPolicy(max_attempts=20, base_delay=0.01))


def test_the_second_gets_the_firsts_result_and_writes_nothing(world: Any, manager: Any) -> None:
    first = world.retrying(manager, lambda s: order(s, world, "k1"))
    again = world.retrying(manager, lambda s: order(s, world, "k1"))
    other = world.retrying(manager, lambda s: order(s, world, "k2"))
    assert first == again != other
    assert world.names() == ["made by k1", "made by k2"]


def test_both_faces_alike(world: Any) -> None:
    with world.session() as session:
        with world.transaction(session):
            record = world.call(session, once, "k")
            assert (record.first, record.result, record.key) == (True, None, "k")
            world.do(
                record.save([1, None, "é"]) if world.runner is None else record.async_save(session, [1, None, "é"])
            )
        with world.transaction(session):
            again = world.call(session, once, "k")
            assert (again.first, again.result) == (False, [1, None, "é"])
            assert (again.key, again.tenant_id, again.created_at) == ("k", "", record.created_at)
            world.do(again.save("later") if world.runner is None else again.async_save(session, "later"))
        with world.transaction(session):
            assert world.call(session, once, "k").result == "later"


def test_a_key_whose_transaction_failed_is_free_again(world: Any, manager: Any) -> None:
    def fails(session: Session) -> None:
        order(session, world, "k")
        raise DatabaseError

    with pytest.raises(DatabaseError):
        world.retrying(manager, fails)
    assert world.retrying(manager, lambda s: order(s, world, "k")) is not None
    assert world.names() == ["made by k"]


def test_a_key_of_a_savepoint_that_was_rolled_back_is_free_again(world: Any) -> None:
    with world.session() as session, world.transaction(session):
        with pytest.raises(DatabaseError), world.transaction(session):
            world.call(session, once, "k")
            raise DatabaseError
        assert world.call(session, once, "k").first


def test_keys_belong_to_a_tenant(world: Any, manager: Any) -> None:
    first = world.retrying(manager, lambda s: once(s, "k", tenant_id="a").first)
    other = world.retrying(manager, lambda s: once(s, "k", tenant_id="b").first)
    nobody = world.retrying(manager, lambda s: once(s, "k").first)
    again = world.retrying(manager, lambda s: once(s, "k", tenant_id="a").first)
    assert (first, other, nobody, again) == (True, True, True, False)


def test_the_sessions_tenant_is_meant(world: Any) -> None:
    maker = guard_tenants(type(world.maker)(world.engine))
    found = []
    for tenant in ("a", "b", "a"):
        session = maker()
        bind_tenant(session, tenant)
        with world.transaction(session):
            record = world.call(session, once, "k")
            found.append((record.tenant_id, record.first))
        world.do(session.close())
    assert found == [("a", True), ("b", True), ("a", False)]


def test_a_key_for_another_request_is_refused(world: Any, manager: Any) -> None:
    world.retrying(manager, lambda s: order(s, world, "k", fingerprint="sha-1"))
    world.retrying(manager, lambda s: order(s, world, "k", fingerprint="sha-1"))
    with pytest.raises(DuplicateEntityError, match="another request") as raised:
        world.retrying(manager, lambda s: order(s, world, "k", fingerprint="sha-2"))
    assert raised.value.fields == ("key",)


@pytest.mark.parametrize("level", [None, "SERIALIZABLE"])
def test_of_two_at_the_same_time_one_does_the_work(world: Any, manager: Any, level: Any) -> None:
    """The second waits for the first; under SERIALIZABLE, or where SQLite is busy, it is run again."""
    manager.options = TransactionOptions(isolation_level=level)
    rival_manager = TransactionManager(lambda: Session(engine), policy=manager.policy, options=manager.options)
    engine = create_engine(world.urls["sync"], connect_args={"timeout": 0.05} if world.dialect == "sqlite" else {})
    results: list[Any] = []
    begun = threading.Event()

    def rival() -> None:
        begun.wait(60)
        results.append(rival_manager.execute_with_retry(lambda s: order(s, world, "k")))

    thread = threading.Thread(target=rival)
    thread.start()

    def slow(session: Session) -> Any:
        result = order(session, world, "k")
        begun.set()
        time.sleep(0.1)
        return result

    results.append(world.retrying(manager, slow))
    thread.join(60)
    engine.dispose()
    assert len(results) == 2
    assert results[0] == results[1]
    assert world.names() == ["made by k"]


def test_outside_of_a_transaction_it_is_refused(world: Any) -> None:
    with world.session() as session:
        with pytest.raises(
            TransactionError, match=r"An idempotency key needs an open transaction: .*DatabaseTransaction"
        ):
            world.call(session, once, "k")
        with world.transaction(session):
            record = world.call(session, once, "k")
        with pytest.raises(TransactionError, match="An idempotency key needs an open transaction"):
            world.do(record.save(1) if world.runner is None else record.async_save(session, 1))


def test_in_a_block_that_has_not_begun_and_in_a_transaction_by_hand(world: Any) -> None:
    with world.session() as session:
        with world.transaction(session, lazy=True):
            assert world.call(session, once, "lazy").first
        with world.entered(session.begin()):
            assert world.call(session, once, "by hand").first
    assert sorted(key for _, key in recorded(world)) == ["by hand", "lazy"]


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_senseless_keys_are_refused(world: Any, key: str) -> None:
    with world.session() as session, world.transaction(session), pytest.raises(ValidationError, match="255") as raised:
        world.call(session, once, key)
    assert raised.value.field == "key"


def test_the_longest_key(world: Any, manager: Any) -> None:
    assert [world.retrying(manager, lambda s: once(s, "x" * 255).first) for _ in range(2)] == [True, False]


def test_old_keys_are_purged(world: Any, manager: Any) -> None:
    world.retrying(manager, lambda s: once(s, "old", tenant_id="a"))
    assert world.retrying(manager, lambda s: purge_idempotency_keys(s, utc_now() - timedelta(days=1))) == 0
    assert world.retrying(manager, lambda s: purge_idempotency_keys(s, utc_now() + timedelta(seconds=1))) == 1
    assert world.retrying(manager, lambda s: once(s, "old", tenant_id="a").first)


class Clock:
    """The time of the keys, which only the test moves."""

    def __init__(self) -> None:
        self.now = START


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(idempotency, "utc_now", lambda: clock.now)
    return clock


def recorded(world: Any) -> dict[tuple[str, str], Any]:
    """The recorded keys of all tenants, read on another connection."""
    with world.session() as session:
        return {(row.tenant_id, row.key): row for row in world.do(session.execute(select(KEYS)))}


class TestLifetime:
    @pytest.mark.parametrize("ttl", [60.0, timedelta(minutes=1)])
    def test_an_expired_key_is_new_in_every_respect_and_no_other_key_is(
        self, world: Any, manager: Any, clock: Clock, ttl: Any
    ) -> None:
        def request(result: str, **options: Any) -> tuple[bool, Any, datetime]:
            def work(session: Session) -> tuple[bool, Any, datetime]:
                record = once(session, "k", tenant_id="a", ttl=ttl, **options)
                if record.first:
                    record.save(result)
                return record.first, record.result, record.created_at

            first, saved, created_at = world.retrying(manager, work)
            return first, saved, created_at

        for tenant, key in (("a", "other"), ("b", "k")):
            world.retrying(manager, lambda s, t=tenant, k=key: once(s, k, tenant_id=t, ttl=ttl).save("kept"))
        assert request("one", fingerprint="sha-1") == (True, None, START)
        others = {name: row for name, row in recorded(world).items() if name != ("a", "k")}
        assert [row.result for row in others.values()] == ["kept", "kept"]

        clock.now = START + 60 * SECOND - TICK
        assert request("two", fingerprint="sha-1") == (False, "one", START)
        with pytest.raises(DuplicateEntityError, match="another request"):
            request("two", fingerprint="sha-2")
        clock.now = taken_over = START + 60 * SECOND
        assert request("two", fingerprint="sha-2") == (True, None, taken_over)
        clock.now += 60 * SECOND - TICK
        assert request("three", fingerprint="sha-2") == (False, "two", taken_over)
        assert {name: row for name, row in recorded(world).items() if name != ("a", "k")} == others

    def test_an_expired_result_is_not_given_to_a_request_that_saves_none(
        self, world: Any, manager: Any, clock: Clock
    ) -> None:
        world.retrying(manager, lambda s: once(s, "k", ttl=1).save("old"))
        clock.now += SECOND
        assert world.retrying(manager, lambda s: once(s, "k", ttl=1).first)
        assert world.retrying(manager, lambda s: once(s, "k", ttl=1).result) is None

    def test_a_guarded_session_takes_over_an_expired_key(self, world: Any, clock: Clock) -> None:
        maker = guard_tenants(type(world.maker)(world.engine))
        for result in ("old", "new"):
            session = maker()
            bind_tenant(session, "a")
            with world.transaction(session):
                record = world.call(session, once, "k", ttl=1)
                assert record.first
                world.do(record.save(result) if world.runner is None else record.async_save(session, result))
            world.do(session.close())
            clock.now += SECOND
        assert {name: row.result for name, row in recorded(world).items()} == {("a", "k"): "new"}

    def test_without_a_lifetime_a_key_never_expires(self, world: Any, manager: Any, clock: Clock) -> None:
        world.retrying(manager, lambda s: once(s, "k"))
        clock.now += timedelta(days=100_000)
        assert not world.retrying(manager, lambda s: once(s, "k", ttl=1).first)

    def test_the_async_twin_passes_all_its_arguments_on(self, world: Any, clock: Clock) -> None:
        with world.session() as session:
            with world.transaction(session):
                record = world.call(session, once, "k", tenant_id="a", fingerprint="sha-1", ttl=60)
            assert (record.key, record.tenant_id, record.first, record.created_at) == ("k", "a", True, START)
            (row,) = recorded(world).values()
            assert (row.tenant_id, row.fingerprint, row.expires_at) == ("a", "sha-1", START + 60 * SECOND)

    @pytest.mark.parametrize("taken", ["taken over", "purged"])
    def test_a_rival_is_quicker_with_an_expired_key(self, world: Any, manager: Any, clock: Clock, taken: str) -> None:
        """It commits after the key was found, and before it is taken over: only one of the two does the work."""
        if world.dialect == "sqlite":
            pytest.skip("SQLite's first statement locks the rival out")
        world.retrying(manager, lambda s: order(s, world, "k", ttl=1))
        clock.now += SECOND
        engine = create_engine(world.urls["sync"])
        moment = "SELECT dotmac_idempotency_keys" if taken == "purged" else "UPDATE dotmac_idempotency_keys"
        came: list[str] = []

        def rival(_: Connection, _cursor: Any, statement: str, *_more: Any) -> None:
            if came or not statement.startswith(moment):
                return
            came.append(statement)
            with Session(engine) as session, DatabaseTransaction.sync_transaction(session):
                if taken == "purged":
                    purge_idempotency_keys(session, clock.now)
                else:
                    record = once(session, "k", ttl=1)
                    assert record.first
                    record.save("the rival's")

        sync_engine = getattr(world.engine, "sync_engine", world.engine)
        event.listen(sync_engine, "before_cursor_execute", rival)
        result = world.retrying(manager, lambda s: once(s, "k", ttl=1).result)
        event.remove(sync_engine, "before_cursor_execute", rival)
        engine.dispose()
        assert len(came) == 1
        assert result == (None if taken == "purged" else "the rival's")
        assert recorded(world)["", "k"].created_at == clock.now

    def test_senseless_lifetimes_are_refused(self, world: Any) -> None:
        too_long = [timedelta(days=3660) + TICK, 3660 * 86400 + 1, float("inf")]
        for ttl in (0, -1, timedelta(0), -TICK, float("nan"), "soon", *too_long):
            with (
                world.session() as session,
                world.transaction(session),
                pytest.raises(ValidationError, match=r"must be positive.*ten years") as raised,
            ):
                world.call(session, once, "k", ttl=ttl)
            assert raised.value.field == "ttl"
        assert recorded(world) == {}

    def test_the_shortest_and_the_longest_lifetime(self, world: Any, manager: Any) -> None:
        for ttl in (TICK, timedelta(days=3660)):
            assert world.retrying(manager, lambda s, t=ttl: once(s, str(t), ttl=t).first)


class TestPurging:
    """Keys of several tenants. Those that were recorded first expire last, and k3 never."""

    @pytest.fixture(autouse=True)
    def keys(self, world: Any, manager: Any, clock: Clock) -> None:
        for number, ttl in enumerate((40, 20, 10, None)):
            clock.now = START + number * SECOND
            world.retrying(manager, lambda s, n=number, t=ttl: once(s, f"k{n}", tenant_id=f"t{n}", ttl=t))

    @staticmethod
    def purge(world: Any, *args: Any, **options: Any) -> tuple[int, list[str]]:
        """Purge, and roll back: the number of purged keys, and those that were left."""
        with world.session() as session:
            purged = world.call(session, purge_idempotency_keys, *args, **options)
            assert len(recorded(world)) == 4, "it does not commit"
            left = list(world.do(session.scalars(select(KEYS.c.key).order_by(KEYS.c.key))))
            world.do(session.rollback())
        return purged, left

    def test_what_has_expired(self, world: Any, clock: Clock) -> None:
        cases: list[tuple[int, int | None, list[str]]] = [
            (12, None, ["k0", "k1", "k2", "k3"]),  # k2 expires at this moment
            (13, None, ["k0", "k1", "k3"]),
            (3600, None, ["k3"]),
            (3600, 0, ["k0", "k1", "k2", "k3"]),
            (3600, 1, ["k0", "k1", "k3"]),
            (3600, 2, ["k0", "k3"]),
            (3600, 3, ["k3"]),
            (13, 3, ["k0", "k1", "k3"]),
        ]
        for after, at_most, left in cases:
            clock.now = START + after * SECOND
            assert self.purge(world, at_most=at_most) == (4 - len(left), left)

    def test_what_was_recorded_before(self, world: Any) -> None:
        cases: list[tuple[int, int | None, list[str]]] = [
            (0, None, ["k0", "k1", "k2", "k3"]),
            (2, None, ["k2", "k3"]),
            (2, 1, ["k1", "k2", "k3"]),
            (9, 2, ["k2", "k3"]),
            (9, 9, []),
        ]
        for before, at_most, left in cases:
            moment = START + before * SECOND
            for same in (moment, moment.replace(tzinfo=None), moment.astimezone(timezone(timedelta(hours=5)))):
                assert self.purge(world, same, at_most=at_most) == (4 - len(left), left)

    def test_a_batch_does_not_wait_for_keys_in_use(self, world: Any, clock: Clock) -> None:
        if world.dialect == "sqlite":
            pytest.skip("PostgreSQL's")
        clock.now = START + 3600 * SECOND
        locked = select(KEYS.c.key).where(KEYS.c.key == "k2").with_for_update()
        with world.session() as holder, world.session() as session:
            assert world.do(holder.scalar(locked)) == "k2"
            with world.transaction(session, TransactionOptions(lock_timeout=10)):
                assert world.call(session, purge_idempotency_keys, at_most=2) == 2
            assert sorted(key for _, key in recorded(world)) == ["k2", "k3"]

    def test_a_guarded_session_purges_the_keys_of_all_tenants_by_one_statement(self, world: Any, clock: Clock) -> None:
        clock.now = START + 3600 * SECOND
        session = guard_tenants(type(world.maker)(world.engine))()
        bind_tenant(session, "t0")
        with world.transaction(session), counted(getattr(world.engine, "sync_engine", world.engine)) as sent:
            assert world.call(session, purge_idempotency_keys, at_most=2) == 2
            assert world.call(session, purge_idempotency_keys) == 1
        world.do(session.close())
        assert len([each for each in sent if "dotmac_idempotency_keys" in each]) == 2
        assert [key for _, key in recorded(world)] == ["k3"]
