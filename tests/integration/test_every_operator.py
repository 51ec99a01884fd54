"""Every operator on every type of column, with good, bad and hostile values: a right answer, or a `ValidationError`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import ARRAY, Computed, Integer, String
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import FilterOperator, QueryFilter, TenantMixin, ValidationError
from tests.conftest import Face
from tests.models import Status, User

Op = FilterOperator
MOMENT = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)

GOOD: dict[str, Any] = {
    "id": UUID(int=5),
    "name": "n5",
    "email": "5@x",
    "status": Status.ACTIVE,
    "score": 5,
    "ratio": 0.5,
    "balance": Decimal("5.25"),
    "settings": {"theme": "dark"},
    "settings.theme": "dark",
    "settings.size": 5,
    "seen_at": MOMENT,
    "born": date(2000, 1, 5),
    "wakes": time(6, 5),
    "patience": timedelta(seconds=5),
    "avatar": b"\x05",
    "active": True,
    "posts.title": "t",
    "posts": True,
}

HOSTILE: list[Any] = [
    None,
    "",
    " ",
    "x' OR '1'='1",
    "\x00",
    "\ud800",
    "🙂" * 50,
    "%",
    "\\",
    "_%\\",
    "[a-z]*?",
    "nan",
    "1e999",
    "2024-13-45",
    "true",
    0,
    -1,
    2**31,
    2**63,
    -(2**63) - 1,
    10**400,
    0.1,
    float("inf"),
    float("-inf"),
    float("nan"),
    Decimal("NaN"),
    Decimal("1e400"),
    True,
    b"",
    b"\xff\x00",
    datetime.min,  # noqa: DTZ901 - a naive one is UTC
    datetime.max,  # noqa: DTZ901 - as above
    datetime.min.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
    date.min,
    date.max,
    time.max,
    timedelta.max,
    timedelta.min,
    UUID(int=0),
    Status.NEW,
    [],
    [None],
    [1, "x", None],
    ["a", ["b"]],
    [{}],
    {},
    {"a": {"b": [1]}},
    {"theme": None},
    set(),
    {1, 2},
    (),
    (1, 2),
    ("b", "a"),
    (None, 1),
    range(3),
    object(),
    type,
    lambda: None,
    Ellipsis,
    1j,
    ["x"] * 10_001,
]


@pytest.fixture
def users(face: Face) -> Iterator[Any]:
    rows = [
        {
            "id": UUID(int=n),
            "name": f"n{n}",
            "email": f"{n}@x" if n % 2 else None,
            "status": list(Status)[n % 3],
            "score": n if n % 3 else None,
            "ratio": n / 10,
            "balance": Decimal(n) + Decimal("0.25"),
            "settings": {"theme": "dark" if n % 2 else "light", "size": n},
            "seen_at": MOMENT + timedelta(days=n - 5),
            "born": date(2000, 1, n),
            "wakes": time(6, n),
            "patience": timedelta(seconds=n),
            "avatar": bytes([n]),
            "active": n % 2 == 1,
        }
        for n in range(1, 9)
    ]
    with face.session() as session:
        users = face.repository(session, User, "a")
        face(users.bulk_create, rows)
        yield users


def asked(face: Face, rows: Any, field: str, operator: FilterOperator, value: Any) -> Any:
    """The keys that match, or what the refusal says."""
    try:
        return [row["id"] for row in face(rows.values("id").list, {"filters": [QueryFilter(field, operator, value)]})]
    except ValidationError as refused:
        return "refused" if field.partition(".")[0] in str(refused) else refused


@pytest.mark.parametrize("operator", Op)
def test_nothing_but_an_answer_or_a_refusal(face: Face, users: Any, operator: FilterOperator) -> None:
    for field in GOOD:
        for value in HOSTILE:
            found = asked(face, users, field, operator, value)
            assert found == "refused" or isinstance(found, list), (field, value, found)
    assert face(users.count) == 8


COMPARED = ("score", "ratio", "balance", "seen_at", "born", "wakes", "patience", "name", "id", "settings.size")


@pytest.mark.parametrize("field", COMPARED)
def test_good_values_compare_as_in_python(face: Face, users: Any, field: str) -> None:
    good = GOOD[field]
    rows = face(users.list, {"sorts": [{"field": "id"}]})

    def value(row: Any) -> Any:
        return row.settings["size"] if field == "settings.size" else getattr(row, field)

    known = [(row.id, value(row)) for row in rows if value(row) is not None]
    low, high = sorted([known[1][1], good])
    cases: dict[FilterOperator, tuple[Any, Any]] = {
        Op.EQ: (good, lambda v: v == good),
        Op.NE: (good, lambda v: v != good),
        Op.GT: (good, lambda v: v > good),
        Op.GTE: (good, lambda v: v >= good),
        Op.LT: (good, lambda v: v < good),
        Op.LTE: (good, lambda v: v <= good),
        Op.IN: ([good, known[0][1]], lambda v: v in (good, known[0][1])),
        Op.NOT_IN: ([good], lambda v: v != good),
        Op.BETWEEN: ([low, high], lambda v: low <= v <= high),
    }
    for operator, (given, matches) in cases.items():
        expected = [key for key, each in known if matches(each)]
        assert asked(face, users, field, operator, given) == expected, operator
    nulls = [row.id for row in rows if value(row) is None]
    assert asked(face, users, field, Op.IS_NULL, True) == nulls
    assert asked(face, users, field, Op.IS_NOT_NULL, None) == [key for key, _ in known]


# -- arrays and vectors, which are PostgreSQL's alone --------------------------------------------------------------


class Base(DeclarativeBase):
    """What only PostgreSQL has."""


class Document(TenantMixin, Base):
    __tablename__ = "documents"

    id: Mapped[int] = mapped_column(primary_key=True)
    tags: Mapped[list[str] | None] = mapped_column(ARRAY(String))
    numbers: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))
    body: Mapped[str]
    words: Mapped[Any] = mapped_column(TSVECTOR, Computed("to_tsvector('simple'::regconfig, body)", persisted=True))


@pytest.fixture
def documents(face: Face, dialect: str) -> Iterator[Any]:
    if dialect != "postgresql":
        pytest.skip("arrays and vectors are PostgreSQL's")
    Base.metadata.create_all(face.database.engine)
    with face.session() as session:
        documents = face.repository(session, Document, "a")
        rows = [
            {"id": 1, "tags": ["a", "b"], "numbers": [1, 2], "body": "green tea"},
            {"id": 2, "tags": ["b", "c"], "numbers": [2, 3], "body": "black coffee"},
            {"id": 3, "tags": [], "numbers": [], "body": "no tea, coffee"},
            {"id": 4, "body": "nothing"},
        ]
        for row in rows:
            face(documents.create, row)
        yield documents
    Base.metadata.drop_all(face.database.engine)


ARRAYS: list[tuple[str, FilterOperator, Any, Any]] = [
    ("tags", Op.CONTAINS, ["b"], [1, 2]),
    ("tags", Op.CONTAINS, "a", [1]),
    ("tags", Op.CONTAINS, [], [1, 2, 3]),
    ("tags", Op.CONTAINED_BY, ["a", "b"], [1, 3]),
    ("tags", Op.OVERLAPS, ["a", "c"], [1, 2]),
    ("tags", Op.OVERLAPS, [], []),
    ("tags", Op.EQ, ["a", "b"], [1]),
    ("tags", Op.NE, ["a", "b"], [2, 3]),
    ("tags", Op.IS_NULL, True, [4]),
    ("numbers", Op.CONTAINS, ["2"], [1, 2]),
    ("numbers", Op.OVERLAPS, [3, 9], [2]),
    ("numbers", Op.CONTAINS, ["x"], "refused"),
    ("numbers", Op.CONTAINS, [2**40], "refused"),
    ("tags", Op.CONTAINS, ["\x00"], "refused"),
    ("tags", Op.IN, [["a"]], "refused"),
    ("tags", Op.LIKE, "a", "refused"),
    ("words", Op.SEARCH, "tea", [1, 3]),
    ("words", Op.SEARCH, "coffee -tea", [2]),
    ("words", Op.SEARCH, '"green tea" or nothing', [1, 4]),
    ("words", Op.SEARCH, 5, "refused"),
]


@pytest.mark.parametrize(("field", "operator", "value", "expected"), ARRAYS)
def test_arrays_and_vectors(
    face: Face, documents: Any, field: str, operator: FilterOperator, value: Any, expected: Any
) -> None:
    assert asked(face, documents, field, operator, value) == expected


@pytest.mark.parametrize("field", ["tags", "numbers", "words"])
@pytest.mark.parametrize("operator", Op)
def test_hostile_values_of_arrays_and_vectors(face: Face, documents: Any, field: str, operator: FilterOperator) -> None:
    for value in HOSTILE:
        found = asked(face, documents, field, operator, value)
        assert found == "refused" or isinstance(found, list), (value, found)
    assert face(documents.count) == 4
