"""None for a JSON column is NULL, in every way of writing: it is never left out, and IS NULL finds it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import JSON, Integer, MetaData, String, TypeDecorator, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dotmac_database import QueryFilter
from tests.conftest import Face, counted


class Base(DeclarativeBase):
    """The tables of this module."""


class Settings(TypeDecorator[Any]):
    """A document that the app converts."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value


class Documents:
    """What both classes have."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    plain: Mapped[Any] = mapped_column(JSON, nullable=True)
    as_null: Mapped[Any] = mapped_column(JSON(none_as_null=True), nullable=True)
    jsonb: Mapped[Any] = mapped_column(JSONB().with_variant(JSON(), "sqlite"), nullable=True)
    varied: Mapped[Any] = mapped_column(JSON().with_variant(JSONB(), "postgresql"), nullable=True)
    defaulted: Mapped[Any] = mapped_column(JSON, nullable=True, default=lambda: {"d": 1})
    by_server: Mapped[Any] = mapped_column(JSON, nullable=True, server_default=text("'{}'"))
    numbers: Mapped[Any] = mapped_column(ARRAY(Integer).with_variant(JSON(none_as_null=True), "sqlite"), nullable=True)
    label: Mapped[str | None] = mapped_column(String(20))
    decorated: Mapped[Any] = mapped_column(Settings, nullable=True)


class Doc(Documents, Base):
    __tablename__ = "docs"


class MutableDoc(Documents, Base):
    """Which listens to its attributes, so that it is changed as an object."""

    __tablename__ = "mutable_docs"
    mutable: Mapped[Any] = mapped_column(MutableDict.as_mutable(JSON()), nullable=True)


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


def columns(model: Any) -> list[str]:
    return [name for name in dict(model.__mapper__.columns) if name not in ("id", "name", "label", "decorated")]


def nothing(model: Any) -> dict[str, Any]:
    return dict.fromkeys(columns(model))


def where(key: int) -> list[QueryFilter]:
    return [QueryFilter("id", "eq", key)]


Write = Callable[[Face, Any, dict[str, Any], Any], Any]

NEW: dict[str, Write] = {
    "create": lambda face, rows, row, _: face(rows.create, row),
    "bulk_create": lambda face, rows, row, _: face(rows.bulk_create, [row]),
    "bulk_create, counted": lambda face, rows, row, _: face(rows.bulk_create, [row], returning=False),
    "bulk_create of many": lambda face, rows, row, more: face(rows.bulk_create, [row, *more]),
    "bulk_create of many, counted": lambda face, rows, row, more: face(rows.bulk_create, [row, *more], returning=False),
    "upsert": lambda face, rows, row, _: face(rows.upsert, row, ["name"]),
    "bulk_upsert": lambda face, rows, row, more: face(rows.bulk_upsert, [row, *more], ["name"]),
}
CHANGES: dict[str, Write] = {
    "upsert": lambda face, rows, row, _: face(rows.upsert, row, ["name"]),
    "bulk_upsert": lambda face, rows, row, more: face(rows.bulk_upsert, [row, *more], ["name"]),
    "update": lambda face, rows, row, _: face(rows.update, 1, nothing(rows.model_class)),
    "bulk_update": lambda face, rows, row, _: face(rows.bulk_update, [{"id": 1, **nothing(rows.model_class)}]),
    "update_where": lambda face, rows, row, _: face(rows.update_where, where(1), nothing(rows.model_class)),
}


def many(model: Any) -> list[dict[str, Any]]:
    return [{"name": f"n{n}", **nothing(model), **({"plain": {"n": n}} if n % 2 else {})} for n in range(40)]


def not_null(face: Face, model: Any, name: str) -> list[str]:
    """The columns of a row that hold anything, be it JSON's null."""
    asked = ", ".join(f"({key} IS NOT NULL)" for key in columns(model))
    with face.database.engine.connect() as connection:
        held = connection.execute(text(f"SELECT {asked} FROM {model.__tablename__} WHERE name = '{name}'")).one()
    return [key for key, holds in zip(columns(model), held, strict=True) if holds]


def faults(face: Face, rows: Any, model: Any) -> list[str]:
    """What is wrong with the row that was written."""
    wrong = [f"{key} is stored" for key in not_null(face, model, "x")]
    entity = face(rows.get_by_field, "name", "x")
    for key in columns(model):
        if getattr(entity, key) is not None:
            wrong.append(f"{key} is {getattr(entity, key)!r}")
        if face(rows.count, [QueryFilter("name", "eq", "x"), QueryFilter(key, "is_null")]) != 1:
            wrong.append(f"IS NULL does not find {key}")
    return wrong


@pytest.mark.parametrize("model", [Doc, MutableDoc], ids=["columns", "mutable"])
def test_none_is_null(face: Face, model: Any) -> None:
    wrong: list[str] = []
    for method, write in [*NEW.items(), *((f"{each} of a row", write) for each, write in CHANGES.items())]:
        if method.endswith(" of a row"):
            full = {key: [1, 2] if key == "numbers" else {"a": 1} for key in columns(model)}
            with Session(face.database.engine) as other:
                other.add(model(id=1, name="x", **full))
                other.commit()
        with face.session() as session:
            rows = face.repository(session, model)
            write(face, rows, {"name": "x", **nothing(model)}, many(model))
            wrong += [f"{method}: {fault}" for fault in faults(face, rows, model)]
        with Session(face.database.engine) as other:
            other.execute(model.__table__.delete())
            other.commit()
    assert not wrong, "\n".join(wrong)


def test_an_object_held_by_the_session_has_none(face: Face) -> None:
    with face.session() as session:
        rows = face.repository(session, Doc)
        row = face(rows.create, {"name": "x", "plain": {"a": 1}})
        face(rows.bulk_update, [{"id": row.id, "plain": None}])
        assert row.plain is None
        assert face(rows.update, row.id, {"jsonb": None}).jsonb is None


def test_json_null_is_written_where_it_is_meant(face: Face) -> None:
    """``JSON.NULL`` is the value null of a document, which is not NULL."""
    names = (f"n{n}" for n in itertools.count())
    with face.session() as session:
        rows = face.repository(session, Doc)
        first = face(rows.create, {"name": next(names), "plain": JSON.NULL})
        face(rows.bulk_create, [{"name": next(names), "plain": JSON.NULL} for _ in range(3)])
        face(rows.upsert, {"name": next(names), "plain": JSON.NULL}, ["name"])
        other = face(rows.create, {"name": next(names)})
        face(rows.update, other.id, {"plain": JSON.NULL})
        assert face(rows.count, [QueryFilter("plain", "is_null")]) == 0
        face(rows.update, first.id, {"plain": None})
        assert face(rows.count, [QueryFilter("plain", "is_null")]) == 1


def test_none_of_a_document_costs_no_other_statement(face: Face) -> None:
    with face.session() as session:
        rows = face.repository(session, Doc)
        with counted(face.engine) as sent:
            face(rows.create, {"name": "x", "plain": None})
        assert len([each for each in sent if each.startswith(("INSERT", "SELECT"))]) <= 1
        with counted(face.engine) as sent:
            documents = [{"name": f"{n}", "plain": {} if n % 2 else None} for n in range(20)]
            face(rows.bulk_create, documents, returning=False)
        assert len([each for each in sent if each.startswith(("INSERT", "SELECT"))]) == 1
