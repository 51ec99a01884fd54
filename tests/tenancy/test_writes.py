"""Attacks by writing: no row of another tenant may change, none may be made for it. See the fixture for the check."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import delete, event, insert, literal, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.orm import Session, make_transient_to_detached, object_session
from sqlalchemy.orm.exc import StaleDataError

from dotmac_database.errors import TenantIsolationError, TenantRequiredError
from dotmac_database.tenancy import bind_tenant

from .conftest import Guarded
from .models import Account, Animal, Catalogue, Dog, Gadget, Label, Note, Seat, Vehicle, note_labels

pytestmark = pytest.mark.filterwarnings("ignore:.*statement has a cartesian product")
Write = Callable[[Session], Any]


def _forged(model: Any, **values: Any) -> Any:
    """An object that claims to be loaded, with whatever state the attacker likes."""
    entity = model(**values)
    make_transient_to_detached(entity)
    return entity


def _attached(session: Session, **changes: Any) -> Account:
    entity: Account = _forged(Account, id=2, tenant_id="a", name="b secret", email=None, is_deleted=False)
    session.add(entity)
    for key, value in changes.items():
        setattr(entity, key, value)
    return entity


def _attached_shared(session: Session) -> None:
    """A row of a class that no tenant owns is not checked, and needs no tenant."""
    key = session.scalars(select(Catalogue.id)).first()
    entity = _forged(Catalogue, id=key, name="old")
    session.add(entity)
    entity.name = "new"
    session.flush()


def _flush(session: Session, *entities: Any) -> None:
    session.add_all(entities)
    session.flush()


def _delete(session: Session, entity: Any) -> None:
    session.delete(entity)
    session.flush()


def _pickled(session: Session) -> None:
    entity = pickle.loads(pickle.dumps(_forged(Account, id=2, tenant_id="a", name="x", is_deleted=False)))
    session.add(entity)
    entity.name = "changed"
    session.flush()


def _merge_unloaded(session: Session) -> None:
    entity = session.merge(_forged(Account, id=2, tenant_id="a", name="b", is_deleted=False), load=False)
    entity.name = "changed"
    session.flush()


def _forged_in_place(session: Session) -> None:
    """The attacker changes the loaded key of an own object."""
    entity = session.get(Account, 1)
    assert entity is not None
    entity.__dict__["id"] = 2
    entity.name = "changed"
    session.flush()


def _listener(session: Session) -> None:
    """A listener of the flush that writes by itself."""

    def after_flush(session: Session, _context: Any) -> None:
        session.connection().execute(update(Account.__table__).values(name="changed"))

    event.listen(session, "after_flush", after_flush)
    try:
        session.add(Account(name="new"))
        session.flush()
    finally:
        event.remove(session, "after_flush", after_flush)


def _insert(session: Session, key: int) -> Any:
    made = (postgresql if session.get_bind().dialect.name == "postgresql" else sqlite).insert(Account)
    return made.values(id=key, tenant_id="a", name="changed", is_deleted=False)


def _upsert(session: Session, key: int = 2, where: Any = None, **changes: Any) -> Any:
    """An upsert. A change that is a function gets the row that could not be inserted (``excluded``)."""
    made = _insert(session, key)
    values = {name: value(made.excluded) if callable(value) else value for name, value in changes.items()}
    return session.execute(
        made.on_conflict_do_update(index_elements=["id"], set_={"name": "changed", **values}, where=where)
    )


def _late(session: Session) -> None:
    """Another listener adds a foreign row when the session is flushing already."""

    def before_flush(session: Session, *_: Any) -> None:
        session.add(Account(tenant_id="b", name="late"))

    event.listen(session, "before_flush", before_flush)
    session.add(Account(name="first"))
    try:
        session.flush()
    finally:
        event.remove(session, "before_flush", before_flush)


def _at_insert(session: Session) -> None:
    """A mapper's listener gives the new row away while it is written."""

    def before_insert(_mapper: Any, _connection: Any, target: Account) -> None:
        target.tenant_id = "b"

    event.listen(Account, "before_insert", before_insert)
    try:
        session.add(Account(name="given away"))
        session.flush()
    finally:
        event.remove(Account, "before_insert", before_insert)


def _foreign_in_collection(session: Session) -> None:
    account = session.get(Account, 1)
    assert account is not None
    account.notes.append(Note(tenant_id="b", title="x"))
    session.flush()


def _own_label(session: Session) -> None:
    note, label = session.get(Note, 3), session.get(Label, 1)
    assert note is not None
    assert label is not None
    note.labels.append(label)
    session.flush()


