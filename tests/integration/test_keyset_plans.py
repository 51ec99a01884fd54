"""Plans of cursor pages on PostgreSQL: one range of an index, begun where the cursor stands, however deep that is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from benchmarks.depth import ORDERS, PAGE, Walk, prepare
from dotmac_database import SortField, SortOrder

ROWS = 40_000
DEPTH = 36_000
DESC = SortOrder.DESC
MIXED = "-score,created_at"
ONE_RANGE = [order for order in ORDERS if order != MIXED]
"""Orders whose directions agree."""


@pytest.fixture(scope="module")
def session(postgres_url: str) -> Iterator[Session]:
    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    prepare(engine, ROWS)
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.fixture(scope="module", params=ORDERS)
def order(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def walk(session: Session, order: str) -> Walk:
    return Walk(session, ORDERS[order])


@pytest.fixture(scope="module")
def deep(walk: Walk) -> str:
    return walk.cursor_at(DEPTH)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def one_range(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan's index scan, below nothing but a LIMIT."""
    assert [node["Node Type"] for node in nodes(plan)] == ["Limit", "Index Scan"], plan
    return plan["Plans"][0]


def plan_of(walk: Walk, cursor: str) -> dict[str, Any]:
    """The plan of a page that takes one statement."""
    (plan,) = walk.meter.measure(lambda: walk.page(cursor))[1]
    return plan


def check_range(plan: dict[str, Any], columns: list[str], sign: str) -> None:
    """The place is a row comparison within the index's condition; what is filtered is another matter."""
    scan = one_range(plan)
    bare = re.sub(r"\((\w+)\)::text", r"\1", scan["Index Cond"])
    assert f"ROW({', '.join(columns)}) {sign} ROW(" in bare
    assert scan["Filter"] == "(NOT is_deleted)"
    assert scan.get("Rows Removed by Filter", 0) == 0
    assert scan["Actual Rows"] == PAGE + 1


def columns_of(order: str) -> list[str]:
    return [*(sort.field for sort in ORDERS[order]), "id"]


def test_a_page_is_one_range_of_an_index_forwards_and_backwards(walk: Walk, deep: str, order: str) -> None:
    if order not in ONE_RANGE:
        pytest.skip("its directions differ")
    forwards, backwards = ("<", ">") if order.startswith("-") else (">", "<")
    page = walk.page(deep)
    check_range(plan_of(walk, deep), columns_of(order), forwards)
    check_range(plan_of(walk, page.prev_cursor), columns_of(order), backwards)


@pytest.mark.parametrize("sign", ["", "-"])
def test_the_page_that_comes_to_the_nulls_reads_a_range_of_each(session: Session, sign: str) -> None:
    """Forwards where NULLs are last, backwards where they are first."""
    walk = Walk(session, ORDERS[f"{sign}bio"])
    nulls = ROWS // 20
    above, beside = (nulls, 10) if sign else (ROWS - nulls - 1000, 990)
    cursor = walk.page(walk.cursor_at(above), beside).next_cursor
    if sign:
        cursor = walk.page(cursor).prev_cursor
    page = walk.page(cursor)
    bios = [row.bio is None for row in page.items]
    assert bios == ([True] * 10 + [False] * 10 if sign else [False] * 10 + [True] * 10)
    cost, plans = walk.meter.measure(lambda: walk.page(cursor))
    conditions = [one_range(plan)["Index Cond"] for plan in plans]
    assert len(conditions) == 2
    assert "ROW((bio)::text, id) > ROW(" in conditions[0]
    assert "bio IS NULL" in conditions[1]
    assert cost.buffers < 100


def test_a_mixed_order_begins_in_its_index_at_the_leading_column(session: Session) -> None:
    walk = Walk(session, ORDERS["-score,created_at"])
    deep = walk.cursor_at(DEPTH)
    scan = one_range(plan_of(walk, deep))
    assert "score <=" in scan["Index Cond"]
    assert scan["Rows Removed by Filter"] <= ROWS / 1000  # those of the same score at most


def test_a_page_costs_at_any_depth_what_the_first_costs(walk: Walk, deep: str, order: str) -> None:
    """In buffers. In a mixed order the ties of the leading column are added: 100 rows have one score."""
    costs = walk.costs(DEPTH)
    shallow = max(costs["first"].buffers, costs["second"].buffers)
    spare = 110 if order == "-score,created_at" else 8
    assert costs["deep"].buffers <= shallow + spare, costs
    assert costs["deep, back"].buffers <= shallow + spare, costs
    assert costs["OFFSET"].buffers > 20 * costs["deep"].buffers
    assert costs["OFFSET"].buffers > 500


@pytest.mark.parametrize("sign", ["", "-"])
def test_the_primary_key_alone_is_paged_through_its_index(session: Session, sign: str) -> None:
    session.execute(text("SET LOCAL enable_sort = off"))
    walk = Walk(session, [SortField("id", DESC if sign else SortOrder.ASC)])
    second = walk.page(walk.page(None).next_cursor)
    for cursor, way in ((second.next_cursor, "<" if sign else ">"), (second.prev_cursor, ">" if sign else "<")):
        scan = one_range(plan_of(walk, cursor))
        assert f"(id {way} '" in scan["Index Cond"]
    session.rollback()
