"""What a numbered page's total may cost, and what it says."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from dotmac_database import (
    PaginationParams,
    PerformancePaginator,
    QueryFilter,
    TenantRequiredError,
    UnscopedStatementError,
    ValidationError,
    bind_tenant,
)
from dotmac_database.dialects.explain import Explain
from tests.conftest import Face, counted
from tests.models import User

pytestmark = pytest.mark.usefixtures("filled")
KINDS = ("exact", "bounded", "estimate", "none")


@pytest.fixture
def filled(face: Face) -> None:
    with face.session() as session:
        for tenant, many in (("a", 25), ("b", 40)):
            rows = [{"name": f"u{n:02}", "email": f"{n}@x", "score": n} for n in range(many)]
            face(face.repository(session, User, tenant).bulk_create, rows)


def paged(face: Face, page: int, per_page: int, total: str, bound: int = 10_000, **options: Any) -> Any:
    asked = PaginationParams(page, per_page, total=total, bound=bound)  # type: ignore[arg-type]
    with face.session() as session:
        users = face.repository(session, User, "a")
        with counted(face.engine) as sent:
            found = face(users.list_paginated, {"sorts": [{"field": "score"}], "pagination": asked, **options})
    return found, [each for each in sent if each.startswith(("SELECT", "EXPLAIN"))]


@pytest.mark.parametrize("total", KINDS)
@pytest.mark.parametrize("page", [1, 3, 4])
def test_every_kind_gives_the_same_rows_and_neighbours(face: Face, total: str, page: int) -> None:
    found, _ = paged(face, page, 10, total)
    assert [each.score for each in found.items] == list(range(25))[(page - 1) * 10 : page * 10]
    assert (found.has_prev, found.has_next) == (page > 1, page < 3)


@pytest.mark.fast_way("page-totals")
@pytest.mark.parametrize("total", ["exact", "bounded", "estimate"])
def test_within_the_bound_every_total_is_exact_in_one_statement(face: Face, total: str) -> None:
    found, sent = paged(face, 2, 10, total)
    assert (found.total, found.pages, found.total_is_exact, len(sent)) == (25, 3, True, 1)


@pytest.mark.parametrize("total", ["exact", "bounded", "estimate"])
def test_a_page_past_the_end_keeps_its_total(face: Face, total: str) -> None:
    found, sent = paged(face, 9, 10, total)
    assert (found.items, found.total, found.total_is_exact, found.has_next, len(sent)) == ([], 25, True, False, 2)


def test_none_counts_nothing(face: Face) -> None:
    found, sent = paged(face, 1, 10, "none")
    assert (found.total, found.pages, found.total_is_exact, found.has_next) == (None, None, False, True)
    assert len(sent) == 1
    assert "count" not in sent[0]


@pytest.mark.fast_way("page-totals")
def test_a_bounded_total_stops_at_the_bound(face: Face) -> None:
    found, sent = paged(face, 1, 5, "bounded", bound=10)
    assert (found.total, found.total_is_exact, found.has_next, len(sent)) == (10, False, True, 1)
    assert "count(*)" in sent[0]
    assert "LIMIT" in sent[0].partition("count(*)")[2].partition("AS anon")[0]


def test_a_bounded_total_is_no_less_than_what_was_seen(face: Face) -> None:
    found, _ = paged(face, 4, 5, "bounded", bound=10)
    assert (found.total, found.total_is_exact, found.has_next) == (21, False, True)


@pytest.mark.fast_way("page-totals")
def test_the_last_page_knows_the_total_whatever_the_bound(face: Face) -> None:
    found, sent = paged(face, 5, 5, "estimate", bound=10)
    assert (found.total, found.total_is_exact, found.has_next, len(sent)) == (25, True, False, 1)


def test_a_page_past_the_end_beyond_the_bound_is_at_least_the_bound(face: Face) -> None:
    found, _ = paged(face, 9, 10, "bounded", bound=10)
    assert (found.items, found.total, found.total_is_exact, found.has_next) == ([], 10, False, False)


@pytest.mark.fast_way("page-totals")
def test_an_estimate_is_the_planners_of_this_very_filter(face: Face, dialect: str) -> None:
    if dialect == "postgresql":
        with face.database.engine.begin() as connection:
            connection.exec_driver_sql("ANALYZE users")
    found, sent = paged(face, 1, 5, "estimate", bound=6)
    assert not found.total_is_exact
    if dialect == "sqlite":
        assert (found.total, len(sent)) == (6, 1)
        return
    assert found.total == 25  # of 65 rows: the tenant's own
    assert [each.split()[0] for each in sent] == ["SELECT", "EXPLAIN"]
    fewer, _ = paged(face, 1, 5, "estimate", bound=6, filters=[QueryFilter("score", "lt", 12)])
    assert 7 <= fewer.total < 20


@pytest.mark.parametrize("total", KINDS)
def test_relationship_filters_count_each_row_once(face: Face, total: str) -> None:
    found, _ = paged(face, 1, 10, total, filters=[QueryFilter("posts.title", "is_null", False)])
    assert (found.items, found.total or 0) == ([], 0)


def test_other_kinds_and_bounds_are_refused(face: Face) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        for bad in ({"total": "most"}, {"total": "bounded", "bound": 0}):
            with pytest.raises(ValidationError):
                face(users.list_paginated, {"pagination": bad})


def test_a_guarded_sessions_estimate_is_its_tenants(face: Face, dialect: str) -> None:
    if dialect == "postgresql":
        with face.database.engine.begin() as connection:
            connection.exec_driver_sql("ANALYZE users")
    with face.guarded() as session:
        asked = {"pagination": {"total": "estimate", "bound": 2, "per_page": 1}}
        found = face(face.repository(session, User, "b").list_paginated, asked)
    assert (found.total, found.total_is_exact) == (2 if dialect == "sqlite" else 40, False)


def test_a_hand_written_estimate_is_confined_by_the_guard(face: Face, dialect: str) -> None:
    if dialect == "postgresql":
        with face.database.engine.begin() as connection:
            connection.exec_driver_sql("ANALYZE users")
    paged = PerformancePaginator
    method = paged.async_paginate_with_count_estimate if face.is_async else paged.paginate_with_count_estimate
    with face.guarded() as session:
        bind_tenant(session, "b")
        items, total = face(method, session, select(User), 1, 5, count_threshold=10)
        assert len(items) == 5
        assert (total, total.exact) == (11 if dialect == "sqlite" else 40, False)
        if dialect == "postgresql":
            with pytest.raises(UnscopedStatementError):
                face(session.execute, Explain(select(User.__table__)))
    with face.guarded() as session, pytest.raises(TenantRequiredError):
        face(session.execute, Explain(select(User)) if dialect == "postgresql" else select(User))