REFUSED: dict[str, Write] = {
    "add forged": lambda s: _flush(s, Account(tenant_id="b", name="x")),
    "add forged SQLModel": lambda s: _flush(s, Gadget(tenant_id="b", name="x")),
    "add forged child": lambda s: _flush(s, Dog(tenant_id="b", name="x", tricks="x")),
    "move a row": lambda s: setattr(s.get(Account, 1), "tenant_id", "b") or s.flush(),
    "move a row to nobody": lambda s: setattr(s.get(Account, 1), "tenant_id", None) or s.flush(),
    "foreign through a relationship": lambda s: _flush(s, Note(title="x", account=Account(tenant_id="b", name="x"))),
    "foreign in a collection": _foreign_in_collection,
    "detached in a collection": lambda s: _flush(s, Note(title="x", labels=[_forged(Label, id=2, tenant_id="b")])),
    "forged in a collection": lambda s: _flush(s, Note(title="x", labels=[_forged(Label, id=2, tenant_id="a")])),
    "forged as a parent": lambda s: _flush(s, Note(title="x", account=_forged(Account, id=2, tenant_id="a"))),
    "through a shared class": lambda s: _flush(s, Catalogue(name="x", offers=[_foreign_offer()])),
    "change attached": lambda s: _attached(s, name="changed") and s.flush(),
    "delete attached": lambda s: _delete(s, _attached(s)),
    "change pickled": _pickled,
    "change merged unloaded": _merge_unloaded,
    "refresh attached": lambda s: s.refresh(_attached(s)),
    "expired attached": lambda s: s.expire(entity := _attached(s)) or entity.name,
    "merge forged": lambda s: s.merge(Account(id=2, tenant_id="b", name="x")) and s.flush(),
    "late listener": _late,
    "mapper's listener": _at_insert,
    "bulk update by key": lambda s: s.execute(update(Account), [{"id": 2, "name": "changed"}]),
    "bulk update of both": lambda s: s.execute(update(Account), [{"id": 1, "name": "x"}, {"id": 2, "name": "x"}]),
    "bulk give away": lambda s: s.execute(update(Account), [{"id": 1, "tenant_id": "b"}]),
    "bulk update of a child": lambda s: s.execute(update(Dog), [{"id": 12, "tricks": "changed"}]),
    "bulk update of SQLModel": lambda s: s.execute(update(Gadget), [{"id": 2, "name": "changed"}]),
    "update gives away": lambda s: s.execute(update(Account).values(tenant_id="b")),
    "update gives away in order": lambda s: s.execute(update(Account).ordered_values((Account.tenant_id, "b"))),
    "update gives away by column": lambda s: s.execute(update(Account).values({Account.tenant_id: literal("b")})),
    "update gives away by parameter": lambda s: s.execute(update(Account).where(Account.id == 1), {"tenant_id": "b"}),
    "update gives away by expression": lambda s: s.execute(update(Account).values(tenant_id=Account.name)),
    "insert names another": lambda s: s.execute(insert(Account).values(tenant_id="b", name="x")),
    "insert parameter names another": lambda s: s.execute(insert(Account), {"tenant_id": "b", "name": "x"}),
    "bulk insert names another": lambda s: s.execute(insert(Account), [{"name": "x"}, {"tenant_id": "b", "name": "x"}]),
    "bulk insert of children": lambda s: s.execute(
        insert(Dog), [{"tenant_id": "b", "name": "x", "tricks": "x"}, {"tenant_id": "b", "name": "y", "tricks": "y"}]
    ),
    "many values name another": lambda s: s.execute(
        insert(Account).values([{"tenant_id": "a", "name": "x"}, {"tenant_id": "b", "name": "x"}])
    ),
    "many values name nobody": lambda s: s.execute(insert(Account).values([{"name": "x"}, {"name": "y"}])),
    "many values by position": lambda s: s.execute(insert(Account).values([(9, "a"), (10, "b")])),
    "insert nobody": lambda s: s.execute(insert(Account).values(tenant_id=None, name="x")),
    "insert from select": lambda s: s.execute(
        insert(Note).from_select(["tenant_id", "title"], select(literal("b"), Account.name))
    ),
    "insert from select without tenant": lambda s: s.execute(insert(Note).from_select(["title"], select(Account.name))),
    "insert by expression": lambda s: s.execute(
        insert(Account).values(tenant_id=select(Label.name).where(Label.id == 1).scalar_subquery(), name="x")
    ),
    "insert from select of a shared class": lambda s: s.execute(
        insert(Note).from_select(["tenant_id", "title"], select(Catalogue.name, Catalogue.name))
    ),
    "insert from select of another column": lambda s: s.execute(
        insert(Note).from_select(["tenant_id", "title"], select(Account.name, Account.name))
    ),
    "insert from select of a core table": lambda s: s.execute(
        insert(Note).from_select(
            ["tenant_id", "title"], select(*[Account.__table__.c[n] for n in ("tenant_id", "name")])
        )
    ),
    "upsert gives away": lambda s: _upsert(s, tenant_id="b"),
    "upsert gives an own row away": lambda s: _upsert(s, key=1, tenant_id="b"),
    "upsert gives away by parameter": lambda s: _upsert(s, key=1, tenant_id=literal("b")),
    "upsert gives away by another column": lambda s: _upsert(s, key=1, tenant_id=lambda excluded: excluded.name),
    "upsert gives away by the row's column": lambda s: _upsert(s, key=1, tenant_id=Account.name),
    "bulk insert mappings": lambda s: s.bulk_insert_mappings(Account, [{"tenant_id": "b", "name": "x"}]),
    "bulk update mappings": lambda s: s.bulk_update_mappings(Account, [{"id": 2, "name": "changed"}]),
    "bulk save objects": lambda s: s.bulk_save_objects([Account(tenant_id="b", name="x")]),
    "core update": lambda s: s.execute(update(Account.__table__).values(name="changed")),
    "core delete": lambda s: s.execute(delete(Note.__table__)),
    "core insert": lambda s: s.execute(insert(Account.__table__).values(tenant_id="b", name="x")),
    "core insert of own": lambda s: s.execute(insert(Account.__table__).values(tenant_id="a", name="x")),
    "core on secondary": lambda s: s.execute(delete(note_labels)),
    "core insert in secondary": lambda s: s.execute(insert(note_labels).values(note_id=3, label_id=2)),
    "core on child's table": lambda s: s.execute(update(Dog.__table__).values(tricks="changed")),
    "connection's update": lambda s: s.connection().execute(update(Account.__table__).values(name="changed")),
    "connection's ORM update": lambda s: s.connection().execute(update(Account).values(name="changed")),
    "text": lambda s: s.execute(text("UPDATE accounts SET name = 'changed'")),
    "driver's SQL": lambda s: s.connection().exec_driver_sql("UPDATE accounts SET name = 'changed'"),
    "text in an update": lambda s: s.execute(update(Account).where(text("1=1 OR 1=1")).values(name="changed")),
    "text in a delete": lambda s: s.execute(delete(Note).where(text("1=1 OR 1=1"))),
    "text in a value": lambda s: s.execute(update(Account).values(name=text("(select max(name) from accounts)"))),
    "core in a value": lambda s: s.execute(
        update(Account).values(name=select(Note.__table__.c.title).where(text("id = 2")).scalar_subquery())
    ),
    "core in a condition": lambda s: s.execute(
        update(Account).values(name="x").where(Account.id.in_(select(Note.__table__.c.account_id)))
    ),
    "text in returning": lambda s: s.execute(
        update(Account).values(name="x").returning(text("(select max(name) from accounts)"))
    ),
    "core table in an update's FROM": lambda s: s.execute(
        update(Account).values(name=Note.__table__.c.title).where(Note.__table__.c.id == 2)
    ),
    "integer tenant": lambda s: _flush(s, Seat(org=2, number=9)),
}


