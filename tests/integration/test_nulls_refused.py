"""A None for a column that can't be NULL is refused before anything is sent, by the field's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import JSON, MetaData, String, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from dotmac_database import ValidationError
from dotmac_database.testing import MockRepository
from tests.conftest import Face, counted


class Base(DeclarativeBase):
    """The tables of this module."""


class Blank(TypeDecorator[str | None]):
    """Stores a None as a text that is empty."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return "" if value is None else value


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    kind: Mapped[str] = mapped_column(default="plain")
    stock: Mapped[int] = mapped_column(server_default="5")
    note: Mapped[str | None]
    settings: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    remark: Mapped[Any] = mapped_column(Blank, nullable=False, default="")


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


def _row(number: int, **more: Any) -> dict[str, Any]:
    return {"code": f"c{number}", "name": f"n{number}", **more}


WRITES: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "create": lambda r: (r.create, _row(9, name=None)),
    "create of a document": lambda r: (r.create, _row(9, settings=None)),
    "bulk_create": lambda r: (r.bulk_create, [_row(n, **({"name": None} if n == 150 else {})) for n in range(2, 302)]),
    "upsert": lambda r: (r.upsert, _row(1, name=None), ["code"]),
    "upsert of a default": lambda r: (r.upsert, _row(1, kind=None), ["code"]),
    "bulk_upsert": lambda r: (r.bulk_upsert, [_row(1), _row(2, name=None)], ["code"]),
    "update": lambda r: (r.update, 1, {"name": None}),
    "update of a default": lambda r: (r.update, 1, {"kind": None}),
    "update of a server's default": lambda r: (r.update, 1, {"stock": None}),
    "update of a document": lambda r: (r.update, 1, {"settings": None}),
    "bulk_update": lambda r: (r.bulk_update, [{"id": 1, "note": "x"}, {"id": 2, "name": None}]),
    "update_where": lambda r: (r.update_where, [{"field": "code", "value": "c1"}], {"name": None}),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_null_is_refused_by_name(face: Face, write: str) -> None:
    with face.session() as session:
        items = face.repository(session, Item)
        face(items.create, _row(1))
        function, *arguments = WRITES[write](items)
        if write == "update_where":
            from dotmac_database import QueryFilter

            arguments[0] = [QueryFilter("code", "eq", "c1")]
        with counted(face.engine) as sent, pytest.raises(ValidationError, match="can't be null") as refused:
            face(function, *arguments)
        assert sent == []
        field = {"default": "kind", "server's default": "stock", "document": "settings"}.get(
            write.partition(" of a ")[2]
        )
        assert refused.value.field == (field or "name")
        place = {"bulk_create": "(row 148)", "bulk_upsert": "(row 1)", "bulk_update": "(row 1)"}.get(write)
        assert ("(row" in str(refused.value)) == (place is not None)
        assert (place or "") in str(refused.value)
        assert face(items.count) == 1


def test_what_is_filled_is_not_refused(face: Face) -> None:
    with face.session() as session:
        items = face.repository(session, Item)
        given = _row(1, id=None, kind=None, stock=None, note=None)
        made = face(items.create, given)
        assert (made.kind, made.stock, made.settings) == ("plain", 5, {})
        made = face(items.bulk_create, [{**given, "code": "c2"}])[0]
        assert (made.kind, made.stock) == ("plain", 5)
        face(items.update, made.id, {"remark": None, "note": None})
        assert face(items.count) == 2


def test_a_listener_may_fill_it(face: Face) -> None:
    def fill(_mapper: Any, _connection: Any, target: Any) -> None:
        target.name = target.name or "filled"

    event.listen(Item, "before_insert", fill)
    event.listen(Item, "before_update", fill)
    try:
        with face.session() as session:
            items = face.repository(session, Item)
            made = face(items.create, _row(1, name=None))
            assert made.name == "filled"
            assert face(items.update, made.id, {"name": None}).name == "filled"
    finally:
        event.remove(Item, "before_insert", fill)
        event.remove(Item, "before_update", fill)


def test_a_mock_refuses_it() -> None:
    with pytest.raises(ValidationError, match=r"Item\.name can't be null"):
        MockRepository(Item).create(_row(1, name=None))
