"""How much one call may ask for: what is more is a `ValidationError` that names it, whatever the database.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import JSON, TypeDecorator, func, select
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, column_property, mapped_column

from dotmac_database import (
    CursorPaginationParams,
    DatabasePaginator,
    QueryFilter,
    SortField,
    TenantMixin,
    ValidationError,
    all_of,
    any_of,
    none_of,
)
from dotmac_database.testing import AsyncMockRepository, MockRepository
from tests.conftest import Face
from tests.models import Post, User


class Base(DeclarativeBase):
    """The tables that are private in part."""


class Wrapped(TypeDecorator[Any]):
    """JSON by a type of the user's own, which converts values itself."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value


class Employee(TenantMixin, Base):
    __tablename__ = "employees"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    salary: Mapped[int | None] = mapped_column(info={"private": True})
    pin: Mapped[str | None] = mapped_column(info={"private": True})
    notes: Mapped[Any] = mapped_column(Wrapped, nullable=True)

    @hybrid_property
    def yearly(self) -> Any:
        return self.salary

    @yearly.inplace.expression
    @classmethod
    def _yearly(cls) -> Any:
        return cls.salary * 12


Employee.shouted = column_property(func.upper(Employee.__table__.c.name))  # type: ignore[attr-defined]


class Secret(Base):
    """Whose key itself is private."""

    __tablename__ = "secrets"

    token: Mapped[str] = mapped_column(primary_key=True, info={"private": True})
    name: Mapped[str]


@pytest.fixture
def users(face: Face) -> Iterator[Any]:
    """The users of tenant a."""
    with face.session() as session:
        yield face.repository(session, User, "a")


@pytest.fixture(params=[MockRepository, AsyncMockRepository])
def mock(request: pytest.FixtureRequest) -> Any:
    """The users of tenant a in a mock."""
    return request.param(User, "a")


@pytest.fixture
def private(face: Face) -> Iterator[Callable[..., Any]]:
    """Makes repositories of the classes that are private in part."""
    Base.metadata.create_all(face.database.engine)
    with face.session() as session:
        yield lambda model, tenant=None: face.repository(session, model, tenant)
    Base.metadata.drop_all(face.database.engine)


def nested(levels: int, *, by: str = "dict", end: Any = 1) -> Any:
    value: Any = end
    for level in range(levels):
        listed = by == "list" or (by == "mixed" and level % 2)
        value = [value] if listed else {"a": value}
    return value


F = QueryFilter
SCORE = F("score", "gt", 1)


# -- filters and sorts -----------------------------------------------------------------------------------------------


