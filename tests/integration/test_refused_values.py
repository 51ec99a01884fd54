"""A value that a column's type can't convert is a `ValidationError` that names the field, and no exception's class."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import ForeignKey, MetaData, String, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlmodel import Field, SQLModel

from dotmac_database import QueryFilter, ValidationError, any_of
from tests.conftest import Face


class Base(DeclarativeBase):
    """The tables of this module."""


class Refusing(TypeDecorator[Any]):
    """A type whose conversion fails for one value."""

    impl = String
    cache_ok = True
    error: type[Exception] = ValueError

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        if value == "bad":
            raise self.error("a secret")
        return value


class ByAttribute(Refusing):
    cache_ok = True
    error = AttributeError


class ByType(Refusing):
    cache_ok = True
    error = TypeError


class ByLookup(Refusing):
    cache_ok = True
    error = KeyError


class Thing(Base):
    __tablename__ = "things"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    by_value: Mapped[str | None] = mapped_column(Refusing)
    by_attribute: Mapped[str | None] = mapped_column(ByAttribute)
    by_type: Mapped[str | None] = mapped_column(ByType)
    by_lookup: Mapped[str | None] = mapped_column(ByLookup)


class Twin(Base):
    """With two columns of one type."""

    __tablename__ = "twins"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    one: Mapped[str | None] = mapped_column(Refusing)
    two: Mapped[str | None] = mapped_column(Refusing)
    thing_id: Mapped[int | None] = mapped_column(ForeignKey("things.id"))
    thing: Mapped[Thing | None] = relationship()


class Event(SQLModel, table=True):
    __tablename__ = "events"
    metadata = Base.metadata

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    at: datetime | None = None


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


Method = Callable[[Face, Any, str, Any], Any]


def where() -> list[QueryFilter]:
    return [QueryFilter("id", "eq", 1000)]


METHODS: dict[str, Method] = {
    "create": lambda face, rows, key, value: face(rows.create, {"name": "new", key: value}),
    "bulk_create": lambda face, rows, key, value: face(rows.bulk_create, [{"name": "new", key: value}]),
    "bulk_create of many": lambda face, rows, key, value: face(
        rows.bulk_create, [{"name": f"n{n}", key: value} for n in range(30)], returning=False
    ),
    "upsert": lambda face, rows, key, value: face(rows.upsert, {"name": "a", key: value}, ["name"]),
    "update": lambda face, rows, key, value: face(rows.update, 1000, {key: value}),
    "bulk_update": lambda face, rows, key, value: face(rows.bulk_update, [{"id": 1000, key: value}]),
    "update_where": lambda face, rows, key, value: face(rows.update_where, where(), {key: value}),
    "eq": lambda face, rows, key, value: face(rows.list, {"filters": [QueryFilter(key, "eq", value)]}),
    "in": lambda face, rows, key, value: face(rows.count, [QueryFilter(key, "in", [value])]),
    "in a group": lambda face, rows, key, value: face(rows.list, {"filters": [any_of(QueryFilter(key, "gt", value))]}),
    "get_by_field": lambda face, rows, key, value: face(rows.get_by_field, key, value),
}


def faults(face: Face, model: Any, key: str, value: Any) -> list[str]:
    found: list[str] = []
    for method, run in METHODS.items():
        with face.session() as session:
            rows = face.repository(session, model)
            try:
                run(face, rows, key, value)
            except ValidationError as refused:
                text = str(refused)
                if refused.field != key or key not in text or "Error" in text or "secret" in text:
                    found.append(f"{method}: {text} (field {refused.field})")
            except Exception as error:  # noqa: BLE001 - all wrong cells at once
                found.append(f"{method}: {error!r}")
            else:
                found.append(f"{method} took it")
            assert face(rows.count) == 1
    return found


@pytest.mark.parametrize("key", ["by_value", "by_attribute", "by_type", "by_lookup"])
def test_a_type_of_the_apps_own(face: Face, key: str) -> None:
    with face.session() as session:
        face(face.repository(session, Thing).create, {"id": 1000, "name": "a"})
    assert not faults(face, Thing, key, "bad")


def test_one_of_two_columns_of_a_type(face: Face) -> None:
    with face.session() as session:
        rows = face.repository(session, Twin)
        with pytest.raises(ValidationError, match="two"):
            face(rows.create, {"name": "a", "one": "good", "two": "bad"})
        with pytest.raises(ValidationError, match=r"thing\.by_type"):
            face(rows.list, {"filters": [QueryFilter("thing.by_type", "eq", "bad")]})


@pytest.mark.parametrize("value", ["nonsense", 5, [1], b"2026", "2026-13-01"], ids=repr)
def test_what_is_no_moment_for_sqlmodel(face: Face, value: Any) -> None:
    with face.session() as session:
        face(face.repository(session, Event).create, {"id": 1000, "name": "a"})
    assert not faults(face, Event, "at", value)


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00",
        "2026-01-01",
        datetime(2026, 1, 1),  # noqa: DTZ001 - a naive one
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))),
        date(2026, 1, 1),
    ],
    ids=repr,
)
def test_moments_of_sqlmodel(face: Face, value: Any) -> None:
    """They are what they are for every other timestamp: a naive one is UTC."""
    with face.session() as session:
        face(face.repository(session, Event).create, {"id": 1000, "name": "a"})
    for method, run in METHODS.items():
        with face.session() as session:
            rows = face.repository(session, Event)
            run(face, rows, "at", value)
            assert face(rows.count, [QueryFilter("at", "eq", datetime(2026, 1, 1, tzinfo=UTC))]) > 0, method
            if method in ("bulk_create of many", "bulk_create", "create"):
                face(rows.delete_where, [QueryFilter("name", "ne", "a")])
