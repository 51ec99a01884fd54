"""Each change of a row is in its history, by whatever way it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import ForeignKey, MetaData, String, delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dotmac_database import (
    ALL_TENANTS,
    DatabaseTransaction,
    HistoryMixin,
    MisuseError,
    SoftDeleteMixin,
    TenantMixin,
    ValidationError,
    acting_as,
)
from dotmac_database.history.tables import history_of
from dotmac_database.testing import MockRepository
from tests.conftest import DRIVERS, Face, Faces
from tests.sync_work import create_anew, sync


class Base(DeclarativeBase):
    """The tables of these tests."""


class Folder(Base):
    __tablename__ = "history_folders"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Document(HistoryMixin, TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "history_documents"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str] = mapped_column(String(50))
    words: Mapped[int] = mapped_column(default=0)
    secret: Mapped[str | None] = mapped_column(info={"private": True})
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("history_folders.id", ondelete="CASCADE"))


class Seat(HistoryMixin, Base):
    """A class with a composite key and attributes that are named differently from their columns."""

    __tablename__ = "history_seats"

    hall: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    holder: Mapped[str | None] = mapped_column("held by %s")


class Plain(Base):
    __tablename__ = "history_plain"

    id: Mapped[int] = mapped_column(primary_key=True)


DOCUMENTS: Any = Document.__table__
ROW = {"id": 1, "title": "a", "words": 3, "secret": "s"}
WHOLE = {
    "id": 1,
    "title": "a",
    "words": 3,
    "folder_id": None,
    "tenant_id": "t",
    "is_deleted": False,
    "deleted_at": None,
}


@pytest.fixture(params=DRIVERS)
def on(request: pytest.FixtureRequest, faces: Faces) -> Face:
    """The face of each driver, with empty tables."""
    return create_anew(faces[request.param], Base.metadata)


def execute(*statements: Any) -> Callable[[Face, Any, Any], None]:
    """Work that executes statements and commits."""

    def run(session: Session) -> None:
        for statement in statements:
            session.execute(text(statement) if isinstance(statement, str) else statement)
        session.commit()

    return lambda face, session, _documents: sync(face, run, session)


def by_unit_of_work(change: Callable[[Session], None]) -> Callable[[Face, Any, Any], None]:
    def run(session: Session) -> None:
        change(session)
        session.commit()

    return lambda face, session, _documents: sync(face, run, session)


def document(session: Session) -> Document:
    return session.scalars(select(Document)).one()


def call(name: str, *args: Any, **options: Any) -> Callable[[Face, Any, Any], None]:
    """Work that calls a method of the repository."""
    return lambda face, _session, documents: face(getattr(documents, name), *args, **options)


FILTER = [{"field": "id", "operator": "eq", "value": 1}]
MANY = [{**ROW, "id": number} for number in range(1, 601)]
TENANT = {"tenant_id": "t"}
CREATES = {
    "create": call("create", ROW),
    "few": call("bulk_create", MANY[:3]),
    "arrays": call("bulk_create", MANY[:30]),
    "copy": call("bulk_create", MANY, returning=False),
    "upsert": call("upsert", ROW, conflict_fields=["id"]),
    "bulk upsert": call("bulk_upsert", MANY[:2], conflict_fields=["id"]),
    "core": execute(insert(DOCUMENTS).values(**ROW, **TENANT)),
    "unit of work": by_unit_of_work(lambda session: session.add(Document(**ROW, **TENANT))),
    "raw": execute("INSERT INTO history_documents (id, title, words, tenant_id) VALUES (1, 'a', 3, 't')"),
}
UPDATES = {
    "update": call("update", 1, {"title": "b", "secret": "z"}),
    "bulk update": call("bulk_update", [{"id": 1, "title": "b"}]),
    "upsert": call("upsert", {**ROW, "title": "b"}, conflict_fields=["id"]),
    "update where": call("update_where", FILTER, {"title": "b"}),
    "core": execute(update(DOCUMENTS).values(title="b")),
    "unit of work": by_unit_of_work(lambda session: setattr(document(session), "title", "b")),
    "raw": execute("UPDATE history_documents SET title = 'b'"),
}
DELETES = {
    "delete": call("delete", 1, soft_delete=False),
    "delete where": call("delete_where", FILTER, soft_delete=False),
    "core": execute(delete(DOCUMENTS)),
    "unit of work": by_unit_of_work(lambda session: session.delete(document(session))),
    "raw": execute("DELETE FROM history_documents"),
}


def history(face: Face, entity_id: Any = 1, model: Any = Document, tenant: Any = "t") -> list[Any]:
    with face.session() as session:
        entries = face(face.repository(session, model, tenant).history, entity_id)
    assert [entry.at for entry in entries] == sorted(entry.at for entry in entries)
    return [(entry.actor, entry.operation, entry.before, entry.after) for entry in entries]


@pytest.mark.parametrize("way", CREATES)
def test_every_way_of_creating_is_recorded(on: Face, way: str) -> None:
    with on.session() as session, acting_as("alice"):
        CREATES[way](on, session, on.repository(session, Document, "t"))
    assert history(on) == [("alice", "create", None, WHOLE)]


@pytest.mark.parametrize("way", UPDATES)
def test_every_way_of_updating_is_recorded(on: Face, way: str) -> None:
    with on.session() as session:
        on(on.repository(session, Document, "t").create, ROW)
    for actor in ("bob", "carol"):  # the second time, nothing changes
        with on.session() as session, acting_as(actor):
            UPDATES[way](on, session, on.repository(session, Document, "t"))
    assert history(on)[1:] == [("bob", "update", {"title": "a"}, {"title": "b"})]


@pytest.mark.parametrize("way", DELETES)
def test_every_way_of_deleting_is_recorded(on: Face, way: str) -> None:
    with on.session() as session:
        on(on.repository(session, Document, "t").create, ROW)
    with on.session() as session, acting_as("bob"):
        DELETES[way](on, session, on.repository(session, Document, "t"))
    assert history(on)[1:] == [("bob", "delete", WHOLE, None)]


def test_a_soft_deletion_and_a_restoration_are_operations_of_their_own(on: Face) -> None:
    with on.session() as session:
        documents = on.repository(session, Document, "t")
        on(documents.create, ROW)
        for actor, method in (("a", "delete"), ("b", "restore")):
            with acting_as(actor):
                on(getattr(documents, method), 1)
    entries = history(on)[1:]
    assert [entry[:2] for entry in entries] == [("a", "soft_delete"), ("b", "restore")]
    assert entries[0][2] == {"is_deleted": False, "deleted_at": None}
    assert entries[1][2]["deleted_at"] == entries[0][3]["deleted_at"]
    assert entries[1][3] == {"is_deleted": False, "deleted_at": None}


def test_a_cascade_in_the_database_is_recorded_with_its_actor(on: Face) -> None:
    with on.session() as session:
        on(on.repository(session, Folder).create, {"id": 7})
        on(on.repository(session, Document, "t").create, {**ROW, "folder_id": 7})
        with acting_as("bob"):
            on(on.repository(session, Folder).delete, 7)
    assert history(on)[1:] == [("bob", "delete", {**WHOLE, "folder_id": 7}, None)]


def test_a_new_key_ends_one_history_and_begins_another(on: Face) -> None:
    with on.session() as session:
        documents = on.repository(session, Document, "t")
        on(documents.bulk_create, MANY[:2])
        execute("UPDATE history_documents SET id = id + 10")(on, session, documents)
    assert [entry[1] for entry in history(on, 1)] == ["create", "delete"]
    assert [entry[1] for entry in history(on, 11)] == ["create"]


def test_a_row_that_moves_to_another_tenant_is_two_histories(on: Face) -> None:
    with on.session() as session:
        on(on.repository(session, Document, "t").create, ROW)
        execute("UPDATE history_documents SET tenant_id = 'u'")(on, session, None)
    assert [entry[1] for entry in history(on)] == ["create", "delete"]
    assert [entry[1] for entry in history(on, tenant="u")] == ["create"]
    assert [entry[1] for entry in history(on, tenant=ALL_TENANTS)] == ["create", "delete", "create"]


def test_a_composite_key_and_odd_names(on: Face) -> None:
    with on.session() as session:
        seats = on.repository(session, Seat)
        on(seats.create, {"hall": "a", "number": 1, "holder": "x"})
        on(seats.create, {"hall": "a", "number": 2, "holder": "y"})
        on(seats.update, ("a", 1), {"holder": None})
    assert history(on, ("a", 1), Seat, None) == [
        (None, "create", None, {"hall": "a", "number": 1, "holder": "x"}),
        (None, "update", {"holder": "x"}, {"holder": None}),
    ]


def test_a_rolled_back_write_has_no_history(on: Face) -> None:
    with on.session() as session:
        sync(
            on,
            lambda session: (session.execute(insert(DOCUMENTS).values(**ROW, **TENANT)), session.rollback()),
            session,
        )
    assert history(on) == []


def test_another_tenant_and_an_unknown_row_have_an_empty_history(on: Face) -> None:
    with on.session() as session:
        on(on.repository(session, Document, "t").create, ROW)
    assert history(on, tenant="u") == history(on, 2) == []


def test_entries_cannot_be_changed_but_forgotten(on: Face) -> None:
    entries: Any = history_of(DOCUMENTS)
    with on.session() as session:
        documents = on.repository(session, Document, "t")
        on(on.repository(session, Document, "u").create, {**ROW, "id": 2})
        for title in "abcde":
            on(documents.upsert, {**ROW, "title": title}, conflict_fields=["id"])
        for statement in (update(entries).values(actor="me"), delete(entries)):
            with pytest.raises(DBAPIError, match="triggers only"):
                execute(statement)(on, session, documents)
            on(session.rollback)
        third = on(documents.history, 1)[2]
        sync(on, lambda session: session.execute(text("SELECT 1")), session)
        on(session.rollback)
        with pytest.raises(ValidationError):
            on(documents.forget_history, before=third.at.replace(tzinfo=None))
        kept = [each for each in on(documents.history, 1) if each.at >= third.at]
        assert on(documents.forget_history, before=third.at, batch=1) == 5 - len(kept)
        assert on(documents.history, 1) == kept
        assert len(on(on.repository(session, Document, "u").history, 2)) == 1
        with pytest.raises(DBAPIError, match="triggers only"):
            execute(delete(entries))(on, session, documents)


def test_a_change_of_the_actor_in_one_transaction(on: Face) -> None:
    block = DatabaseTransaction.async_transaction if on.is_async else DatabaseTransaction.sync_transaction
    with on.session() as session:
        documents = on.repository(session, Document, "t")
        with on.entered(block(session)):
            on(documents.create, ROW)
            for number, actor in enumerate(("a", "b", None)):
                with acting_as(actor):
                    on(documents.update, 1, {"words": number})
    assert [entry[0] for entry in history(on)] == [None, "a", "b", None]


def test_conditions_also_hold_for_the_history(on: Face) -> None:
    with on.session() as session:
        documents = on.repository(session, Document, "t")
        on(documents.bulk_create, MANY[:2])
        on(documents.update, 2, {"title": "b"})
        base: Any = type(documents)

        class Restricted(base):  # type: ignore[misc]
            def conditions(self) -> Any:
                return [Document.title == "a"]

        restricted = Restricted(session, Document, "t")
        assert [len(on(restricted.history, number)) for number in (1, 2)] == [1, 0]


def test_one_without_the_mixin_is_refused_by_name(on: Face) -> None:
    with on.session() as session, pytest.raises(MisuseError, match="Plain has no history"):
        on(on.repository(session, Plain).history, 1)


def test_joined_inheritance_is_refused_when_it_is_mapped() -> None:
    class Own(DeclarativeBase):
        """A base of its own, since the mapping fails."""

    class Animal(HistoryMixin, Own):
        __tablename__ = "animals"
        id: Mapped[int] = mapped_column(primary_key=True)

    with pytest.raises(MisuseError, match="joined inheritance"):
        type("Dog", (Animal,), {
            "__tablename__": "dogs", "__annotations__": {"id": Mapped[int]}, "__module__": __name__,
            "id": mapped_column(ForeignKey("animals.id"), primary_key=True),
        })  # fmt: skip


def test_a_mock_has_a_history() -> None:
    documents = MockRepository(Document, "t")
    with acting_as("alice"):
        documents.create(ROW)
    documents.delete(1)
    assert [(each.actor, each.operation) for each in documents.history(1)] == [
        ("alice", "create"),
        (None, "soft_delete"),
    ]


def test_a_class_that_takes_the_place_of_another_announces_its_actors(face: Face) -> None:
    """As in a notebook, where a cell that defines a class is run again: the metadata has as many tables as before."""
    metadata = MetaData()
    actors = []
    for _ in range(2):
        base = type("Base", (DeclarativeBase,), {"metadata": metadata})
        columns = {"id": mapped_column(primary_key=True), "__annotations__": {"id": Mapped[int]}}
        model = type("Cell", (HistoryMixin, base), {"__tablename__": "history_cells", **columns})
        metadata.create_all(face.database.engine)
        with face.session() as session, acting_as("alice"):
            cells = face.repository(session, model)
            face(cells.create, {"id": 1})
            actors += [entry.actor for entry in face(cells.history, 1)]
        metadata.drop_all(face.database.engine)
        metadata.clear()
    assert actors == ["alice", "alice"]
