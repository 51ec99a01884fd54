"""Hybrids, synonyms and column properties as fields: in filters, sorts, measures and plain values.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import ForeignKey, MetaData, String, func, select
from sqlalchemy.ext.hybrid import Comparator, hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, synonym

from dotmac_database import (
    CursorPaginationParams,
    FilterOperator,
    QueryFilter,
    SortField,
    SortOrder,
    TenantMixin,
    ValidationError,
)
from tests.conftest import Face


class Base(DeclarativeBase):
    """The tables of this module."""


class AnyCase(Comparator[str]):  # noqa: PLW1641 - SQL has no hash
    """Compares without regard to case, and nothing else."""

    def __eq__(self, other: object) -> Any:
        return func.lower(self.__clause_element__()) == func.lower(other)


class ByPython(Comparator[str]):  # noqa: PLW1641
    """Takes Python's values alone."""

    def __eq__(self, other: object) -> Any:
        text: Any = other
        return self.__clause_element__() == text.lower()


class Line(TenantMixin, Base):
    __tablename__ = "expression_lines"

    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("expression_items.id"))


class Item(TenantMixin, Base):
    __tablename__ = "expression_items"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    size: Mapped[int]
    title = synonym("name")

    @hybrid_property
    def double(self) -> int:
        return self.size * 2

    @hybrid_property
    def label(self) -> str:
        return f"{self.name}!"

    @hybrid_property
    def initial(self) -> str:
        return self.name[0]

    @hybrid_property
    def is_big(self) -> bool:
        return True if self.size > 3 else False  # noqa: SIM210 - Python asks for its truth

    @hybrid_property
    def words(self) -> list[str]:
        return self.name.split()

    @hybrid_property
    def anyhow(self) -> str:
        return self.name

    @anyhow.inplace.comparator
    @classmethod
    def _anyhow_comparator(cls) -> Any:
        return AnyCase(cls.name)

    @hybrid_property
    def lower(self) -> str:
        return self.name.lower()

    @lower.inplace.comparator
    @classmethod
    def _lower_comparator(cls) -> Any:
        return ByPython(cls.name)

    @hybrid_property
    def line_count(self) -> int:
        raise AttributeError("of SQL alone")

    @line_count.inplace.expression
    @classmethod
    def _line_count(cls) -> Any:
        return select(func.count(Line.id)).where(Line.item_id == cls.id).scalar_subquery()


Item.lines = column_property(
    select(func.count(Line.id)).where(Line.item_id == Item.id).correlate_except(Line).scalar_subquery()
)
Item.loud = column_property(func.upper(Item.name))
Item.root = column_property(func.sqrt(Item.size))

ROWS = [{"id": n + 1, "name": f"N{n}", "size": n % 4} for n in range(9)]
PYTHON_ALONE = ("label", "initial", "is_big", "words")
WORKING = ("title", "double", "anyhow", "lower", "line_count", "lines", "loud")


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture(autouse=True)
def filled(face: Face) -> None:
    with face.session() as session:
        session.add_all([Item(tenant_id="a", **row) for row in ROWS])
        face(session.flush)
        session.add_all([Line(tenant_id="a", item_id=n) for n in (1, 1, 2)])
        session.add_all([Line(tenant_id="b", item_id=n) for n in (1, 3, 3)])
        face(session.commit)


@pytest.fixture(params=[False, True], ids=["plain", "guarded"])
def repository(request: pytest.FixtureRequest, face: Face) -> Any:
    with face.guarded() if request.param else face.session() as session:
        yield face.repository(session, Item, "a")


def test_measures_are_confined_too(face: Face, repository: Any, request: pytest.FixtureRequest) -> None:
    if "guarded" in request.node.name:
        pytest.skip("The guard has measures of column properties of its own.")
    for name in ("line_count", "lines"):
        assert face(repository.aggregate, {"most": ("sum", name)}) == [{"most": 3}]
        assert face(repository.distinct_values, name) == [0, 1, 2]


class Bare(TenantMixin, Base):
    """A class whose hybrid alone asks other rows."""

    __tablename__ = "expression_bare"

    id: Mapped[int] = mapped_column(primary_key=True)

    @hybrid_property
    def others(self) -> int:
        raise AttributeError("of SQL alone")

    @others.inplace.expression
    @classmethod
    def _others(cls) -> Any:
        return select(func.count(Line.id)).where(Line.item_id == cls.id).scalar_subquery()


@pytest.mark.parametrize("guarded", [False, True])
def test_a_hybrid_that_asks_other_rows_is_confined(face: Face, guarded: bool) -> None:
    with face.session() as session:
        session.add_all([Bare(tenant_id="a", id=n) for n in (1, 2, 3)])
        face(session.commit)
    with face.guarded() if guarded else face.session() as session:
        bare = face.repository(session, Bare, "a")
        assert face(bare.count, [QueryFilter("others", value=0)]) == 1
        assert [row.id for row in face(bare.list, {"filters": [QueryFilter("others", value=2)]})] == [1]
        assert [row.id for row in face(bare.list, {"sorts": [SortField("others")]})] == [3, 2, 1]
        assert face(bare.values("others").list, {"sorts": [SortField("id")]}) == [{"others": n} for n in (2, 1, 0)]


