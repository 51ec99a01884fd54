"""Any order of any columns, walked any way while rows come, go and change: each page is what the rows are then.

The reference is plain Python: rows in a dict, sorted by a key of their own; a cursor is a place among them. Text is
ranked by the database, whose collation is its own.

Without ``from __future__ import annotations``: SQLModel reads a relationship's class from the annotation itself.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cmp_to_key
from typing import Any, Optional
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import DateTime, Enum, ForeignKey, MetaData, Numeric, String, literal, select, union_all
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlmodel import Field, Relationship, SQLModel

from dotmac_database import QueryFilter, SortField, SortOrder
from tests.conftest import Face

DESC = SortOrder.DESC
METADATA = MetaData()


class Base(DeclarativeBase):
    metadata = METADATA


class Grade(enum.Enum):
    """Declared in no alphabet's order."""

    POOR = "poor"
    GOOD = "good"
    BEST = "best"


class Shelf(Base):
    __tablename__ = "meanwhile_shelves"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str | None]
    rank: Mapped[int]


class Book(Base):
    """A composite key, and every type that has an order."""

    __tablename__ = "meanwhile_books"

    room: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    code: Mapped[UUID] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(20))
    note: Mapped[str | None]
    grade: Mapped[Grade]
    mood: Mapped[Grade | None] = mapped_column(Enum(Grade, native_enum=False, name="meanwhile_mood"))
    pages: Mapped[int]
    weight: Mapped[float | None]
    price: Mapped[Decimal | None] = mapped_column(Numeric(8, 3))
    seen_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    printed: Mapped[date]
    opens: Mapped[time | None]
    lent: Mapped[timedelta | None]
    fragile: Mapped[bool]
    shelf_id: Mapped[int | None] = mapped_column(ForeignKey("meanwhile_shelves.id"))
    remark: Mapped[str] = mapped_column(default="")

    shelf: Mapped[Shelf | None] = relationship()


class Model(SQLModel):
    metadata = METADATA


class Band(Model, table=True):
    __tablename__ = "meanwhile_bands"

    id: int | None = Field(default=None, primary_key=True)
    label: str | None = None
    rank: int


class Record(Model, table=True):
    """The same of SQLModel, with a key of one column."""

    __tablename__ = "meanwhile_records"

    code: UUID = Field(primary_key=True)
    title: str
    note: str | None = None
    grade: Grade
    pages: int
    weight: float | None = None
    price: Decimal | None = Field(default=None, max_digits=8, decimal_places=3)
    seen_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    printed: date
    fragile: bool
    shelf_id: int | None = Field(default=None, foreign_key="meanwhile_bands.id")
    remark: str = ""
    shelf: Optional[Band] = Relationship()  # noqa: UP045 - SQLModel takes a class alone


WORDS = ["", "a", "B", "b", "é", "ab", "a b", "Z", "_", "ß"]
MOMENT = datetime(2024, 1, 1, tzinfo=UTC)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "title": st.sampled_from(WORDS),
    "note": st.sampled_from([None, *WORDS[:4]]),
    "grade": st.sampled_from(Grade),
    "mood": st.sampled_from([None, *Grade]),
    "pages": st.integers(-1, 1),
    "weight": st.sampled_from([None, 0.1, 0.1 + 2**-54, 0.30000000000000004, -1e300, 5e-324]),
    "price": st.sampled_from([None, Decimal("0.001"), Decimal("0.002"), Decimal("-99999.999"), Decimal("1.5")]),
    "seen_at": st.sampled_from([None, *(MOMENT + timedelta(microseconds=number) for number in range(3))]),
    "printed": st.sampled_from([date(1, 1, 1), date(2024, 2, 29), date(9999, 12, 31)]),
    "opens": st.sampled_from([None, time(6, 30), time(6, 30, 0, 1)]),
    "lent": st.sampled_from([None, timedelta(0), timedelta(days=40), timedelta(microseconds=1)]),
    "fragile": st.booleans(),
    "shelf_id": st.sampled_from([None, 1, 2, 3]),
}
SORTABLE = [*(name for name in FIELDS if name != "shelf_id"), "shelf.label", "shelf.rank", "code", "room", "shelf_id"]
RECORDED = [name for name in SORTABLE if name not in ("mood", "opens", "lent", "room")]
QUICK = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return METADATA