def _foreign_offer() -> Any:
    from .models import Offer

    return Offer(tenant_id="b", title="x")


CORE_WITHIN: dict[str, Any] = {
    name: REFUSED.pop(name) for name in ("core in a condition", "core table in an update's FROM")
}


@pytest.mark.parametrize("name", CORE_WITHIN)
def test_a_table_within_a_write_of_the_orm_is_confined(guarded: Guarded, name: str) -> None:
    """Ring: the guard's compiler. The fixture compares the other tenant's rows."""
    session = guarded.session()
    bind_tenant(session, "a")

    def work(s: Session) -> Any:
        CORE_WITHIN[name](s)
        s.expire_all()
        return s.scalars(select(Account.name)).all()

    assert "secret" not in str(guarded.run(session, work))


@pytest.mark.parametrize("name", REFUSED)
def test_a_foreign_write_is_refused(guarded: Guarded, name: str) -> None:
    """Ring: the guard. Also what it raises, and that the session can go on."""
    session = guarded.session()
    bind_tenant(session, "a")
    with pytest.raises(TenantIsolationError):
        guarded.run(session, REFUSED[name])
    guarded.run(session, lambda s: (s.rollback(), s.expunge_all()))
    assert guarded.run(session, lambda s: sorted(s.scalars(select(Account.id)))) == [1, 3]


