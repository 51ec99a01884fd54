"""Random filters and orders: SQLite, PostgreSQL and the mock give the same rows in the same order."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from dotmac_database import BaseRepository, FilterOperator, QueryFilter, SortField, SortOrder, all_of, any_of, none_of
from dotmac_database.engines import create_database
from dotmac_database.testing import MockRepository
from tests.models import Base, Status, User

F, Op = QueryFilter, FilterOperator
MOMENT = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = ["", "a", "B", "ab_", "a%b", "\\", "*", "[a]", "É", "é", "aB"]

ROWS: list[dict[str, Any]] = [
    {
        "id": UUID(int=(number * 40_503) % 65_536 << 96),
        "name": NAMES[number % len(NAMES)],
        "email": None if number % 3 == 0 else f"{NAMES[number * 7 % len(NAMES)]}{number}",
        "status": list(Status)[number % 3],
        "score": None if number % 4 == 0 else number % 5 - 2,
        "ratio": None if number % 5 == 0 else number % 3 / 2,
        "balance": Decimal(number % 4) / 4,
        "seen_at": None if number % 6 == 0 else MOMENT + timedelta(microseconds=number % 4),
        "active": number % 2 == 0,
        "settings": None if number % 7 == 0 else {"k": [None, 1, "1", True, 1.5, "é"][number % 6]},
    }
    for number in range(1, 31)
]


@pytest.fixture(scope="module")
def sources(postgres_url: str) -> Iterator[list[Any]]:
    """The same rows in an SQLite of the toolkit's, in one of SQLAlchemy's own, in PostgreSQL and in the mock."""
    toolkits, postgres = create_database("sqlite://"), create_database(postgres_url)
    plain = create_engine("sqlite://")
    engines: list[Engine] = [toolkits.engine, plain, postgres.engine]
    mock: Any = MockRepository(User, "a")
    made: list[Any] = [mock]
    for engine in engines:
        Base.metadata.create_all(engine)
        made.append(BaseRepository(Session(engine), User, "a"))
    for repository in made:
        repository.bulk_create(ROWS)
    yield made
    for repository in made[1:]:
        repository.db.close()
    plain.dispose()
    toolkits.dispose()
    postgres.dispose()


def values(field: str) -> st.SearchStrategy[Any]:
    known = st.sampled_from([row[field] for row in ROWS if row[field] is not None])
    more: dict[str, st.SearchStrategy[Any]] = {
        "score": st.integers(-3, 3),
        "balance": st.decimals(-1, 1, places=3),
        "ratio": st.floats(-1, 2),
        "name": st.text("abB%_\\*[]Éé", max_size=4),
        "email": st.text("abB%_\\*[]1", max_size=4),
    }
    return st.one_of(known, more[field]) if field in more else known


COMPARABLE = ("id", "status", "score", "ratio", "balance", "seen_at")
TEXT = (Op.LIKE, Op.NOT_LIKE, Op.STARTS_WITH, Op.ENDS_WITH, Op.CONTAINS)


def escapes_nothing(text: str) -> bool:
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1


@st.composite
def conditions(draw: st.DrawFn) -> QueryFilter:
    kind = draw(st.sampled_from(["compare", "list", "null", "text", "json", "range"]))
    field = draw(st.sampled_from(COMPARABLE))
    if kind == "compare":
        return F(field, draw(st.sampled_from([Op.EQ, Op.NE, Op.GT, Op.GTE, Op.LT, Op.LTE])), draw(values(field)))
    if kind == "list":
        members = draw(st.lists(st.one_of(st.none(), values(field)), max_size=4))
        return F(field, draw(st.sampled_from([Op.IN, Op.NOT_IN])), members)
    if kind == "null":
        return F(field, draw(st.sampled_from([Op.IS_NULL, Op.IS_NOT_NULL])), draw(st.booleans()))
    if kind == "range":
        return F(field, Op.BETWEEN, draw(st.tuples(values(field), values(field))))
    if kind == "text":
        field = draw(st.sampled_from(["name", "email"]))
        pattern = draw(values(field).filter(lambda text: not escapes_nothing(text)))
        return F(field, draw(st.sampled_from(TEXT)), pattern)
    operator = draw(st.sampled_from([Op.EQ, Op.NE, Op.IN]))
    value = draw(st.sampled_from([1, 1.5, "1", "é", True, False]))
    return F("settings.k", operator, [value] if operator is Op.IN else value)


def groups(members: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        lambda make, inner: make(*inner), st.sampled_from([any_of, all_of, none_of]), st.lists(members, max_size=3)
    )


FILTERS = st.lists(st.recursive(conditions(), groups, max_leaves=5), max_size=3)
SORTS = st.lists(
    st.builds(
        SortField,
        st.sampled_from(["status", "score", "ratio", "balance", "seen_at", "active", "id"]),
        st.sampled_from(SortOrder),
        st.sampled_from([None, "first", "last"]),
    ),
    max_size=4,
)
QUICK = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(FILTERS, SORTS)
def test_every_database_gives_the_same_rows_in_the_same_order(sources: list[Any], filters: Any, sorts: Any) -> None:
    options = {"filters": filters, "sorts": sorts}
    answers = [[row.id for row in repository.list(options)] for repository in sources]
    assert all(answer == answers[0] for answer in answers[1:]), answers
    assert {repository.count(filters) for repository in sources} == {len(answers[0])}


@settings(QUICK, max_examples=25)
@given(FILTERS)
def test_a_group_parts_the_rows_it_is_true_of_from_those_it_is_false_of(sources: list[Any], filters: Any) -> None:
    for repository in sources[1:]:
        held = {row.id for row in repository.list({"filters": [all_of(*filters)]})}
        refused = {row.id for row in repository.list({"filters": [none_of(all_of(*filters))]})}
        again = {row.id for row in repository.list({"filters": [none_of(none_of(*filters))]})}
        assert not held & refused
        assert again == {row.id for row in repository.list({"filters": [any_of(*filters)]})}
