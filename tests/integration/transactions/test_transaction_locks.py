"""Advisory locks: one transaction at a time, for each tenant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from dotmac_database.errors import DatabaseTimeoutError, TransactionError, ValidationError
from dotmac_database.tenancy import bind_tenant, guard_tenants
from dotmac_database.transactions import DatabaseTransaction, TransactionOptions, advisory_lock


@pytest.fixture
def rival(world: Any) -> Iterator[Session]:
    """A session of another connection, in a transaction."""
    if world.dialect != "postgresql":
        pytest.skip("PostgreSQL's")
    engine = create_engine(world.urls["sync"])
    with Session(engine) as session, DatabaseTransaction.sync_transaction(session):
        yield session
    engine.dispose()


def test_held_until_the_transaction_ends(world: Any, rival: Session) -> None:
    with world.session() as session:
        with world.transaction(session):
            assert world.call(session, advisory_lock, "invoices")
            assert world.call(session, advisory_lock, "invoices"), "one's own is no obstacle"
            assert not advisory_lock(rival, "invoices", wait=False)
            assert advisory_lock(rival, "reports", wait=False)
        assert advisory_lock(rival, "invoices", wait=False)
        with world.transaction(session, TransactionOptions(lock_timeout=10)):
            assert world.call(session, advisory_lock, "invoices", wait=False) is False


def test_tenants_do_not_wait_for_each_other(world: Any, rival: Session) -> None:
    with world.session() as session, world.transaction(session):
        world.call(session, advisory_lock, "invoices", tenant_id="a")
        assert advisory_lock(rival, "invoices", tenant_id="b", wait=False)
        assert advisory_lock(rival, "invoices", wait=False)
        assert not advisory_lock(rival, "invoices", tenant_id="a", wait=False)
        world.call(session, advisory_lock, "b:c", tenant_id="a")
        assert advisory_lock(rival, "c", tenant_id="a:b", wait=False)


@pytest.mark.parametrize("nobody", ["", " ", ["a"], True, b"a", "a\x00"])
def test_not_everything_names_a_tenant(rival: Session, nobody: Any) -> None:
    with pytest.raises(ValidationError):
        advisory_lock(rival, "invoices", tenant_id=nobody)


def test_the_sessions_tenant_is_meant(world: Any, rival: Session) -> None:
    session = guard_tenants(type(world.maker)(world.engine))()
    bind_tenant(session, "a")
    with world.transaction(session):
        world.call(session, advisory_lock, "invoices")
        assert not advisory_lock(rival, "invoices", tenant_id="a", wait=False)
    world.do(session.close())


def test_it_waits_no_longer_than_the_lock_timeout(world: Any, rival: Session) -> None:
    advisory_lock(rival, "invoices")
    options = TransactionOptions(lock_timeout=0.05)
    with world.session() as session, pytest.raises(DatabaseTimeoutError), world.transaction(session, options):
        world.call(session, advisory_lock, "invoices")


def test_refused_where_it_would_mean_nothing(world: Any) -> None:
    with world.session() as session:
        with pytest.raises(
            TransactionError, match=r"An advisory lock needs an open transaction: .*DatabaseTransaction"
        ):
            world.call(session, advisory_lock, "invoices")
        with world.transaction(session), pytest.raises(ValidationError, match="name") as raised:
            world.call(session, advisory_lock, "")
        assert raised.value.field == "name"
        if world.dialect == "sqlite":
            with world.transaction(session), pytest.raises(TransactionError, match="sqlite has no advisory locks"):
                world.call(session, advisory_lock, "invoices")
