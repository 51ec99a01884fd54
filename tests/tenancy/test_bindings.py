"""One session, one tenant: binding, scopes, the way across, and what each of them costs."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session, sessionmaker

from dotmac_database import (
    ALL_TENANTS,
    DatabaseTransaction,
    TenantIsolationError,
    TenantRequiredError,
    UnscopedStatementError,
    ValidationError,
    bind_tenant,
    guard_tenants,
    is_guarded,
    tenant_scope,
    unscoped,
)
from tests.conftest import counted

from .conftest import Guarded
from .models import Account, Device, Note, Offer


def _ids(guarded: Guarded, session: Any) -> list[int]:
    return guarded.run(session, lambda s: sorted(s.scalars(select(Account.id))))


def _all(session: Session) -> list[Account]:
    return list(session.scalars(select(Account)).all())


def test_a_bound_session_keeps_its_tenant(guarded: Guarded) -> None:
    session = guarded.session()
    bind_tenant(session, "a")
    bind_tenant(session, "a")
    held = guarded.run(session, _all)
    assert {each.tenant_id for each in held} == {"a"}
    with pytest.raises(TenantIsolationError):
        bind_tenant(session, "b")
    guarded.face(session.commit)
    with pytest.raises(TenantIsolationError):
        bind_tenant(session, "b")


def test_a_clean_session_may_serve_another(guarded: Guarded) -> None:
    session = guarded.session()
    bind_tenant(session, "a")
    assert _ids(guarded, session) == [1, 3]
    bind_tenant(session, "b")
    assert _ids(guarded, session) == [2]


def test_pending_rows_keep_the_tenant(guarded: Guarded) -> None:
    session = guarded.session()
    bind_tenant(session, "a")
    session.add(Account(name="x"))
    with pytest.raises(TenantIsolationError):
        bind_tenant(session, "b")


def test_the_identity_map_does_not_cross(guarded: Guarded) -> None:
    """Ring: one session, one tenant. No SQL is sent for what a session holds already."""
    session = guarded.session()
    with tenant_scope(session, "a"):
        held = guarded.run(session, lambda s: s.get(Account, 1))
    assert held is not None
    with pytest.raises(TenantIsolationError), tenant_scope(session, "b"):
        pytest.fail("the session holds a row of tenant a")
    with pytest.raises(TenantRequiredError):
        guarded.run(session, lambda s: s.get(Account, 1))
    guarded.run(session, lambda s: s.expunge_all())
    with tenant_scope(session, "b"):
        assert guarded.run(session, lambda s: s.get(Account, 1)) is None


def test_a_scope_ends_with_its_block(guarded: Guarded) -> None:
    session = guarded.session()
    with tenant_scope(session, "a"):
        assert _ids(guarded, session) == [1, 3]
        with tenant_scope(session, "a"):
            pass
        assert _ids(guarded, session) == [1, 3]
    with pytest.raises(TenantRequiredError):
        _ids(guarded, session)
    with pytest.raises(ZeroDivisionError), tenant_scope(session, "a"):
        _ = 1 / 0
    with pytest.raises(TenantRequiredError):
        _ids(guarded, session)


def test_a_scope_that_releases_its_rows_may_be_followed_by_another_tenants(guarded: Guarded) -> None:
    session = guarded.session()
    for tenant, seen in (("a", [1, 3]), ("b", [2]), ("a", [1, 3])):
        with tenant_scope(session, tenant, release=True):
            held = guarded.run(session, _all)
            assert sorted(each.id for each in held) == seen
        assert not any(each in session for each in held)


def test_a_scope_releases_neither_changes_nor_what_was_held_before(guarded: Guarded) -> None:
    session = guarded.session()
    with tenant_scope(session, "a"):
        before = guarded.run(session, lambda s: s.get(Account, 1))
    with tenant_scope(session, "a", release=True):
        changed = guarded.run(session, lambda s: s.get(Account, 3))
        changed.name = "changed"
        session.add(new := Account(name="new"))
    assert before in session
    assert changed in session
    assert new in session
    with pytest.raises(TenantIsolationError), tenant_scope(session, "b", release=True):
        pytest.fail("the session holds rows of tenant a")


def test_who_is_guarded(guarded: Guarded) -> None:
    assert is_guarded(guarded.session())
    assert not is_guarded(Session())


def test_what_a_scope_left_unflushed_stays_unwritten(guarded: Guarded) -> None:
    session = guarded.session()
    with tenant_scope(session, "a"):
        session.add(Account(name="late"))
    with pytest.raises(TenantRequiredError):
        guarded.face(session.flush)


@pytest.mark.parametrize("nobody", [None, "", "  ", "\t"])
def test_nobody_is_no_tenant(guarded: Guarded, nobody: Any) -> None:
    with pytest.raises(TenantRequiredError):
        bind_tenant(guarded.session(), nobody)


@pytest.mark.parametrize("thing", [ALL_TENANTS, True, b"a", ["a"], "a\x00b"])
def test_not_everything_names_a_tenant(guarded: Guarded, thing: Any) -> None:
    with pytest.raises(ValidationError):
        bind_tenant(guarded.session(), thing)


def test_an_unguarded_session_can_not_be_bound(guarded: Guarded) -> None:
    with guarded.face.session() as session, pytest.raises(TenantIsolationError):
        bind_tenant(session, "a")


def test_binding_sends_nothing(guarded: Guarded) -> None:
    session = guarded.session()
    with counted(guarded.face.engine) as sent:
        bind_tenant(session, "a")
        with tenant_scope(session, "a"), unscoped(session, reason="nothing"):
            pass
    assert sent == []


def test_a_refusal_leaves_the_transaction_whole(guarded: Guarded) -> None:
    """Nothing was sent, so nothing is lost: what came before the refused statement can be committed."""
    session = guarded.session()
    accounts = guarded.face.repository(session, Account, "a")
    with guarded.face.entered(_transaction(guarded, session)):
        guarded.face(accounts.create, {"id": 60, "name": "kept"})
        with pytest.raises(UnscopedStatementError):
            guarded.run(session, lambda s: s.execute(text("SELECT 1 FROM accounts")))
    assert guarded.face(guarded.face.repository(guarded.session(), Account, "a").exists, 60)


def _transaction(guarded: Guarded, session: Any) -> Any:
    if guarded.face.is_async:
        return DatabaseTransaction.async_transaction(session)
    return DatabaseTransaction.sync_transaction(session)


def test_unscoped_is_logged_and_ends(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    session = guarded.session()
    bind_tenant(session, "a")
    with caplog.at_level(logging.INFO, "dotmac_database.tenancy"), unscoped(session, reason="yearly report"):
        assert _ids(guarded, session) == [1, 2, 3]
        assert guarded.run(session, lambda s: s.scalar(text("SELECT count(*) FROM accounts"))) == 3
    assert any(each.levelno == logging.WARNING and "yearly report" in each.message for each in caplog.records)
    assert _ids(guarded, session) == [1, 3]
    with pytest.raises(UnscopedStatementError):
        guarded.run(session, lambda s: s.execute(text("SELECT 1 FROM accounts")))


@pytest.mark.parametrize("reason", ["", "  "])
def test_unscoped_needs_a_reason(guarded: Guarded, reason: str) -> None:
    with pytest.raises(ValidationError), unscoped(guarded.session(), reason=reason):
        pytest.fail("no reason was given")


def test_foreign_rows_leave_with_the_unscoped_block(guarded: Guarded) -> None:
    session = guarded.session()
    bind_tenant(session, "a")
    own = guarded.run(session, lambda s: s.get(Account, 1))
    with unscoped(session, reason="look"):
        held = guarded.run(session, _all)
    assert sorted(each.id for each in held) == [1, 2, 3]
    assert own in guarded.sync(session)
    assert guarded.run(session, lambda s: s.get(Account, 2)) is None
    assert all(each.tenant_id == "a" for each in guarded.sync(session).identity_map.values())


def test_a_foreign_change_is_not_flushed_after_the_block(guarded: Guarded) -> None:
    session = guarded.session()
    bind_tenant(session, "a")
    with unscoped(session, reason="look"):
        guarded.run(session, lambda s: setattr(s.get(Account, 2), "name", "changed"))
        held = [each for each in guarded.sync(session).identity_map.values() if each.id == 2]
    assert held
    with pytest.raises(TenantIsolationError):
        guarded.face(session.flush)


def test_nested_unscoped_blocks_end_one_by_one(guarded: Guarded) -> None:
    session = guarded.session()
    bind_tenant(session, "a")
    with unscoped(session, reason="outer"):
        with unscoped(session, reason="inner"):
            assert _ids(guarded, session) == [1, 2, 3]
        assert _ids(guarded, session) == [1, 2, 3]
    assert _ids(guarded, session) == [1, 3]


def test_unscoped_is_its_sessions_own(guarded: Guarded) -> None:
    one, other = guarded.session(), guarded.session()
    bind_tenant(other, "a")
    with unscoped(one, reason="mine"):
        assert _ids(guarded, other) == [1, 3]


def test_unscoped_is_its_threads_own(guarded: Guarded) -> None:
    """A block that one thread holds open opens nothing for another that shares the session."""
    session = guarded.session()
    bind_tenant(session, "a")
    found: list[Any] = []

    def read() -> None:
        runner = asyncio.Runner() if guarded.face.is_async else None
        work = lambda s: sorted(s.scalars(select(Account.id)))  # noqa: E731
        try:
            found.append(runner.run(session.run_sync(work)) if runner else work(session))
        finally:
            if runner is not None:
                runner.close()

    if guarded.face.is_async and guarded.face.engine.dialect.name == "postgresql":
        pytest.skip("an asyncpg connection belongs to one loop")
    with unscoped(session, reason="mine alone"):
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    assert found == [[1, 3]]


def test_tasks_do_not_share_what_is_open(guarded: Guarded) -> None:
    if not guarded.face.is_async:
        pytest.skip("tasks are for the async face")

    async def read(started: asyncio.Event) -> list[int]:
        await started.wait()
        return sorted(await session.scalars(select(Account.id)))

    async def run() -> list[int]:
        started = asyncio.Event()
        task = asyncio.create_task(read(started))  # before the block, so that its context knows nothing of it
        with unscoped(session, reason="the other task's"):
            started.set()
            return await task

    session = guarded.session()
    bind_tenant(session, "a")
    assert guarded.face.runner.run(run()) == [1, 3]


def test_workers_do_not_keep_the_last_jobs_tenant(guarded: Guarded) -> None:
    for tenant, expected in (("a", [1, 3]), ("b", [2]), ("a", [1, 3])):
        session = guarded.session()
        with pytest.raises(TenantRequiredError):
            _ids(guarded, session)
        bind_tenant(session, tenant)
        assert _ids(guarded, session) == expected
        guarded.face(session.close)


def test_a_repository_binds_the_session(guarded: Guarded) -> None:
    session = guarded.session()
    accounts = guarded.face.repository(session, Account, "a")
    assert sorted(each.id for each in guarded.face(accounts.list)) == [1, 3]
    assert _ids(guarded, session) == [1, 3]
    with pytest.raises(TenantIsolationError):
        guarded.face(guarded.face.repository(session, Account, "b").list)
    with pytest.raises(TenantIsolationError):
        guarded.face(guarded.face.repository(session, Account, ALL_TENANTS).list)
    with unscoped(session, reason="administration"):
        everyone = guarded.face.repository(session, Account, ALL_TENANTS)
        assert len(guarded.face(everyone.list)) == 3


def test_a_repositorys_name_for_the_tenant_may_be_of_another_type(guarded: Guarded) -> None:
    session = guarded.session()
    bind_tenant(session, "00000000-0000-0000-0000-00000000000a")
    devices = guarded.face.repository(session, Device, "00000000-0000-0000-0000-00000000000A")
    assert [each.name for each in guarded.face(devices.list)] == ["ten"]


def test_a_repositorys_eager_load_is_confined(guarded: Guarded) -> None:
    session = guarded.session()
    notes = guarded.face.repository(session, Note, "a")
    stray = guarded.face(notes.get_by_id, 3, relationships=["account", "labels"])
    assert stray.account is None
    assert [each.id for each in stray.labels] == []


def test_the_soft_delete_filter_is_another_switch(guarded: Guarded) -> None:
    with guarded.face.database.engine.begin() as connection:
        connection.execute(update(Account.__table__).where(Account.__table__.c.id == 3).values(is_deleted=True))
    session = guarded.session()
    accounts = guarded.face.repository(session, Account, "a")
    assert [each.id for each in guarded.face(accounts.list)] == [1]
    everything = guarded.face(accounts.list, {"include_deleted": True})
    assert sorted(each.id for each in everything) == [1, 3]
    with unscoped(session, reason="every tenant, and still nothing deleted"):
        everyone = guarded.face.repository(session, Account, ALL_TENANTS)
        assert sorted(each.id for each in guarded.face(everyone.list)) == [1, 2]


def test_confined_objects_can_be_pickled(guarded: Guarded) -> None:
    session = guarded.session()
    bind_tenant(session, "a")
    held = guarded.run(session, _all)
    assert [each.id for each in pickle.loads(pickle.dumps(held))] == [1, 3]


def test_a_statement_of_the_users_is_left_as_it_was(guarded: Guarded) -> None:
    """One statement, run for two tenants: nothing of the first stays in it."""
    statement = select(Account.id).order_by(Account.id)
    found = []
    for tenant in ("a", "b", "a"):
        session = guarded.session()
        bind_tenant(session, tenant)
        found.append(guarded.run(session, lambda s: list(s.scalars(statement))))
    assert found == [[1, 3], [2], [1, 3]]


def test_a_guarded_maker_may_be_guarded_again(guarded: Guarded) -> None:
    maker = guard_tenants(sessionmaker(guarded.face.database.engine))
    assert guard_tenants(maker) is maker
    with maker() as session:
        bind_tenant(session, "b")
        assert list(session.scalars(select(Account.id))) == [2]


def test_other_makers_are_not_touched(guarded: Guarded) -> None:
    with guarded.face.session() as session:
        assert len(guarded.run(session, _all)) == 3


def _change_attached(session: Session) -> None:
    from .test_writes import _forged

    entity = _forged(Account, id=1, tenant_id="a", name="a one", email=None, is_deleted=False)
    session.add(entity)
    entity.name = "changed"
    session.flush()


COSTS = {
    "read": (lambda s: s.scalars(select(Account)).all(), 1),
    "get": (lambda s: s.get(Account, 1), 1),
    "update": (lambda s: s.execute(update(Account).values(name="x")), 1),
    "add": (lambda s: (s.add(Account(name="x")), s.flush()), 1),
    "change": (lambda s: (setattr(s.get(Account, 1), "name", "x"), s.flush()), 2),
    "delete": (lambda s: (s.delete(s.get(Offer, 1)), s.flush()), 2),
    "bulk update by key": (lambda s: s.execute(update(Account), [{"id": 1, "name": "x"}]), 2),
    "change attached": (_change_attached, 2),
}
"""The statements that the guard lets out, without BEGIN: see docs/isolation.md."""


@pytest.mark.parametrize("name", COSTS)
def test_what_the_guard_costs(guarded: Guarded, name: str) -> None:
    work, expected = COSTS[name]
    session = guarded.session()
    bind_tenant(session, "a")
    with counted(guarded.face.engine) as sent:
        guarded.run(session, work)
    assert len([each for each in sent if each != "BEGIN"]) == expected
