"""Settings of one transaction: they hold, they end, and they are refused where they can't hold."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlalchemy import func, select, text

from dotmac_database.errors import DatabaseTimeoutError, TransactionError, ValidationError
from dotmac_database.execution.state import state_of, sync_session
from dotmac_database.tenancy import RowLevelSecurity, bind_tenant, guard_tenants
from dotmac_database.transactions import TransactionOptions


def setting(world: Any, session: Any, name: str) -> str:
    return str(world.do(session.scalar(text(f"SHOW {name}"))))


def test_options_hold_for_one_transaction(world: Any) -> None:
    if world.dialect == "sqlite":
        pytest.skip("PostgreSQL's")
    options = TransactionOptions(
        isolation_level="SERIALIZABLE",
        read_only=True,
        deferrable=True,
        statement_timeout=1.5,
        lock_timeout=0.25,
        idle_in_transaction_timeout=70,
    )
    names = [
        "transaction_isolation",
        "transaction_read_only",
        "transaction_deferrable",
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
    ]
    during = ["serializable", "on", "on", "1500ms", "250ms", "70s"]
    with world.session() as session:
        with world.transaction(session, options):
            assert [setting(world, session, name) for name in names] == during
        with world.transaction(session):
            after = ["read committed", "off", "off", "0", "0", "0"]
            assert [setting(world, session, name) for name in names] == after
        with world.transaction(session, TransactionOptions(isolation_level="REPEATABLE READ")):
            assert setting(world, session, names[0]) == "repeatable read"
        for _ in range(2 * 3):  # each connection of the pool
            with world.transaction(session):
                assert setting(world, session, names[0]) == "read committed"


def test_options_hold_on_the_one_engine_of_a_session_that_names_it_for_a_class(world: Any) -> None:
    """Such a session has no engine for a statement without a class."""
    level = TransactionOptions(isolation_level="SERIALIZABLE")
    with world.session(bind=None, binds={world.Account: world.engine}) as session, world.transaction(session, level):
        world.add(session, "a")
        if world.dialect == "postgresql":
            shown = select(func.current_setting("transaction_isolation")).select_from(world.Account)
            assert world.do(session.scalar(shown)) == "serializable"
    assert world.names() == ["a"]


def test_a_tiny_timeout_is_not_none(world: Any) -> None:
    if world.dialect == "sqlite":
        pytest.skip("PostgreSQL's")
    with world.session() as session, world.transaction(session, TransactionOptions(lock_timeout=0.0001)):
        assert setting(world, session, "lock_timeout") == "1ms"


@pytest.mark.parametrize(
    "options",
    [
        TransactionOptions(read_only=True),
        TransactionOptions(lock_timeout=1),
        TransactionOptions(isolation_level="SERIALIZABLE"),
    ],
    ids=["read_only", "lock_timeout", "isolation_level"],
)
def test_options_are_refused_where_the_transaction_has_begun(world: Any, options: TransactionOptions) -> None:
    name = options.names()[0]
    with world.session() as session:
        with (
            world.transaction(session),
            pytest.raises(TransactionError, match=name),
            world.transaction(session, options),
        ):
            pass
        world.do(session.execute(select(1)))
        with pytest.raises(TransactionError, match=name), world.transaction(session, options):
            pass
        world.do(session.rollback())
        with pytest.raises(TransactionError, match="lazy"), world.transaction(session, options, lazy=True):
            pass
        assert state_of(sync_session(session)).open_blocks == 0


def test_refused_options_leave_the_open_transaction_to_its_owner(world: Any) -> None:
    with world.session() as session:
        world.add(session, "a")
        with pytest.raises(TransactionError, match="has begun"):
            world.transaction(session, TransactionOptions(isolation_level="SERIALIZABLE")).__enter__()
        world.do(session.commit())
    assert world.names() == ["a"]


def test_options_are_refused_on_a_connection_that_is_in_a_transaction(world: Any) -> None:
    """As tests have it that roll everything back."""
    if world.runner is not None:
        pytest.skip("one face is enough")
    with world.engine.connect() as connection, connection.begin(), world.session(bind=connection) as session:
        options = TransactionOptions(isolation_level="SERIALIZABLE")
        with pytest.raises(TransactionError, match="has begun"), world.transaction(session, options):
            pass
        with world.transaction(session):
            world.add(session, "a")


@pytest.mark.parametrize("secured", [False, True])
def test_options_of_a_guarded_session(world: Any, secured: bool) -> None:
    """Row-level security is told its tenant in the same transaction, after BEGIN has its options."""
    if world.dialect == "sqlite":
        pytest.skip("PostgreSQL's")
    rls = RowLevelSecurity(world.Account.metadata) if secured else None
    session = guard_tenants(type(world.maker)(world.engine), rls=rls)()
    bind_tenant(session, "a")
    options = TransactionOptions(isolation_level="SERIALIZABLE", lock_timeout=1)
    with world.transaction(session, options):
        world.add(session, "a")
        for name, value in (("transaction_isolation", "serializable"), ("lock_timeout", "1s")):
            assert world.do(session.scalar(select(func.current_setting(name)))) == value
    world.do(session.close())
    assert world.names() == ["a"]


def test_options_that_sqlite_does_not_know_are_refused(world: Any) -> None:
    if world.dialect != "sqlite":
        pytest.skip("SQLite's")
    with world.session() as session:
        for options in (
            TransactionOptions(read_only=True),
            TransactionOptions(isolation_level="READ COMMITTED"),
            TransactionOptions(statement_timeout=1),
            TransactionOptions(isolation_level="SERIALIZABLE", lock_timeout=1),
        ):
            named = ", ".join(options.names())
            with pytest.raises(TransactionError, match=f"^{named}: sqlite can't"), world.transaction(session, options):
                pass
        with world.transaction(session, TransactionOptions(isolation_level="SERIALIZABLE")):
            world.add(session, "a")
    assert world.names() == ["a"]


@pytest.mark.parametrize("bad", [{"isolation_level": "WILD"}, {"lock_timeout": -1}, {"statement_timeout": -0.1}])
def test_senseless_options_are_refused(bad: dict[str, Any]) -> None:
    (name,) = bad
    with pytest.raises(ValidationError, match=rf"^{name} must (be one of READ|not be negative)") as raised:
        TransactionOptions(**bad)
    assert raised.value.field == name


@pytest.mark.parametrize("name", ["statement_timeout", "lock_timeout"])
def test_timeouts_end_the_statement(world: Any, name: str) -> None:
    if world.dialect == "sqlite":
        pytest.skip("PostgreSQL's")
    wait = text("SELECT pg_sleep(120)") if name == "statement_timeout" else text("LOCK TABLE tx_accounts")
    start = time.monotonic()
    with world.session() as holder, world.session() as session:
        world.do(holder.execute(text("LOCK TABLE tx_accounts")))
        with pytest.raises(DatabaseTimeoutError), world.transaction(session, TransactionOptions(**{name: 0.1})):
            world.do(session.execute(wait))
        assert not session.in_transaction()
    assert time.monotonic() - start < 60


def test_a_write_in_a_read_only_transaction_is_refused(world: Any) -> None:
    if world.dialect == "sqlite":
        pytest.skip("PostgreSQL's")
    with world.session() as session:
        with pytest.raises(TransactionError), world.transaction(session, TransactionOptions(read_only=True)):
            world.add(session, "a")
        with world.transaction(session):
            world.add(session, "b")
    assert world.names() == ["b"]