# -- the reference -------------------------------------------------------------------------------------------------


@dataclass
class World:
    """What the database should hold, and its order in plain Python."""

    face: Face
    session: Any
    model: type[Any]
    text_rank: dict[str, int]
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    shelves: dict[int, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.books = self.face.repository(self.session, self.model, cursor_key="a key of the tests")
        self.shelf_model = Shelf if self.model is Book else Band
        self.of_shelves = self.face.repository(self.session, self.shelf_model)

    def clear(self) -> None:
        self.face(self.books.delete_where, None, allow_all=True)
        self.face(self.of_shelves.delete_where, None, allow_all=True)
        self.rows.clear()
        self.shelves = {
            1: {"id": 1, "label": "b", "rank": 1},
            2: {"id": 2, "label": None, "rank": 1},
            3: {"id": 3, "label": "a", "rank": -1},
        }
        self.face(self.of_shelves.bulk_create, list(self.shelves.values()), returning=False)
        self.session.expunge_all()

    def key(self, number: int) -> Any:
        code = UUID(int=(number * 40_503) % 65_536 << 96)
        return (number % 2, code) if self.model is Book else code

    def row(self, number: int, drawn: dict[str, Any]) -> dict[str, Any]:
        code = UUID(int=(number * 40_503) % 65_536 << 96)
        columns = self.model.__table__.columns.keys()
        kept = {name: value for name, value in drawn.items() if name in columns}
        return {**kept, "code": code, **({"room": number % 2} if self.model is Book else {})}

    def add(self, number: int, drawn: dict[str, Any]) -> None:
        if number not in self.rows:
            self.rows[number] = self.row(number, drawn)
            self.face(self.books.create, self.rows[number])

    def fill(self, many: list[dict[str, Any]]) -> None:
        self.clear()
        self.rows = {number: self.row(number, drawn) for number, drawn in enumerate(many)}
        if many:
            self.face(self.books.bulk_create, list(self.rows.values()), returning=False)

    def remove(self, number: int) -> None:
        if self.rows.pop(number, None) is not None:
            assert self.face(self.books.delete, self.key(number))

    def change(self, number: int, drawn: dict[str, Any]) -> None:
        if number in self.rows:
            new = {name: value for name, value in drawn.items() if name in self.rows[number]}
            self.rows[number] |= new
            self.face(self.books.update, self.key(number), new)

    def relabel(self, shelf: int, label: str | None) -> None:
        self.shelves[shelf]["label"] = label
        self.face(self.of_shelves.update, shelf, {"label": label})

    def value(self, row: dict[str, Any], name: str) -> Any:
        """What a row is ordered by."""
        if name.startswith("shelf."):
            shelf = self.shelves.get(row["shelf_id"])
            value = None if shelf is None else shelf[name.removeprefix("shelf.")]
        else:
            value = row[name]
        if isinstance(value, str):
            return self.text_rank[value]
        return list(Grade).index(value) if isinstance(value, Grade) else value

    def place(self, row: dict[str, Any], order: list[SortField]) -> tuple[Any, ...]:
        return tuple(self.value(row, sort.field) for sort in order)

    def sorted(self, order: list[SortField]) -> list[tuple[int, tuple[Any, ...]]]:
        placed = [(number, self.place(row, order)) for number, row in self.rows.items()]
        return sorted(placed, key=cmp_to_key(lambda a, b: compare(a[1], b[1], order)))

    def whole(self, sorts: list[SortField]) -> list[int]:
        return [number for number, _ in self.sorted(self.total(sorts))]

    def total(self, sorts: list[SortField]) -> list[SortField]:
        """The sorts with the primary key behind them."""
        first: dict[str, SortField] = {}
        for sort in sorts:
            first.setdefault(sort.field, sort)
        last = list(first.values())[-1].order if first else SortOrder.ASC
        for name in ("room", "code") if self.model is Book else ("code",):
            first.setdefault(name, SortField(name, last))
        return list(first.values())

    def numbers(self, items: Any) -> list[int]:
        known = {self.row(number, {})["code"]: number for number in range(60)}
        return [known[item.code] for item in items]

    def page(self, sorts: list[SortField], limit: int, cursor: str | None) -> Any:
        return self.face(
            self.books.cursor_paginate, {"sorts": sorts, "cursor_pagination": {"limit": limit, "cursor": cursor}}
        )


def compare(one: tuple[Any, ...], other: tuple[Any, ...], order: list[SortField]) -> int:
    for a, b, sort in zip(one, other, order, strict=True):
        descending = sort.order is DESC
        first = sort.nulls == "first" if sort.nulls else descending
        if a is None or b is None:
            if (a is None) != (b is None):
                return -1 if (a is None) == first else 1
        elif a != b:
            return -1 if (a < b) != descending else 1
    return 0


@pytest.fixture(params=[Book, Record], ids=lambda model: model.__name__)
def world(request: pytest.FixtureRequest, face: Face) -> Iterator[World]:
    listed = union_all(*(select(literal(word, String()).label("word")) for word in WORDS)).subquery()
    with face.session() as session:
        ranked = face(session.scalars, select(listed.c.word).order_by(listed.c.word))
        rank = {word: place for place, word in enumerate(ranked)}
        face(session.rollback)
        yield World(face, session, request.param, rank)


ROW = st.fixed_dictionaries(FIELDS)
ROWS = st.lists(ROW, max_size=12)


def orders(names: list[str]) -> st.SearchStrategy[list[SortField]]:
    nulls = st.sampled_from([None, "first", "last"])
    return st.lists(st.builds(SortField, st.sampled_from(names), st.sampled_from(SortOrder), nulls), max_size=6)


SORTS = {Book: orders(SORTABLE), Record: orders(RECORDED)}
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(12, 40), ROW),
        st.tuples(st.just("remove"), st.integers(0, 20)),
        st.tuples(st.just("change"), st.integers(0, 20), ROW),
        st.tuples(st.just("relabel"), st.integers(1, 3), st.sampled_from([None, "a", "b", "Z"])),
    ),
    max_size=3,
)


