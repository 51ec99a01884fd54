"""The first ring alone: expressions of a class that a statement comes to through a relationship ask other rows too."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import ForeignKey, MetaData, func, insert, select
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship

from dotmac_database import QueryFilter, SortField
from tests.conftest import Face


class Base(DeclarativeBase):
    """Tables of their own: everything here asks the others' rows."""


class Sale(Base):
    __tablename__ = "expression_sales"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]


class Shop(Base):
    __tablename__ = "expression_shops"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    sales: Mapped[int] = column_property(select(func.count(Sale.id)).correlate_except(Sale).scalar_subquery())

    @hybrid_property
    def best(self) -> int:
        raise NotImplementedError

    @best.inplace.expression
    @classmethod
    def _best(cls) -> Any:
        return select(func.max(Sale.id)).correlate_except(Sale).scalar_subquery()


class Clerk(Base):
    __tablename__ = "expression_clerks"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    shop_id: Mapped[int] = mapped_column(ForeignKey("expression_shops.id"))
    shop: Mapped[Shop] = relationship()


class Shift(Base):
    __tablename__ = "expression_shifts"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    clerk_id: Mapped[int] = mapped_column(ForeignKey("expression_clerks.id"))
    clerk: Mapped[Clerk] = relationship()


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture(params=["plain", "guarded"])
def repositories(request: pytest.FixtureRequest, face: Face) -> Any:
    with face.database.engine.begin() as connection:
        connection.execute(insert(Sale.__table__), [{"id": key, "tenant_id": "ab"[key > 2]} for key in (1, 2, 3, 4, 5)])
        for tenant, key in (("a", 1), ("b", 2)):
            connection.execute(insert(Shop.__table__).values(id=key, tenant_id=tenant))
            connection.execute(insert(Clerk.__table__).values(id=key, tenant_id=tenant, shop_id=key))
            connection.execute(insert(Shift.__table__).values(id=key, tenant_id=tenant, clerk_id=key))
    with face.guarded() if request.param == "guarded" else face.session() as session:
        yield lambda model: face.repository(session, model, "a")


WAYS = [(Clerk, "shop", ("shop",)), (Shift, "clerk.shop", ("clerk.shop",))]


@pytest.mark.parametrize(("model", "way", "names"), WAYS, ids=["one step", "two steps"])
@pytest.mark.parametrize("field", ["sales", "best"])
def test_filters_count_the_tenants_own_rows(
    face: Face, repositories: Any, model: Any, way: str, names: Any, field: str
) -> None:
    path = f"{way}.{field}"
    own, everyones = [QueryFilter(path, value=2)], [QueryFilter(path, value=5)]
    things = repositories(model)
    assert (face(things.count, own), face(things.count, everyones)) == (1, 0)
    assert [len(face(things.list, {"filters": each})) for each in (own, everyones)] == [1, 0]
    assert [face(things.list_paginated, {"filters": each}).total for each in (own, everyones)] == [1, 0]
    assert [len(face(things.stream, {"filters": each})) for each in (own, everyones)] == [1, 0]
    assert [len(face(things.cursor_paginate, {"filters": each}).items) for each in (own, everyones)] == [1, 0]
    assert [face(things.aggregate, {"n": "count"}, each)[0]["n"] for each in (own, everyones)] == [1, 0]
    assert [len(face(things.values("id").list, {"filters": each})) for each in (own, everyones)] == [1, 0]


@pytest.mark.parametrize(("model", "way", "names"), WAYS, ids=["one step", "two steps"])
def test_what_is_loaded_counts_the_tenants_own_rows(
    face: Face, repositories: Any, model: Any, way: str, names: Any
) -> None:
    things = repositories(model)
    for thing in (face(things.get_by_id, 1, relationships=names), *face(things.list, {"relationships": names})):
        for step in way.split("."):
            thing = getattr(thing, step)
        assert thing.sales == 2
    sorted_by = face(things.cursor_paginate, {"sorts": [SortField(f"{way}.sales")], "cursor_pagination": {"limit": 1}})
    assert [each.id for each in sorted_by.items] == [1]


def test_changes_count_the_tenants_own_rows(face: Face, repositories: Any) -> None:
    clerks = repositories(Clerk)
    assert face(clerks.update_where, [QueryFilter("shop.sales", value=5)], {"shop_id": 1}) == 0
    assert face(clerks.delete_where, [QueryFilter("shop.best", value=5)]) == 0
    assert face(clerks.update_where, [QueryFilter("shop.sales", value=2)], {"shop_id": 1}) == 1
