"""What a scope leaves behind in its session never becomes another tenant's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dotmac_database import (
    DatabaseError,
    DatabaseTransaction,
    TenantIsolationError,
    TenantRequiredError,
    bind_tenant,
    on_commit,
    tenant_scope,
    unscoped,
)

from .conftest import Guarded, contents
from .models import Account, Catalogue, Label, Note, Offer

Work = Callable[[Session], Any]


def _changed(entity: Any, **values: Any) -> Any:
    for name, value in values.items():
        setattr(entity, name, value)
    return entity


def _appended(parent: Any, collection: str, entity: Any) -> Any:
    getattr(parent, collection).append(entity)
    return parent


def _only(session: Session, model: Any) -> Any:
    """A row of the tenant's."""
    found = session.scalars(select(model).order_by(model.id)).first()
    assert found is not None
    return found


def _expired(session: Session) -> Any:
    entity = _only(session, Account)
    session.expire(entity)
    return entity


def _deleted(session: Session) -> Any:
    entity = _only(session, Offer)
    session.delete(entity)
    return entity


def _added_again(session: Session) -> Any:
    entity = _only(session, Account)
    session.expunge(entity)
    session.add(entity)
    return entity


def _merged_as_it_is(session: Session) -> Any:
    entity = _only(session, Account)
    session.expunge(entity)
    return session.merge(entity, load=False)


def _unlinked(session: Session) -> Any:
    note = _only(session, Note)
    note.labels.clear()
    return note


def _linked(session: Session) -> Any:
    note, label = _only(session, Note), Label(name="left")
    note.labels.append(label)
    return note, label


def _emptied_catalogue(session: Session) -> Any:
    catalogue = Catalogue(id=50, name="no offers")
    session.add(catalogue)
    session.flush()
    session.expire(catalogue)
    assert catalogue.offers == []
    return catalogue


PENDING: dict[str, Work] = {
    "new": lambda s: s.add(Account(name="left")),
    "new of several": lambda s: s.add_all([Account(name="left"), Catalogue(name="left"), Label(name="left")]),
    "by cascade from what is loaded": lambda s: _appended(_only(s, Note), "labels", Label(name="left")),
    "by cascade from what no tenant owns": lambda s: _appended(_only(s, Catalogue), "offers", Offer(title="left")),
    "by cascade from what is new": lambda s: s.add(Catalogue(name="left", offers=[Offer(title="left")])),
    "by cascade to a parent": lambda s: s.add(Note(title="left", account=Account(name="left"))),
    "changed": lambda s: _changed(_only(s, Account), name="left"),
    "deleted": _deleted,
    "linked": _linked,
    "unlinked": _unlinked,
    "merged": lambda s: s.merge(Account(id=_only(s, Account).id, name="left")),
    "merged new": lambda s: s.merge(Account(name="left")),
}
LOADED: dict[str, Work] = {
    "loaded": lambda s: _only(s, Account),
    "expired": _expired,
    "added again": _added_again,
    "merged as it is": _merged_as_it_is,
    "reached from what no tenant owns": lambda s: (c := _only(s, Catalogue), list(c.offers)),
    "an empty collection of what no tenant owns": _emptied_catalogue,
}
LEFT = PENDING | LOADED


def _scope(guarded: Guarded, session: Any) -> None:
    with tenant_scope(session, "b"):
        guarded.face(session.flush)


def _bind(guarded: Guarded, session: Any) -> None:
    bind_tenant(session, "b")
    guarded.face(session.flush)


def _repository(guarded: Guarded, session: Any) -> None:
    guarded.face(guarded.face.repository(session, Account, "b").list)


def _other_repository(guarded: Guarded, session: Any) -> None:
    guarded.face(guarded.face.repository(session, Account, "a").switch_tenant("b").create, {"name": "x"})


def _in_a_transaction(guarded: Guarded, session: Any) -> None:
    made = DatabaseTransaction.async_transaction if guarded.face.is_async else DatabaseTransaction.sync_transaction
    with guarded.face.entered(made(session)), tenant_scope(session, "b"):
        pass


CHANGES = {
    "a scope": _scope,
    "a binding": _bind,
    "a repository": _repository,
    "switch_tenant": _other_repository,
    "a transaction": _in_a_transaction,
}


def _after_unscoped(guarded: Guarded, session: Any) -> None:
    with unscoped(session, reason="between two scopes"):
        guarded.run(session, _read_without_a_flush)


def _read_without_a_flush(session: Session) -> None:
    with session.no_autoflush:
        assert session.scalars(select(Label.id).order_by(Label.id)).all() == [1, 2]


def _after_its_own_scope(guarded: Guarded, session: Any) -> None:
    with tenant_scope(session, "a"):
        pass


