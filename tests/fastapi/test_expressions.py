"""Hybrids, synonyms and column properties in lists, and what a 422 names."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import DateTime, MetaData, String, TypeDecorator
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, synonym

from dotmac_database import TenantMixin, ValidationError
from tests.fastapi.conftest import Api
from tests.fastapi.shared_routers import crud_router, list_router


class Strict(TypeDecorator[datetime]):
    """A type that refuses values as the ones of SQLModel do."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        if value is not None and value.utcoffset() is None:
            raise ValueError("it has no time zone")
        return value

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return value if value is None or value.tzinfo else value.replace(tzinfo=UTC)


class Picky(TypeDecorator[str]):
    """A type that refuses some texts."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        if value == "bad":
            raise RuntimeError("it is bad")
        return value


class Base(DeclarativeBase):
    """The tables of this module."""


class Thing(TenantMixin, Base):
    __tablename__ = "expression_things"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    size: Mapped[int]
    at: Mapped[datetime | None] = mapped_column(Strict)
    pin: Mapped[str | None] = mapped_column(info={"private": True})
    picky: Mapped[str | None] = mapped_column(Picky)
    title = synonym("name")
    key = synonym("pin")

    @hybrid_property
    def double(self) -> int:
        return self.size * 2

    @hybrid_property
    def hidden(self) -> str | None:
        return self.pin

    @hybrid_property
    def first(self) -> str:
        return self.name.split()[0]


Thing.loud = column_property(Thing.__table__.c.name + "!")
FIELDS = ("double", "title", "loud", "size", "at", "picky")


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture(scope="module")
def served(shared_api: Api) -> Api:
    shared_api.app.include_router(crud_router(Thing, prefix="/things", filters=FIELDS, sorts=FIELDS))
    return shared_api


@pytest.fixture
def api(served: Api, emptied: None) -> Api:
    api = served
    for n in range(5):
        made = api.post("/things", tenant="a", json={"name": f"n{n}", "size": n % 3, "at": f"2024-01-0{n + 1}T00:00Z"})
        assert made.status_code == 201, made.text
    return api


@pytest.mark.parametrize("field", [field for field in FIELDS if field != "picky"])
def test_lists_are_sorted_and_filtered_by_them(api: Api, field: str) -> None:
    value = {"double": "4", "title": "n2", "loud": "n2!", "size": "2", "at": "2024-01-03T00:00:00Z"}[field]
    found = api.get(f"/things?{field}={value}", tenant="a")
    assert (found.status_code, [row["name"] for row in found.json()["items"]]) == (200, ["n2"]), found.text
    order = [row["name"] for row in api.get(f"/things?sort=-{field}", tenant="a").json()["items"]]
    by_size = field in ("double", "size")
    assert order == (["n2", "n4", "n1", "n3", "n0"] if by_size else ["n4", "n3", "n2", "n1", "n0"])


@pytest.mark.parametrize("field", ["hidden", "first", "key", "nothing"])
@pytest.mark.parametrize("use", ["filters", "sorts"])
def test_what_clients_may_not_name_is_refused_at_once(field: str, use: str) -> None:
    with pytest.raises(ValidationError) as refused:
        list_router(Thing, prefix="/x", **{use: [field]})
    assert refused.value.field == field


@pytest.mark.parametrize("given", ["2024-01-03T00:00:00", "2024-01-03", "2024-01-03T01:00:00+01:00"])
def test_a_timestamp_without_a_zone_is_utc(api: Api, given: str) -> None:
    for asked in (
        {"at": given},
        {"at__in": given},
        {"at__gte": given, "at__lte": given},
        {"at__between": f"{given},{given}"},
    ):
        found = api.get("/things", params=asked, tenant="a")
        assert (found.status_code, [row["name"] for row in found.json().get("items", ())]) == (200, ["n2"]), found.text


@pytest.mark.parametrize(
    "asked",
    [
        "at=x",
        "at__in=2024-01-01,x",
        "at__gt=",
        "double=x",
        "size__between=1",
        "picky=bad",
        "picky__in=good,bad",
        "picky=bad&size=1",
        "loud__is_null=x",
    ],
)
def test_a_value_that_does_not_fit_names_its_parameter(api: Api, asked: str) -> None:
    refused = api.get(f"/things?{asked}", tenant="a")
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["loc"] == ["query", asked.partition("=")[0]]
    assert "Error" not in refused.text.replace("Value error", "")