# -- rows that stay ------------------------------------------------------------------------------------------------


@QUICK
@given(data=st.data(), many=ROWS, limit=st.integers(1, 5))
def test_pages_forward_are_the_whole_backward_its_mirror_and_numbered_its_slices(
    world: World, data: st.DataObject, many: list[dict[str, Any]], limit: int
) -> None:
    sorts = data.draw(SORTS[world.model])
    world.fill(many)
    whole = world.whole(sorts)
    assert world.numbers(world.face(world.books.list, {"sorts": sorts})) == whole
    assert world.numbers(world.face(world.books.stream, {"sorts": sorts}, limit)) == whole
    slices = [whole[start : start + limit] for start in range(0, len(whole), limit)] or [[]]
    pages = [world.page(sorts, limit, None)]
    while pages[-1].next_cursor:
        pages.append(world.page(sorts, limit, pages[-1].next_cursor))
        assert len(pages) <= len(slices)
    assert [world.numbers(page.items) for page in pages] == slices
    assert [page.has_prev for page in pages] == [False] + [True] * (len(slices) - 1)
    back = [pages[-1]]
    while back[-1].prev_cursor:
        back.append(world.page(sorts, limit, back[-1].prev_cursor))
        assert len(back) <= len(slices)
    assert [world.numbers(page.items) for page in reversed(back)] == slices
    assert [page.has_next for page in reversed(back)] == [True] * (len(slices) - 1) + [False]
    for number in range(1, len(slices) + 2):
        asked = {"sorts": sorts, "pagination": {"page": number, "per_page": limit}}
        page = world.face(world.books.list_paginated, asked)
        assert world.numbers(page.items) == (slices[number - 1 : number] or [[]])[0]
        assert (page.total, page.has_next) == (len(whole), number * limit < len(whole))


# -- rows that come, go and change ---------------------------------------------------------------------------------