BETWEEN = {"nothing": lambda *_: None, "unscoped": _after_unscoped, "its own scope": _after_its_own_scope}


def _everything(guarded: Guarded) -> Any:
    with guarded.face.database.engine.begin() as connection:
        return contents(connection)


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("change", CHANGES)
def test_a_session_that_is_not_clean_serves_no_other_tenant(guarded: Guarded, change: str, between: str) -> None:
    before = _everything(guarded)
    wrong: list[str] = []
    # What is unchanged leaves with an unscoped block, when no tenant is served around it.
    for name, leave in (PENDING if between == "unscoped" else LEFT).items():
        session = guarded.session()
        with tenant_scope(session, "a"):
            held = guarded.run(session, leave)  # noqa: F841 - the session holds its objects weakly
        BETWEEN[between](guarded, session)
        try:
            CHANGES[change](guarded, session)
        except TenantIsolationError:
            pass
        except (DatabaseError, SQLAlchemyError) as error:
            wrong.append(f"{name}: {type(error).__name__}: {error}")
        else:
            wrong.append(f"{name}: another tenant was served")
        guarded.face(session.rollback)
        guarded.face(session.close)
        bind_tenant(session, "b")  # a closed session is clean
        guarded.face(session.close)
        assert _everything(guarded) == before, name
    assert wrong == []


@pytest.mark.parametrize("name", LEFT)
def test_the_scope_can_be_taken_up_again(guarded: Guarded, name: str) -> None:
    session = guarded.session()
    with tenant_scope(session, "a"):
        held = guarded.run(session, LEFT[name])  # noqa: F841 - as above
    with pytest.raises(TenantIsolationError), tenant_scope(session, "b"):
        pytest.fail("the session is not clean")
    with tenant_scope(session, "a"):
        guarded.face(session.commit)
    guarded.run(session, lambda s: s.expunge_all())
    with tenant_scope(session, "b"):
        assert guarded.run(session, lambda s: [each.id for each in s.scalars(select(Account))]) == [2]


@pytest.mark.parametrize("name", LEFT)
def test_what_an_inner_scope_leaves_is_not_the_outer_tenants(guarded: Guarded, name: str) -> None:
    """The outer scope serves its tenant again, without asking: the inner one's rows must not follow."""
    before = _everything(guarded)
    session = guarded.session()
    with tenant_scope(session, "a"):
        with tenant_scope(session, "b"):
            held = guarded.run(session, LEFT[name])  # noqa: F841 - as above
        try:
            guarded.face(session.flush)
            guarded.run(session, lambda s: [each.offers for each in s.scalars(select(Catalogue))])
        except TenantIsolationError:
            assert name in PENDING
        else:
            loaded = guarded.run(session, _tenants_held)
            assert loaded <= {"a"}
        guarded.face(session.rollback)
    assert _everything(guarded) == before


def _tenants_held(session: Session) -> set[str]:
    offers = [offer for each in session.identity_map.values() if isinstance(each, Catalogue) for offer in each.offers]
    held = [each for each in session.identity_map.values() if not isinstance(each, Catalogue)]
    return {each.tenant_id for each in (*offers, *held)}


def test_what_an_inner_scope_linked_is_not_written_by_the_outer(guarded: Guarded) -> None:
    """The row between many and many names b's label, which is not changed itself."""
    before = _everything(guarded)
    session = guarded.session()
    with tenant_scope(session, "a"):
        with tenant_scope(session, "b"):
            held = guarded.run(session, lambda s: s.get(Label, 2))
        note = guarded.run(session, lambda s: s.get(Note, 3))
        guarded.run(session, lambda _: note.labels.append(held))
        with pytest.raises(TenantIsolationError):
            guarded.face(session.flush)
        guarded.face(session.rollback)
    assert _everything(guarded) == before


CLEAN: dict[str, Work] = {
    "rolled back": lambda s: (s.add(Account(name="left")), s.rollback()),
    "rolled back after a flush": lambda s: (s.add(Account(name="left")), s.flush(), s.rollback()),
    "a savepoint rolled back": lambda s: _in_savepoint(s, Account(name="left")),
    "expunged": lambda s: (s.add(Account(name="left")), s.expunge_all()),
    "committed and let go": lambda s: (s.add(Account(name="left")), s.flush(), s.expunge_all()),
    "new, of no tenant": lambda s: s.add(Catalogue(name="free")),
    "changed, of no tenant": lambda s: _changed(_only(s, Catalogue), name="free"),
    "loaded, of no tenant": lambda s: _only(s, Catalogue),
}