def many(count: int) -> dict[str, list[Any]]:
    """Some filters, flat and in groups of every kind."""
    return {
        "flat": [SCORE] * count,
        "dicts": [{"field": "score", "operator": "gt", "value": 1}] * count,
        "any": [any_of(*[SCORE] * count)],
        "none": [none_of(*[SCORE] * count)],
        "halves": [any_of(*[SCORE] * (count // 2)), all_of(*[SCORE] * (count - count // 2))],
        "groups": [all_of(SCORE)] * (count // 2 + 1),
        "empty groups": [all_of()] * count,
        "tree": [any_of(*[all_of(*[SCORE] * 20)] * (count // 20 + 1))],
    }


READS: dict[str, Callable[[Any, Any], tuple[Any, ...]]] = {
    "list": lambda rows, filters: (rows.list, {"filters": filters}),
    "count": lambda rows, filters: (rows.count, filters),
    "first": lambda rows, filters: (rows.first, {"filters": filters}),
    "list_paginated": lambda rows, filters: (rows.list_paginated, {"filters": filters}),
    "cursor_paginate": lambda rows, filters: (rows.cursor_paginate, {"filters": filters}),
    "stream": lambda rows, filters: (rows.stream, {"filters": filters}),
    "update_where": lambda rows, filters: (rows.update_where, filters, {"score": 2}),
    "delete_where": lambda rows, filters: (rows.delete_where, filters),
    "values": lambda rows, filters: (rows.values("name").list, {"filters": filters}),
}


@pytest.mark.parametrize("kind", list(many(1)))
def test_too_many_filters_are_refused(face: Face, users: Any, kind: str) -> None:
    for count in (501, 40_000):
        with pytest.raises(ValidationError, match="500 filters") as refused:
            face(users.list, {"filters": many(count)[kind]})
        assert len(str(refused.value)) < 300


@pytest.mark.parametrize("read", list(READS))
def test_whatever_takes_filters_refuses_too_many(face: Face, users: Any, read: str) -> None:
    with pytest.raises(ValidationError, match="500 filters"):
        face(*READS[read](users, [SCORE] * 501))


@pytest.mark.parametrize("kind", ["flat", "dicts", "any", "none", "halves"])
def test_as_many_as_may_be_are_taken(face: Face, users: Any, kind: str) -> None:
    face(users.create, {"name": "one", "score": 5})
    found = face(users.list, {"filters": many(498)[kind]})
    assert len(found) == (0 if kind == "none" else 1)


def test_statements_of_many_filters_are_not_kept(face: Face, users: Any) -> None:
    kept = users.traits.statements
    for read in ("list", "count", "list_paginated", "cursor_paginate"):
        face(*READS[read](users, [SCORE] * 20))
        before = len(kept)
        face(*READS[read](users, [SCORE] * 20))
        for count in range(21, 30):
            face(*READS[read](users, [SCORE] * count))
        assert len(kept) == before


def test_many_values_are_one_filter(face: Face, users: Any) -> None:
    face(users.create, {"name": "one", "score": 5})
    for values in ([*range(5_000)], [*range(10_000)]):
        assert face(users.count, [F("score", "in", values)]) == 1


MOMENT = datetime(2024, 1, 1, tzinfo=UTC)
MANY: dict[str, tuple[Any, Callable[[int], Any]]] = {
    "id": (UUID(int=7), lambda n: UUID(int=n)),
    "name": ("n7", lambda n: f"n{n}"),
    "email": ('n7"\\\U0001f600', lambda n: f'n{n}"\\\U0001f600'),
    "score": (7, lambda n: n),
    "ratio": (0.7, lambda n: n / 10),
    "balance": (Decimal("0.07"), lambda n: Decimal(n) / 100),
    "seen_at": (MOMENT + timedelta(seconds=7), lambda n: MOMENT + timedelta(seconds=n)),
    "born": (date(1970, 1, 8), lambda n: date(1970, 1, 1) + timedelta(days=n)),
    "wakes": (time(0, 0, 0, 7), lambda n: time(0, 0, 0, n)),
    "patience": (timedelta(seconds=7), lambda n: timedelta(seconds=n)),
    "settings.k": ("k7", lambda n: f"k{n}"),
    "settings.n": (7, lambda n: n),
}


@pytest.mark.parametrize("field", list(MANY))
def test_a_list_has_any_number_of_values(face: Face, users: Any, field: str) -> None:
    value, make = MANY[field]
    column, _, key = field.partition(".")
    others = {"id": UUID(int=10**9), "balance": Decimal(-1)}
    face(users.create, {"name": "other", **{name: other for name, other in others.items() if name == field}})
    made = face(users.create, {"name": "x", column: {key: value} if key else value})
    values = [make(n) for n in range(40_000)]
    without = [each for each in values if each != value]
    assert face(users.count, [F(field, "in", values)]) == 1
    assert face(users.count, [F(field, "in", without)]) == 0
    assert face(users.count, [F(field, "not_in", without)]) == (2 if field in ("id", "name", "balance") else 1)
    assert [user.id for user in face(users.list, {"filters": [F(field, "in", (*values, None))]})] == [made.id]
    assert face(users.count, [F(field, "not_in", [*without, None])]) == 0


def test_so_have_many_lists_together(face: Face, users: Any) -> None:
    face(users.create, {"name": "n7", "score": 7})
    lists = [F("score", "in", list(range(5_000))), F("name", "in", [f"n{n}" for n in range(9_000)])]
    assert face(users.count, [*lists * 10]) == 1
    assert face(users.count, [none_of(*lists * 10)]) == 0
    short = [F("score", "in", list(range(n, n + 200))) for n in range(200)]
    assert face(users.count, [any_of(*short)]) == 1


def test_bytes_are_listed_like_the_rest(face: Face, users: Any) -> None:
    face(users.create, {"name": "x", "avatar": b"7"})
    values = [str(n).encode() for n in range(40_000)]
    assert face(users.count, [F("avatar", "in", values)]) == 1
    assert face(users.count, [F("avatar", "not_in", values)]) == 0


def test_so_it_has_through_relationships_and_on_guarded_sessions(face: Face) -> None:
    names = [f"n{n}" for n in range(40_000)]
    with face.guarded() as session:
        user = face(face.repository(session, User, "a").create, {"name": "n7"})
        posts = face.repository(session, Post, "a")
        face(posts.create, {"title": "t", "author_id": user.id})
        assert face(posts.count, [F("author.name", "in", names)]) == 1
        assert face(posts.count, [any_of(F("author.name", "in", names[8:]), F("title", "in", names))]) == 0
        assert face(posts.update_where, [F("author.name", "in", names)], {"title": "u"}) == 1


@pytest.mark.parametrize("make", [any_of, all_of, none_of])
@pytest.mark.parametrize("depth", [21, 400, 5_000])
def test_groups_nest_only_so_deep(face: Face, users: Any, make: Any, depth: int) -> None:
    group: Any = SCORE
    for _ in range(depth):
        group = make(group)
    with pytest.raises(ValidationError, match=r"deep|more than 500"):
        face(users.list, {"filters": [group]})


@pytest.mark.parametrize("depth", [21, 200, 900])
def test_so_do_dicts_of_them(face: Face, users: Any, depth: int) -> None:
    group: Any = {"field": "score", "value": 1}
    for _ in range(depth):
        group = {"mode": "any", "members": [group]}
    with pytest.raises(ValidationError):
        face(users.list, {"filters": [group]})


@pytest.mark.parametrize("count", [51, 10_000])
@pytest.mark.parametrize("method", ["list", "list_paginated", "cursor_paginate", "stream", "first"])
def test_too_many_sorts_are_refused(face: Face, users: Any, method: str, count: int) -> None:
    sorts = [SortField(f"settings.k{number}") for number in range(count)]
    with pytest.raises(ValidationError, match="50 fields"):
        face(getattr(users, method), {"sorts": sorts})


@pytest.mark.parametrize(
    "path",
    [
        "settings." + ".".join("a" * 65),
        "posts.author." * 6 + "name",
        "posts.author." * 5_000 + "name",
        "posts.author." * 6 + "posts",
        "x" * 1_000_000,
        "name" * 200,
        "settings." + "x" * 1_000,
    ],
)
@pytest.mark.parametrize("use", ["filter", "sort"])
def test_a_path_is_only_so_long(face: Face, users: Any, path: str, use: str) -> None:
    options = {"filters": [F(path, "is_null")]} if use == "filter" else {"sorts": [SortField(path)]}
    with pytest.raises(ValidationError) as refused:
        face(users.list, options)
    assert len(str(refused.value)) < 1_000
    assert len(refused.value.field or "") <= 500


def test_an_unknown_field_is_named_in_short(face: Face, users: Any) -> None:
    for name in ("nmae" * 100_000, "nmae"):
        with pytest.raises(ValidationError, match="has no field") as refused:
            face(users.create, {"name": "x", name: 1})
        assert len(str(refused.value)) < 1_000
    assert "did you mean 'name'" in str(refused.value)


# -- JSON ------------------------------------------------------------------------------------------------------------

KEY = UUID(int=1)
WRITES: dict[str, Callable[[Any, Any], tuple[Any, ...]]] = {
    "create": lambda rows, value: (rows.create, {"name": "x", "settings": value}),
    "bulk_create": lambda rows, value: (rows.bulk_create, [{"name": "y"}, {"name": "x", "settings": value}]),
    "upsert": lambda rows, value: (rows.upsert, {"name": "x", "email": "e", "settings": value}, ["email"]),
    "bulk_upsert": lambda rows, value: (rows.bulk_upsert, [{"name": "x", "email": "e", "settings": value}], ["email"]),
    "update": lambda rows, value: (rows.update, KEY, {"settings": value}),
    "bulk_update": lambda rows, value: (rows.bulk_update, [{"id": KEY, "settings": value}]),
    "update_where": lambda rows, value: (rows.update_where, [F("name", value="first")], {"settings": value}),
    "contains": lambda rows, value: (rows.list, {"filters": [F("settings", "contains", value)]}),
    "contained_by": lambda rows, value: (rows.list, {"filters": [F("settings", "contained_by", value)]}),
    "overlaps": lambda rows, value: (rows.list, {"filters": [F("settings", "overlaps", [value])]}),
    "eq": lambda rows, value: (rows.list, {"filters": [F("settings.theme", value=value)]}),
    "in": lambda rows, value: (rows.list, {"filters": [F("settings.theme", "in", [value])]}),
}
STORING = [name for name in WRITES if name not in ("contains", "contained_by", "overlaps", "eq", "in")]

DEEP: dict[str, Any] = {
    **{f"{by} {levels}": nested(levels, by=by) for by in ("dict", "list", "mixed") for levels in (65, 255, 5_000)},
    "beside": [nested(3), {"a": [], "b": nested(64)}, 1],
    "in brackets of a text": ["[" * 100, nested(64)],
}
HELD: list[Any] = []
HELD.append(HELD)


@pytest.mark.parametrize("kind", list(DEEP))
@pytest.mark.parametrize("write", list(WRITES))
def test_json_nests_only_so_deep(face: Face, users: Any, write: str, kind: str) -> None:
    face(users.create, {"id": KEY, "name": "first"})
    with pytest.raises(ValidationError, match=r"64 levels|text, a number") as refused:
        face(*WRITES[write](users, DEEP[kind]))
    assert (refused.value.field or "").startswith("settings")
    assert [user.settings for user in face(users.list)] == [None]


@pytest.mark.parametrize("by", ["dict", "list", "mixed"])
@pytest.mark.parametrize("write", STORING)
def test_as_deep_as_may_be_is_stored_and_read(face: Face, users: Any, write: str, by: str) -> None:
    face(users.create, {"id": KEY, "name": "first"})
    value = nested(64, by=by, end="[[[{{{" * 30)
    face(*WRITES[write](users, value))
    assert value in [user.settings for user in face(users.list)]


@pytest.mark.parametrize(
    "value",
    [
        HELD,
        {"a": HELD},
        math.nan,
        [math.inf],
        {"a": -math.inf},
        "\ud800",
        {"\udfff": 1},
        ["\ud83d"],
        "a\x00b",
        {"a\x00": 1},
        {1, 2},
        b"x",
        {(1, 2): 3},
        [object],
    ],
    ids=repr,
)
@pytest.mark.parametrize("write", STORING)
def test_what_is_no_json_is_refused_by_name(face: Face, users: Any, write: str, value: Any) -> None:
    face(users.create, {"id": KEY, "name": "first"})
    with pytest.raises(ValidationError) as refused:
        face(*WRITES[write](users, value))
    assert refused.value.field == "settings"
    assert [user.settings for user in face(users.list)] == [None]


def test_a_mock_refuses_the_same(face: Face, mock: Any) -> None:
    if face.is_async is not isinstance(mock, AsyncMockRepository):
        return
    face(mock.create, {"id": KEY, "name": "first"})
    calls: list[Any] = [WRITES[write](mock, DEEP[kind]) for write in WRITES for kind in ("dict 65", "list 5000")]
    calls += [WRITES[write](mock, math.nan) for write in STORING]
    calls += [READS[read](mock, [SCORE] * 501) for read in READS]
    calls += [(mock.list, {"filters": [F("posts.author." * 6 + "name", value=1)]})]
    for call in calls:
        with pytest.raises(ValidationError):
            face(*call)
    assert [user.settings for user in face(mock.list)] == [None]


@pytest.mark.parametrize("value", ["\U0001f600", {"\U0001f600": ["é", "\\u0000", "\\ud800"]}, "\\", '"', 1e300, 2**70])
def test_what_only_looks_like_it_is_stored(face: Face, users: Any, value: Any) -> None:
    made = face(users.create, {"name": "x", "settings": value})
    assert face(users.get_by_id, made.id).settings == value


@pytest.mark.parametrize("levels", [65, 5_000])
def test_a_type_of_the_users_own_is_held_to_it_too(face: Face, private: Any, levels: int) -> None:
    rows = private(Employee, "a")
    with pytest.raises(ValidationError, match="notes takes a JSON value of at most 64 levels"):
        face(rows.create, {"name": "x", "notes": nested(levels)})
    assert face(rows.create, {"name": "x", "notes": nested(64)}).notes == nested(64)


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "x\udfffy"])
@pytest.mark.parametrize("field", ["name", "email"])
def test_what_is_no_text_is_refused_by_name(face: Face, users: Any, field: str, text: str) -> None:
    for call in (
        (users.create, {"name": "x", field: text}),
        (users.bulk_create, [{"name": "x", field: text}]),
        (users.upsert, {"name": "x", "email": "e", field: text}, ["email"]),
        (users.update_where, [F("name", value="x")], {field: text}),
        (users.list, {"filters": [F(field, value=text)]}),
        (users.list, {"filters": [F(field, "in", [text])]}),
        (users.list, {"filters": [F(field, "ilike", text)]}),
        (users.list, {"filters": [F(field, "search", text)]}),
        (users.get_by_field, field, text),
    ):
        with pytest.raises(ValidationError) as refused:
            face(*call)
        assert refused.value.field == field


# -- private columns -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sorts", "refused"),
    [
        ([SortField("salary")], "salary"),
        ([SortField("name"), SortField("salary")], "salary"),
        ([SortField("pin", by="folded")], "pin"),
        ([SortField("yearly")], "yearly"),
        ([SortField("name")], None),
        ([SortField("shouted")], None),
        ([], None),
    ],
)
def test_a_cursor_carries_no_private_value(face: Face, private: Any, sorts: Any, refused: str | None) -> None:
    rows = private(Employee, "a")
    face(rows.bulk_create, [{"name": f"n{number}", "salary": 111 * number, "pin": "p"} for number in range(4)])
    options = {"sorts": sorts, "cursor_pagination": {"limit": 2}}
    if refused is None:
        assert face(rows.cursor_paginate, options).next_cursor
        return
    with pytest.raises(ValidationError, match="private") as caught:
        face(rows.cursor_paginate, options)
    assert caught.value.field == refused
    # All else is the programmer's own, who looks a row up by its secret.
    assert len(face(rows.list, {"sorts": sorts})) == 4
    assert len(face(rows.list_paginated, {"sorts": sorts}).items) == 4
    assert face(rows.get_by_field, "salary", 333).name == "n3"


@pytest.mark.parametrize("field", ["salary", "yearly", "pin"])
def test_neither_do_those_of_the_paginators(face: Face, private: Any, field: str) -> None:
    with pytest.raises(ValidationError, match="private"):
        face(
            private(Employee, "a").cursor_paginate,
            {"cursor_pagination": CursorPaginationParams(cursor_field=field)},
        )
    if not face.is_async:
        with Session(face.engine) as session, pytest.raises(ValidationError, match="private"):
            DatabasePaginator.cursor_paginate_query(session, select(Employee), field, 2)


def test_a_private_key_leaves_no_order_for_a_cursor(face: Face, private: Any) -> None:
    rows = private(Secret)
    face(rows.bulk_create, [{"token": f"t{number}", "name": "n"} for number in range(3)])
    for options in ({}, {"sorts": [SortField("name")]}):
        with pytest.raises(ValidationError, match="token is private"):
            face(rows.cursor_paginate, {**options, "cursor_pagination": {"limit": 2}})
    assert len(face(rows.stream, None, 2)) == 3


def test_a_message_shows_no_private_value_and_suggests_no_private_name(face: Face, private: Any) -> None:
    rows = private(Employee, "a")
    calls: list[Any] = [
        (rows.list, {"filters": [F("salary", value="hunter2")]}),
        (rows.list, {"filters": [F("salary", "in", ["hunter2"])]}),
        (rows.list, {"filters": [F("pin", value={"hunter2": 1})]}),
        (rows.create, {"name": "x", "salary": "hunter2"}),
        (rows.list, {"filters": [F("salaryy", value=1)]}),
        (rows.list, {"sorts": [SortField("zzz")]}),
        (rows.create, {"name": "x", "salry": 1}),
        (rows.create, {"name": "x", "zzz": 1}),
    ]
    for place, call in enumerate(calls):
        with pytest.raises(ValidationError) as refused:
            face(*call)
        assert "hunter2" not in str(refused.value)
        if place >= 4:
            assert "'salary'" not in str(refused.value)
            assert "salary," not in str(refused.value)
            assert " pin" not in str(refused.value)
