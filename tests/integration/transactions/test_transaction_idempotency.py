"""`once`: a repeated request gets its first result and writes nothing again, whatever failed in between."""

# ruff: noqa: PT012  # the block that an exception leaves is what is tested
from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from dotmac_database.errors import DatabaseError, DuplicateEntityError, TransactionError, ValidationError
from dotmac_database.retry import RetryPolicy
from dotmac_database.tenancy import bind_tenant, guard_tenants
from dotmac_database.transactions import TransactionManager, TransactionOptions, once, purge_idempotency_keys
from dotmac_database.types import utc_now


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
            assert again.created_at == record.created_at


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
    with pytest.raises(DuplicateEntityError, match="another request"):
        world.retrying(manager, lambda s: order(s, world, "k", fingerprint="sha-2"))


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
    with world.session() as session, pytest.raises(TransactionError, match="DatabaseTransaction"):
        world.call(session, once, "k")


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_senseless_keys_are_refused(world: Any, key: str) -> None:
    with world.session() as session, world.transaction(session), pytest.raises(ValidationError, match="255"):
        world.call(session, once, key)


def test_old_keys_are_purged(world: Any, manager: Any) -> None:
    world.retrying(manager, lambda s: once(s, "old", tenant_id="a"))
    assert world.retrying(manager, lambda s: purge_idempotency_keys(s, utc_now() - timedelta(days=1))) == 0
    assert world.retrying(manager, lambda s: purge_idempotency_keys(s, utc_now() + timedelta(seconds=1))) == 1
    assert world.retrying(manager, lambda s: once(s, "old", tenant_id="a").first)