def _in_savepoint(session: Session, entity: Any) -> None:
    savepoint = session.begin_nested()
    session.add(entity)
    session.flush()
    savepoint.rollback()


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_session_serves_another_tenant(guarded: Guarded, name: str) -> None:
    session = guarded.session()
    with tenant_scope(session, "a"):
        held = guarded.run(session, CLEAN[name])  # noqa: F841 - as above
    with tenant_scope(session, "b"):
        assert guarded.run(session, lambda s: [each.id for each in s.scalars(select(Account))]) == [2]
        guarded.face(session.rollback)


def test_what_was_added_before_the_session_served_anyone_is_the_first_tenants(guarded: Guarded) -> None:
    session = guarded.session()
    entity = Account(name="early")
    session.add(entity)
    with tenant_scope(session, "a"):
        guarded.face(session.flush)
        assert entity.tenant_id == "a"
        guarded.face(session.rollback)


def test_a_flush_in_an_unscoped_block_writes_for_the_scope_that_was_left(guarded: Guarded) -> None:
    session = guarded.session()
    with tenant_scope(session, "a"):
        session.add(Account(name="left"))
    with unscoped(session, reason="administration"):
        owner = guarded.run(session, lambda s: s.scalar(select(Account.tenant_id).where(Account.name == "left")))
        guarded.face(session.rollback)
    assert owner == "a"


def test_a_row_in_bulk_is_the_scopes(guarded: Guarded) -> None:
    """`bulk_save_objects` keeps nothing in the session; an object of another scope is refused."""
    session = guarded.session()
    with tenant_scope(session, "a"):
        entity = guarded.run(session, lambda s: s.get(Account, 1))
        guarded.run(session, lambda s: s.expunge_all())
    entity.name = "left"
    before = _everything(guarded)
    with tenant_scope(session, "b"):
        for objects in ([Account(name="left", tenant_id="a")], [entity]):
            with pytest.raises((TenantIsolationError, SQLAlchemyError)):
                guarded.run(session, lambda s: s.bulk_save_objects(objects))  # noqa: B023 - run at once
            guarded.face(session.rollback)
    assert _everything(guarded) == before


def test_what_no_tenant_owns_keeps_nothing_of_an_unscoped_block(guarded: Guarded) -> None:
    session = guarded.session()
    bind_tenant(session, "a")
    with unscoped(session, reason="look"):
        held = guarded.run(session, lambda s: (c := _only(s, Catalogue), sorted(each.id for each in c.offers)))
    assert held[1] == [1, 2]
    found = guarded.run(session, lambda s: [each.id for each in s.get(Catalogue, 1).offers])
    assert found == [1]


def _rows_seen(session: Session, seen: list[Any]) -> Callable[[], None]:
    def callback() -> None:
        try:
            seen.append([each.id for each in session.scalars(select(Account).order_by(Account.id))])
        except TenantRequiredError as error:
            seen.append(type(error))

    return callback


def test_a_callback_runs_as_the_tenant_that_registered_it(guarded: Guarded) -> None:
    session, seen = guarded.session(), []  # type: ignore[var-annotated]
    with tenant_scope(session, "a"):
        guarded.run(session, lambda s: (s.connection(), on_commit(s, _rows_seen(s, seen))))
    guarded.face(session.commit)
    with tenant_scope(session, "a"):
        guarded.run(session, lambda s: (s.connection(), on_commit(s, _rows_seen(s, seen))))
    with unscoped(session, reason="administration"):
        guarded.face(session.commit)
    assert seen == [[1, 3], [1, 3]]


def test_a_callback_that_waits_keeps_the_tenant(guarded: Guarded) -> None:
    session, seen = guarded.session(), []  # type: ignore[var-annotated]
    with tenant_scope(session, "a"):
        guarded.run(session, lambda s: (s.connection(), on_commit(s, _rows_seen(s, seen))))
    with pytest.raises(TenantIsolationError), tenant_scope(session, "b"):
        pytest.fail("a callback of tenant a waits")
    guarded.face(session.rollback)
    with tenant_scope(session, "b"):
        guarded.face(session.commit)
    assert seen == []


def test_a_callback_of_an_inner_scope_runs_as_its_tenant(guarded: Guarded) -> None:
    session, seen = guarded.session(), []  # type: ignore[var-annotated]
    with tenant_scope(session, "a"):
        with tenant_scope(session, "b"):
            guarded.run(session, lambda s: (s.connection(), on_commit(s, _rows_seen(s, seen))))
        guarded.face(session.commit)
    assert seen == [[2]]


def test_a_callback_without_a_tenant_runs_as_whom_the_session_serves(guarded: Guarded) -> None:
    session, seen = guarded.session(), []  # type: ignore[var-annotated]
    guarded.run(session, lambda s: on_commit(s, _rows_seen(s, seen)))
    bind_tenant(session, "a")
    guarded.run(session, lambda s: s.connection())
    guarded.face(session.commit)
    assert seen == [[1, 3]]