@QUICK
@given(data=st.data(), many=ROWS, limit=st.integers(1, 4), backwards=st.booleans())
def test_a_row_that_stays_is_shown_once_in_its_place_while_others_come_and_go(
    world: World, data: st.DataObject, many: list[dict[str, Any]], limit: int, backwards: bool
) -> None:
    sorts = data.draw(SORTS[world.model])
    world.fill(many)
    page = world.page(sorts, limit, None)
    shown = [] if backwards else world.numbers(page.items)
    before = world.whole(sorts)
    if backwards:  # from beyond the end, where a walk forward has come to
        while page.next_cursor:
            page = world.page(sorts, limit, page.next_cursor)
        shown = world.numbers(page.items)
    moved: set[int] = set()
    for _ in range(60):
        cursor = page.prev_cursor if backwards else page.next_cursor
        if cursor is None:
            break
        for change in data.draw(CHANGES.filter(lambda each: all(kind[0] != "relabel" for kind in each))):
            if change[0] == "change":  # what no order knows of
                world.change(change[1], {"remark": change[2]["title"]})
                continue
            moved.add(change[1])
            getattr(world, change[0])(*change[1:])
        page = world.page(sorts, limit, cursor)
        found = world.numbers(page.items)
        shown = [*found, *shown] if backwards else [*shown, *found]
    assert page.prev_cursor is None if backwards else page.next_cursor is None
    assert {each for each in shown if shown.count(each) > 1} <= moved
    stable = [number for number in before if number not in moved]
    assert [number for number in shown if number in set(stable)] == stable


@dataclass
class Spot:
    """A place in the order where a cursor stands, as it was when the cursor was made."""

    place: tuple[Any, ...]
    inclusive: bool


@QUICK
@given(data=st.data(), many=ROWS, limit=st.integers(1, 4), steps=st.lists(st.booleans(), max_size=8))
def test_each_page_is_what_stands_beyond_its_cursor_by_then_whichever_way_one_turns(
    world: World, data: st.DataObject, many: list[dict[str, Any]], limit: int, steps: list[bool]
) -> None:
    sorts = data.draw(SORTS[world.model])
    order = world.total(sorts)
    world.fill(many)
    page = world.page(sorts, limit, None)
    ahead, behind = spots(world, order, world.sorted(order)[:limit], None)
    assert world.numbers(page.items) == world.whole(sorts)[:limit]
    for forwards in steps:
        for change in data.draw(CHANGES):
            getattr(world, change[0])(*change[1:])
        cursor, spot = (page.next_cursor, ahead) if forwards else (page.prev_cursor, behind)
        if cursor is None:
            continue
        assert spot is not None
        page = world.page(sorts, limit, cursor)
        expected, more = beyond(world, order, spot, limit, forwards)
        assert world.numbers(page.items) == [number for number, _ in expected]
        assert (page.has_next if forwards else page.has_prev) is more
        if expected:
            assert (page.has_prev if forwards else page.has_next) is True
        ahead, behind = spots(world, order, expected, spot)


def beyond(world: World, order: list[SortField], spot: Spot, limit: int, forwards: bool) -> tuple[list[Any], bool]:
    """The rows next to a spot by now, and whether there are more behind them."""
    sign = 1 if forwards else -1
    placed = [
        (number, place)
        for number, place in world.sorted(order)
        if compare(place, spot.place, order) * sign > (-1 if spot.inclusive else 0)
    ]
    near = placed[:limit] if forwards else placed[-limit:]
    return near, len(placed) > limit


def spots(world: World, order: list[SortField], shown: list[Any], spot: Spot | None) -> tuple[Any, Any]:
    """Where the cursors of a page stand: at its last and its first row; of an empty one, where it was asked from."""
    if shown:
        return Spot(shown[-1][1], False), Spot(shown[0][1], False)
    turned = None if spot is None else Spot(spot.place, not spot.inclusive)
    return turned, turned


@settings(QUICK, max_examples=15)
@given(data=st.data(), many=ROWS, limit=st.integers(1, 4))
def test_pages_of_a_filter_are_the_whole_of_it(
    world: World, data: st.DataObject, many: list[dict[str, Any]], limit: int
) -> None:
    sorts = data.draw(SORTS[world.model])
    world.fill(many)
    filters = [QueryFilter("pages", "gte", 0), QueryFilter("shelf.rank", "eq", 1)]
    fits = {
        number
        for number, row in world.rows.items()
        if row["pages"] >= 0 and row["shelf_id"] is not None and world.shelves[row["shelf_id"]]["rank"] == 1
    }
    whole = [number for number in world.whole(sorts) if number in fits]
    shown: list[int] = []
    cursor = None
    while True:
        asked = {"sorts": sorts, "filters": filters, "cursor_pagination": {"limit": limit, "cursor": cursor}}
        page = world.face(world.books.cursor_paginate, asked)
        shown += world.numbers(page.items)
        cursor = page.next_cursor
        if cursor is None:
            break
    assert shown == whole