def expected(name: str, row: dict[str, Any]) -> Any:
    lines = {1: 2, 2: 1}.get(row["id"], 0)
    return {
        "title": row["name"],
        "double": row["size"] * 2,
        "anyhow": row["name"],
        "lower": row["name"],
        "line_count": lines,
        "lines": lines,
        "loud": row["name"].upper(),
    }[name]


@pytest.mark.parametrize("name", PYTHON_ALONE)
def test_a_hybrid_of_python_alone_is_refused_by_name(face: Face, repository: Any, name: str) -> None:
    for ask in (
        lambda: face(repository.count, [QueryFilter(name, value="x")]),
        lambda: face(repository.list, {"sorts": [SortField(name)]}),
        lambda: face(repository.values(name).list),
        lambda: face(repository.distinct_values, name),
        lambda: face(repository.aggregate, {"most": ("max", name)}),
    ):
        with pytest.raises(ValidationError, match=f"Item.{name} is computed by Python alone") as refused:
            ask()
        assert refused.value.field == name


@pytest.mark.parametrize("name", WORKING)
def test_values_reads_it_within_the_tenant(face: Face, repository: Any, name: str) -> None:
    wanted = [{"id": row["id"], name: expected(name, row)} for row in ROWS]
    reads = repository.values("id", name)
    assert face(reads.list, {"sorts": [SortField("id")]}) == wanted
    assert face(reads.first, {"sorts": [SortField("id")]}) == wanted[0]
    assert face(reads.list_paginated, {"sorts": [SortField("id")]}).items == wanted
    alone = [{name: row[name]} for row in wanted]
    assert face(repository.values(name).list, {"sorts": [SortField("id")]}) == alone
    assert face(repository.values(name).stream, {"sorts": [SortField("id")]}, 2) == alone
    found, cursor = [], None
    for _ in range(20):
        page = face(reads.cursor_paginate, {"sorts": [SortField(name, SortOrder.DESC)], "cursor_pagination":
                    CursorPaginationParams(2, cursor)})  # fmt: skip
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == sorted(wanted, key=lambda row: (row[name], row["id"]), reverse=True)


@pytest.mark.parametrize("name", WORKING)
def test_it_streams(face: Face, repository: Any, name: str) -> None:
    for order in SortOrder:
        options = {"sorts": [SortField(name, order)]}
        assert face(repository.stream, options, 2) == face(repository.list, options)


def test_a_position_that_can_not_be_found_again_is_refused(face: Face, repository: Any) -> None:
    """PostgreSQL's REAL is read as a double that is not equal to it, and nothing says that it is one."""
    options = {"sorts": [SortField("root")]}
    assert [row.size for row in face(repository.list, options)] == sorted(row["size"] for row in ROWS)
    calls = (
        lambda: face(repository.stream, options, 2),
        lambda: face(repository.cursor_paginate, {**options, "cursor_pagination": CursorPaginationParams(2)}),
        lambda: face(repository.values("id").stream, options, 2),
    )
    for call in calls:
        if face.engine.dialect.name == "sqlite":
            call()
            continue
        with pytest.raises(ValidationError, match="root has no type") as refused:
            call()
        assert refused.value.field == "root"


@pytest.mark.parametrize("name", WORKING)
def test_it_sorts(face: Face, repository: Any, name: str) -> None:
    rows = face(repository.list, {"sorts": [SortField(name, SortOrder.DESC)]})
    wanted = sorted(ROWS, key=lambda row: (expected(name, row), row["id"]), reverse=True)
    assert [row.id for row in rows] == [row["id"] for row in wanted]


@pytest.mark.parametrize("name", [name for name in WORKING if name != "lower"])
def test_it_filters(face: Face, repository: Any, name: str) -> None:
    for row in ROWS:
        value = expected(name, row)
        wanted = {each["id"] for each in ROWS if expected(name, each) == value}
        found = face(repository.list, {"filters": [QueryFilter(name, value=value)]})
        assert {each.id for each in found} == wanted
        assert face(repository.count, [QueryFilter(name, value=value)]) == len(wanted)
        assert len(face(repository.values("id").list, {"filters": [QueryFilter(name, value=value)]})) == len(wanted)


def test_a_comparator_says_what_it_can(face: Face, repository: Any) -> None:
    assert face(repository.count, [QueryFilter("anyhow", value="n3")]) == 1
    unable = {
        FilterOperator.NE: "x",
        FilterOperator.GT: "x",
        FilterOperator.BETWEEN: ["a", "b"],
        FilterOperator.IN: ["x"],
        FilterOperator.IS_NULL: True,
    }
    for operator, value in unable.items():
        with pytest.raises(ValidationError, match=r"Item.anyhow: its comparator has no") as refused:
            face(repository.count, [QueryFilter("anyhow", operator, value)])
        assert (refused.value.field, refused.value.operator) == ("anyhow", operator.value)
    with pytest.raises(ValidationError, match=r"Item.lower: its comparator has no eq"):
        face(repository.count, [QueryFilter("lower", value="x")])


@pytest.mark.parametrize("name", ["nothing", "lines.more", "id.x"])
def test_values_refuses_what_is_no_field(face: Face, repository: Any, name: str) -> None:
    with pytest.raises(ValidationError):
        repository.values(name)