@pytest.mark.parametrize("name", [name for name in REFUSED if "attached" not in name])
def test_a_write_without_a_tenant_is_refused(guarded: Guarded, name: str) -> None:
    """Ring: the guard. The bound tenant is nobody's, so neither an own nor a foreign row can be written."""
    with pytest.raises((TenantRequiredError, TenantIsolationError)):
        guarded.run(guarded.session(), REFUSED[name])


QUIET: dict[str, Write] = {
    "update": lambda s: s.execute(update(Account).values(name="changed")),
    "update by key": lambda s: s.execute(update(Account).where(Account.id == 2).values(name="changed")),
    "update evaluated": lambda s: s.execute(
        update(Account).where(Account.id > 0).values(name="x"), execution_options={"synchronize_session": "evaluate"}
    ),
    "update fetched": lambda s: s.execute(
        update(Account).where(Account.id > 0).values(name="x"), execution_options={"synchronize_session": "fetch"}
    ),
    "update of a child": lambda s: s.execute(update(Dog).values(tricks="changed")),
    "update of a child with its parent's condition": lambda s: s.execute(
        update(Dog).where(Dog.id.in_(select(Animal.id).where(Animal.name.like("%dog")))).values(tricks="changed")
    ),
    "update of a root": lambda s: s.execute(update(Animal).values(name="changed")),
    "update of single-table": lambda s: s.execute(update(Vehicle).values(name="changed")),
    "delete of SQLModel": lambda s: s.execute(delete(Gadget)),
    "delete of a child": lambda s: s.execute(delete(Dog)),
    "delete by select": lambda s: s.execute(delete(Gadget).where(Gadget.id.in_(select(Gadget.id)))),
    "legacy update": lambda s: s.query(Account).update({"name": "changed"}),
    "legacy delete": lambda s: s.query(Gadget).delete(),
    "update returning": lambda s: s.execute(update(Account).values(name="changed").returning(Account.name)).all(),
    "upsert": _upsert,
    "upsert with a condition": lambda s: _upsert(s, where=Account.name.is_not(None)),
    "insert unless it exists": lambda s: s.execute(_insert(s, 2).on_conflict_do_nothing()),
    "update from another": lambda s: s.execute(
        update(Account).values(name=Note.title).where(Note.title.like("%secret%"), Account.id != 2)
    ),
    "value of a subquery": lambda s: s.execute(
        update(Account).values(email=select(Note.title).where(Note.id == 2).scalar_subquery()).where(Account.id == 1)
    ),
    "insert from select": lambda s: s.execute(
        insert(Note).from_select(["tenant_id", "title"], select(Account.tenant_id, Account.name))
    ),
    "insert value of a subquery": lambda s: s.execute(
        insert(Account).values(name="new", email=select(Note.title).where(Note.id == 2).scalar_subquery())
    ),
    "insert returning": lambda s: s.scalars(insert(Account).values(name="new").returning(Account)).all(),
    "insert stamped": lambda s: s.execute(insert(Account), [{"name": "x"}, {"name": "y"}]),
    "insert stamped by a parameter": lambda s: s.execute(insert(Account), {"name": "x"}),
    "add stamped": lambda s: _flush(s, Account(name="new"), Dog(name="new", tricks="new"), Gadget(name="new")),
    "add beside a shared row": lambda s: _flush(s, Catalogue(name="x"), Account(name="new")),
    "change an attached shared row": _attached_shared,
    "attached and gone again": lambda s: (s.expunge(_attached(s)), _flush(s, Account(name="new"))),
    "update of a shared class": lambda s: s.execute(update(Catalogue).values(name="new")),
    "bulk update names the own tenant": lambda s: s.execute(update(Account), [{"id": 1, "tenant_id": "a"}]),
    "bulk update": lambda s: s.execute(update(Account), [{"id": 1, "name": "x"}, {"id": 3, "name": "y"}]),
    "bulk update of a child": lambda s: s.execute(update(Dog), [{"id": 11, "tricks": "x", "name": "y"}]),
    "own flush": lambda s: (setattr(s.get(Account, 1), "name", "x"), s.flush()),
    "own flush of a child": lambda s: (setattr(s.get(Dog, 11), "tricks", "x"), s.flush()),
    "own delete of a child": lambda s: _delete(s, s.get(Dog, 11)),
    "own many to many": _own_label,
    "a listener's core statement": _listener,
}


