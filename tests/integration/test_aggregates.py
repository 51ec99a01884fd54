"""Measures of many rows, and the distinct values of a field."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from dotmac_database import ALL_TENANTS, Aggregate, QueryFilter, SortField, SortOrder, ValidationError
from tests.conftest import Face, counted
from tests.models import Post, Status, User

pytestmark = pytest.mark.usefixtures("filled")
MOST = SortField("n", SortOrder.DESC)
MOMENT = datetime(2024, 5, 1, 12, 30, 0, 123456, tzinfo=UTC)


@pytest.fixture
def filled(face: Face) -> None:
    rows: list[dict[str, Any]] = [
        {"name": "Ann", "email": "1", "status": Status.NEW, "score": 1, "balance": Decimal("1.10"), "ratio": 0.5},
        {"name": "bob", "email": "2", "status": Status.ACTIVE, "score": 2, "balance": Decimal("2.20"), "ratio": 1.5},
        {"name": "Cid", "email": "3", "status": Status.ACTIVE, "score": None, "balance": Decimal("3.30")},
        {"name": "Dan", "email": "4", "status": Status.CLOSED, "score": 2, "seen_at": MOMENT},
    ]
    settings = [{"theme": "dark", "size": 10}, {"theme": "light", "size": 20}, {"theme": "dark"}, None]
    with face.session() as session:
        users = face.repository(session, User, "a")
        made = face(users.bulk_create, [{**row, "settings": s} for row, s in zip(rows, settings, strict=True)])
        face(users.create, {"name": "gone", "email": "5", "score": 100})
        gone = face(users.get_by_field, "email", "5")
        face(users.delete, gone.id)
        face(face.repository(session, User, "b").create, {"name": "other", "email": "9", "score": 1000})
        posts = [
            {"id": 1, "title": "x", "words": 10, "author_id": made[0].id},
            {"id": 2, "title": "y", "words": 20, "author_id": made[1].id},
            {"id": 3, "title": "z", "words": 30, "author_id": made[1].id},
            {"id": 4, "title": "w", "words": 5, "author_id": None},
        ]
        face(face.repository(session, Post, "a").bulk_create, posts)


def aggregate(face: Face, *args: Any, model: Any = User, tenant: Any = "a", **kwargs: Any) -> list[dict[str, Any]]:
    with face.session() as session:
        repository = face.repository(session, model, tenant)
        with counted(face.engine) as sent:
            found: list[dict[str, Any]] = face(repository.aggregate, *args, **kwargs)
        assert len([each for each in sent if each.startswith("SELECT")]) == 1
    return found


def test_measures_of_all_rows_of_the_tenant(face: Face) -> None:
    [found] = aggregate(
        face,
        {
            "n": "count",
            "scored": ("count", "score"),
            "scores": Aggregate("count", "score", distinct=True),
            "sum": ("sum", "score"),
            "mean": ("avg", "score"),
            "least": {"function": "min", "field": "score"},
            "most": ("max", "score"),
        },
    )
    assert found == {"n": 4, "scored": 3, "scores": 2, "sum": 5, "mean": pytest.approx(5 / 3), "least": 1, "most": 2}
    assert (type(found["sum"]), type(found["mean"])) == (int, float)


def test_decimals_stay_decimals(face: Face) -> None:
    [found] = aggregate(
        face, {"sum": ("sum", "balance"), "mean": ("avg", "balance"), "most": ("max", "balance"), "f": ("sum", "ratio")}
    )
    assert found["sum"] == Decimal("6.60")
    assert found["most"] == Decimal("3.30")
    assert found["mean"] == Decimal("1.65")
    assert {type(found[name]) for name in ("sum", "mean", "most")} == {Decimal}
    assert (found["f"], type(found["f"])) == (2.0, float)


def test_extremes_are_of_the_columns_type_and_order(face: Face) -> None:
    [found] = aggregate(
        face,
        {
            "first": ("min", "status"),
            "last": ("max", "status"),
            "seen": ("max", "seen_at"),
            "name": ("max", "name"),
        },
    )
    assert (found["first"], found["last"]) == (Status.NEW, Status.CLOSED)
    assert found["seen"] == MOMENT


def test_no_rows_have_no_sum(face: Face) -> None:
    nothing = [QueryFilter("score", "gt", 10)]
    assert aggregate(face, {"n": "count", "sum": ("sum", "score")}, nothing) == [{"n": 0, "sum": None}]
    assert aggregate(face, {"n": "count"}, nothing, group_by="status") == []


def test_groups_come_in_the_order_of_their_fields(face: Face) -> None:
    found = aggregate(face, {"n": "count", "sum": ("sum", "score")}, group_by="status")
    assert found == [
        {"status": Status.NEW, "n": 1, "sum": 1},
        {"status": Status.ACTIVE, "n": 2, "sum": 2},
        {"status": Status.CLOSED, "n": 1, "sum": 2},
    ]
    by_score = aggregate(face, {"n": "count"}, group_by=["score", "status"])
    assert [(each["score"], each["status"], each["n"]) for each in by_score] == [
        (1, Status.NEW, 1),
        (2, Status.ACTIVE, 1),
        (2, Status.CLOSED, 1),
        (None, Status.ACTIVE, 1),
    ]


def test_groups_come_in_a_named_order_and_number(face: Face) -> None:
    most = aggregate(face, {"n": "count"}, group_by="status", sorts=MOST)
    assert [(each["status"], each["n"]) for each in most] == [
        (Status.ACTIVE, 2),
        (Status.NEW, 1),
        (Status.CLOSED, 1),
    ]
    assert aggregate(face, {"n": "count"}, group_by="status", sorts=MOST, limit=2) == most[:2]
    assert aggregate(face, {"n": "count"}, group_by="status", sorts=[{"field": "n", "order": "desc"}], limit=9) == most
    latest = aggregate(face, {"n": "count"}, group_by="status", sorts=[SortField("status", SortOrder.DESC)], limit=1)
    assert latest == [{"status": Status.CLOSED, "n": 1}]
    for nulls, first in (("first", None), ("last", 1)):
        sort = {"field": "score", "nulls": nulls}
        assert aggregate(face, {"n": "count"}, group_by="score", sorts=[sort])[0]["score"] == first
    by_extreme = aggregate(
        face,
        {"top": ("max", "score")},
        group_by="status",
        sorts=[SortField("top", SortOrder.DESC), SortField("status", SortOrder.DESC)],
    )
    assert [each["status"] for each in by_extreme] == [Status.CLOSED, Status.ACTIVE, Status.NEW]


@pytest.mark.parametrize("unusable", [{"sorts": SortField("m")}, {"sorts": SortField("score")}, {"limit": 0}])
def test_an_order_or_number_of_groups_that_is_refused(face: Face, unusable: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"value 'm' .* n, status|value 'score'|limit"):
        aggregate(face, {"n": "count"}, group_by="status", **unusable)


def test_groups_through_relationships_and_documents(face: Face) -> None:
    by_author = aggregate(face, {"words": ("sum", "words")}, group_by="author.name", model=Post)
    assert sorted(map(str, (each.values() for each in by_author))) == sorted(
        map(str, ({"n": name, "w": words}.values() for name, words in (("Ann", 10), ("bob", 50), (None, 5))))
    )
    by_theme = aggregate(face, {"n": "count", "size": ("sum", "settings.size")}, group_by="settings.theme")
    assert by_theme == [
        {"settings.theme": "dark", "n": 2, "size": 10.0},
        {"settings.theme": "light", "n": 1, "size": 20.0},
        {"settings.theme": None, "n": 1, "size": None},
    ]
    [of_authors] = aggregate(face, {"most": ("max", "author.score")}, model=Post)
    assert of_authors == {"most": 2}


def test_filters_and_the_deleted(face: Face) -> None:
    active = [QueryFilter("status", value="active")]
    assert aggregate(face, {"n": "count"}, active) == [{"n": 2}]
    assert aggregate(face, {"sum": ("sum", "score")}, include_deleted=True) == [{"sum": 105}]
    assert aggregate(face, {"sum": ("sum", "score")}, tenant=ALL_TENANTS) == [{"sum": 1005}]


def test_distinct_values_are_sorted_and_end_with_none(face: Face) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        assert face(users.distinct_values, "score") == [1, 2, None]
        assert face(users.distinct_values, "status") == [Status.NEW, Status.ACTIVE, Status.CLOSED]
        assert face(users.distinct_values, "score", [QueryFilter("status", value="active")]) == [2, None]
        assert face(users.distinct_values, "score", include_deleted=True) == [1, 2, 100, None]


def test_a_guarded_session_counts_its_own_tenant_alone(face: Face) -> None:
    with face.guarded() as session:
        users = face.repository(session, User, "b")
        assert face(users.aggregate, {"n": "count", "sum": ("sum", "score")}) == [{"n": 1, "sum": 1000}]
        assert face(users.distinct_values, "name") == ["other"]


@pytest.mark.parametrize(
    ("measures", "groups", "named"),
    [
        ({}, (), "Nothing"),
        ({"n": "count"}, ("nmae",), "name"),
        ({"n": ("sum", "scroe")}, (), "score"),
        ({"n": ("sum", "name")}, (), "name"),
        ({"n": ("avg", "status")}, (), "status"),
        ({"n": ("max", "avatar")}, (), "avatar"),
        ({"n": ("min", "active")}, (), "active"),
        ({"n": ("sum", "posts.words")}, (), "posts"),
        ({"n": "count"}, ("posts.title",), "posts"),
        ({"n": "count"}, ("settings",), "settings"),
        ({"n": "median"}, (), "measures"),
        ({"n": "sum"}, (), "n"),
        ({"status": "count"}, ("status",), "name of its own"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(face: Face, measures: Any, groups: Any, named: str) -> None:
    with face.session() as session, pytest.raises(ValidationError, match=named):
        face(face.repository(session, User, "a").aggregate, measures, group_by=groups)
