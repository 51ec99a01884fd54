"""``at_most``: an update or deletion of more rows changes nothing, whatever runs it and whoever inserts meanwhile.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from sqlalchemy import ForeignKey, MetaData, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, validates

from dotmac_database import (
    ALL_TENANTS,
    DatabaseTransaction,
    MisuseError,
    QueryFilter,
    SoftDeleteMixin,
    TenantMixin,
    TransactionError,
    ValidationError,
    unscoped,
)
from dotmac_database.testing import AsyncMockRepository, MockRepository
from tests.conftest import Face, counted


class Base(DeclarativeBase):
    """The models of this module."""


class Doc(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "docs"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


class Animal(TenantMixin, Base):
    __tablename__ = "animals"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012 - SQLAlchemy's own form

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    title: Mapped[str]


class Dog(Animal):
    __tablename__ = "dogs"
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012 - SQLAlchemy's own form

    id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
    breed: Mapped[str]


class Checked(TenantMixin, Base):
    __tablename__ = "checked"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]

    @validates("title")
    def _lower(self, _key: str, title: str) -> str:
        return title.lower()


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "one table": (Doc, {}),
    "joined inheritance": (Dog, {"breed": "x"}),
    "validators": (Checked, {}),
}
WRITES: dict[str, Any] = {
    "update": lambda rows: (rows.update_where, {"data": {"title": "changed"}}),
    "soft deletion": lambda rows: (rows.delete_where, {}),
    "deletion": lambda rows: (rows.delete_where, {"soft_delete": False}),
}
KINDS = ["plain", "guarded", "all tenants"]
ALL_X = [QueryFilter("title", value="x")]


@contextmanager
def opened(face: Face, kind: str, model: Any, **options: Any) -> Iterator[tuple[Any, Any]]:
    with face.guarded() if kind == "guarded" else face.session() as session:
        tenant = ALL_TENANTS if kind == "all tenants" else "a"
        yield session, face.repository(session, model, tenant, **options)


def seeded(face: Face, model: Any, values: dict[str, Any]) -> None:
    with face.session() as session:
        for tenant in "ab":
            rows = [{"title": title, **values} for title in "xxxy"]
            face(face.repository(session, model, tenant).bulk_create, rows)


def titles(face: Face, model: Any) -> list[str]:
    with face.session() as session:
        return sorted(row.title for row in face(face.repository(session, model, ALL_TENANTS).list))


UNCHANGED = ["x"] * 6 + ["y"] * 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("holds", [False, True], ids=["empty session", "session with objects"])
@pytest.mark.parametrize("boundary", ["alone", "no auto_commit", "block", "block without savepoints"])
def test_more_rows_change_nothing(face: Face, kind: str, write: str, model: str, holds: bool, boundary: str) -> None:
    cls, values = MODELS[model]
    seeded(face, cls, values)
    many = 6 if kind == "all tenants" else 3
    with opened(face, kind, cls, auto_commit=boundary != "no auto_commit") as (session, rows):
        method, arguments = WRITES[write](rows)
        held = face(rows.list) if holds else []

        def refused() -> None:
            with pytest.raises(ValidationError, match=f"more than {many - 1} rows") as raised:
                face(method, ALL_X, **arguments, at_most=many - 1)
            assert raised.value.field == "at_most"

        if boundary.startswith("block"):
            begin = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
            doomed = pytest.raises(TransactionError) if boundary == "block without savepoints" else nullcontext()
            with doomed, face.entered(begin(session, savepoints=boundary == "block")):
                face(rows.create, {"title": "z", "tenant_id": "a", **values})
                refused()
        else:
            refused()
            assert holds or not session.in_transaction()  # an earlier read can have begun a transaction
        assert [each.title for each in held] == ["x", "x", "x", "y"] * (many // 3 if holds else 0)
    assert titles(face, cls) == UNCHANGED + (["z"] if boundary == "block" else [])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("model", MODELS)
def test_as_many_rows_are_changed(face: Face, kind: str, write: str, model: str) -> None:
    cls, values = MODELS[model]
    seeded(face, cls, values)
    many = 6 if kind == "all tenants" else 3
    with opened(face, kind, cls) as (_session, rows):
        method, arguments = WRITES[write](rows)
        assert face(method, ALL_X, **arguments, at_most=many) == many
        assert face(method, ALL_X, **arguments, at_most=0) == 0
    assert titles(face, cls).count("x") == 6 - many


def test_all_tenants_of_a_guarded_session(face: Face) -> None:
    seeded(face, Doc, {})
    with face.guarded() as session, unscoped(session, reason="test"):
        docs = face.repository(session, Doc, ALL_TENANTS)
        with pytest.raises(ValidationError, match="more than 5"):
            face(docs.update_where, ALL_X, {"title": "changed"}, at_most=5)
        assert face(docs.update_where, ALL_X, {"title": "changed"}, at_most=6) == 6


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("write", WRITES)
def test_rows_that_others_insert_before_the_statement_count(face: Face, model: str, write: str) -> None:
    if face.engine.dialect.name == "sqlite":
        pytest.skip("On SQLite nobody else can insert during a transaction that writes.")
    cls, values = MODELS[model]
    seeded(face, cls, values)
    inserted: list[bool] = []

    def insert(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not inserted and statement.startswith(("UPDATE", "DELETE", "SELECT")):
            inserted.append(True)
            with face.database.sessions() as other:
                other.add(cls(title="x", tenant_id="a", **values))
                other.commit()

    with opened(face, "plain", cls) as (_session, rows):
        method, arguments = WRITES[write](rows)
        event.listen(face.engine, "before_cursor_execute", insert)
        try:
            with pytest.raises(ValidationError, match="more than 3"):
                face(method, ALL_X, **arguments, at_most=3)
        finally:
            event.remove(face.engine, "before_cursor_execute", insert)
    assert titles(face, cls) == ["x", *UNCHANGED]


def test_one_statement_in_a_transaction(face: Face) -> None:
    seeded(face, Doc, {})
    with opened(face, "plain", Doc) as (_session, docs), counted(face.engine) as sent:
        face(docs.update_where, ALL_X, {"title": "changed"}, at_most=3)
    assert [each.split()[0] for each in sent] == ["BEGIN", "UPDATE", "COMMIT"]


def test_a_negative_number_is_refused(face: Face) -> None:
    with opened(face, "plain", Doc) as (_session, docs):
        for method, arguments in ((docs.update_where, {"data": {"title": "z"}}), (docs.delete_where, {})):
            with pytest.raises(MisuseError) as raised:
                face(method, ALL_X, **arguments, at_most=-1)
            assert raised.value.field == "at_most"


def test_of_a_mock(face: Face) -> None:
    docs: Any = (AsyncMockRepository if face.is_async else MockRepository)(Doc, tenant_id="t")
    docs.add_mock_data([{"title": "x"}, {"title": "x"}])
    with pytest.raises(ValidationError, match="more than 1"):
        face(docs.delete_where, ALL_X, at_most=1)
    assert face(docs.count) == 2