@pytest.mark.parametrize("name", QUIET)
def test_a_write_touches_the_tenants_rows_alone(guarded: Guarded, name: str) -> None:
    """Ring: the guard's conditions and stamps. The fixture compares the other tenant's rows."""
    session = guarded.session()
    bind_tenant(session, "a")

    def work(s: Session) -> list[str]:
        QUIET[name](s)
        s.commit()
        s.expunge_all()
        accounts = s.scalars(select(Account)).all()
        return [f"{each.name} {each.email}" for each in accounts]

    assert "secret" not in " ".join(guarded.run(session, work))


def test_a_write_changes_the_tenants_own_rows(guarded: Guarded) -> None:
    session = guarded.session()
    bind_tenant(session, "a")

    def work(s: Session) -> Any:
        changed = s.execute(update(Account).values(name="changed")).rowcount
        children = s.execute(update(Dog).values(tricks="changed")).rowcount
        removed = s.execute(delete(Gadget)).rowcount
        s.execute(insert(Gadget), [{"name": "x"}, {"name": "y"}])
        s.execute(insert(Gadget).values(name="z"))
        s.commit()
        return changed, children, removed, sorted(s.scalars(select(Gadget.name)))

    assert guarded.run(session, work) == (2, 1, 1, ["x", "y", "z"])


SAME_TENANT: dict[str, Any] = {
    "plain": "a",
    "parameter": literal("a"),
    "excluded": lambda excluded: excluded.tenant_id,
}


@pytest.mark.parametrize("name", SAME_TENANT)
def test_an_upsert_can_set_the_tenant_that_the_row_has(guarded: Guarded, name: str) -> None:
    session = guarded.session()
    bind_tenant(session, "a")
    guarded.run(session, lambda s: _upsert(s, key=1, tenant_id=SAME_TENANT[name]))
    assert guarded.run(session, lambda s: s.scalar(select(Account.name).where(Account.id == 1))) == "changed"


def test_an_upsert_keeps_its_own_condition(guarded: Guarded) -> None:
    """The tenant's condition is added to it, and does not replace it."""
    session = guarded.session()
    bind_tenant(session, "a")
    guarded.run(session, lambda s: _upsert(s, key=1, where=Account.name == "no such name"))
    assert guarded.run(session, lambda s: s.scalar(select(Account.name).where(Account.id == 1))) != "changed"


def test_a_merge_of_a_foreign_key_changes_nothing(guarded: Guarded) -> None:
    """Ring: the guard. The key's existence shows, as composite keys alone could hide: see docs/isolation.md."""
    session = guarded.session()
    bind_tenant(session, "a")

    def work(s: Session) -> None:
        s.merge(Account(id=2, name="changed"))
        s.flush()

    with pytest.raises(IntegrityError):
        guarded.run(session, work)


def test_a_key_that_is_forged_in_place_meets_the_tenant_in_the_where(guarded: Guarded) -> None:
    """Ring: the tenant in the WHERE of each UPDATE of a flush."""
    session = guarded.session()
    bind_tenant(session, "a")

    def work(s: Session) -> None:
        entity = s.get(Account, 1)
        assert entity is not None
        s.expunge(entity)
        entity.name = "changed"
        state = entity._sa_instance_state
        state.key = (Account, (2,), None)
        entity.__dict__["id"] = 2
        s.identity_map.add(state)
        state.session_id = s.hash_key
        s._modified = True if hasattr(s, "_modified") else None
        assert object_session(entity) is s
        s.flush()

    with pytest.raises((StaleDataError, TenantIsolationError, InvalidRequestError)):
        guarded.run(session, work)


def test_a_row_that_moved_away_since_is_not_read_again(guarded: Guarded) -> None:
    """Ring: the tenant in the WHERE of a refresh, which loader criteria don't reach."""
    session = guarded.session()
    bind_tenant(session, "a")
    guarded.run(session, lambda s: s.get(Gadget, 1) and s.commit())

    def moved(s: Session) -> Any:
        entity = s.get(Gadget, 1)
        s.commit()
        with guarded.face.database.engine.begin() as connection:
            connection.execute(
                update(Gadget.__table__).where(Gadget.__table__.c.id == 1).values(tenant_id="c", name="secret")
            )
        s.refresh(entity)

    with pytest.raises(InvalidRequestError):
        guarded.run(session, moved)
