"""Plans of cursor pages on PostgreSQL: one range of an index, begun where the cursor stands, however deep that is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from benchmarks.depth import ORDERS, PAGE, Walk, prepare
from dotmac_database import SortField, SortOrder
from dotmac_database.errors import InvalidCursorError

ROWS = 100_000
DEPTH = 90_000
DESC = SortOrder.DESC
ONE_RANGE = ["created_at", "-created_at", "email", "status,created_at", "-status,-created_at"]
"""Orders whose directions agree, of columns that are never NULL."""


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
    return walk.to(DEPTH)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def one_range(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan's index scan, below nothing but a LIMIT."""
    assert [node["Node Type"] for node in nodes(plan)] == ["Limit", "Index Scan"], plan
    return plan["Plans"][0]


def check_range(plan: dict[str, Any], columns: list[str], sign: str) -> None:
    """The place is a row comparison within the index's condition; what is filtered is another matter."""
    scan = one_range(plan)
    assert f"ROW({', '.join(columns)}) {sign} ROW(" in scan["Index Cond"].replace("(status)::text", "status").replace(
        "(email)::text", "email"
    )
    assert scan["Filter"] == "(NOT is_deleted)"
    assert scan.get("Rows Removed by Filter", 0) == 0
    assert scan["Actual Rows"] == PAGE + 1


def columns_of(order: str) -> list[str]:
    return [*(sort.field for sort in ORDERS[order]), "id"]


def test_a_page_is_one_range_of_an_index_forwards_and_backwards(walk: Walk, deep: str, order: str) -> None:
    if order not in ONE_RANGE:
        pytest.skip("its directions differ, or NULLs lie ahead")
    forwards, backwards = ("<", ">") if order.startswith("-") else (">", "<")
    page = walk.page(deep)
    check_range(walk.meter.measure(lambda: walk.page(deep))[1], columns_of(order), forwards)
    check_range(walk.meter.measure(lambda: walk.page(page.prev_cursor))[1], columns_of(order), backwards)


def test_nulls_that_lie_behind_leave_the_page_one_range(session: Session) -> None:
    walk = Walk(session, ORDERS["-bio"])
    deep = walk.to(DEPTH)
    check_range(walk.meter.measure(lambda: walk.page(deep))[1], ["bio", "id"], "<")
    assert walk.page(deep).items[0].bio is not None
    among = walk.page(None).next_cursor  # a place among the NULLs, which come first
    upwards = Walk(session, ORDERS["bio"])
    back = upwards.to(DEPTH // 2)
    check_range(upwards.meter.measure(lambda: upwards.page(upwards.page(back).prev_cursor))[1], ["bio", "id"], "<")
    with pytest.raises(InvalidCursorError):
        upwards.page(among)


def test_a_mixed_order_begins_in_its_index_at_the_leading_column(session: Session) -> None:
    walk = Walk(session, ORDERS["-score,created_at"])
    deep = walk.to(DEPTH)
    scan = one_range(walk.meter.measure(lambda: walk.page(deep))[1])
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
    assert costs["OFFSET"].buffers > 1_000


@pytest.mark.parametrize("sign", ["", "-"])
def test_the_primary_key_alone_is_paged_through_its_index(session: Session, sign: str) -> None:
    session.execute(text("SET LOCAL enable_sort = off"))
    walk = Walk(session, [SortField("id", DESC if sign else SortOrder.ASC)])
    second = walk.page(walk.page(None).next_cursor)
    for cursor, way in ((second.next_cursor, "<" if sign else ">"), (second.prev_cursor, ">" if sign else "<")):
        scan = one_range(walk.meter.measure(lambda cursor=cursor: walk.page(cursor))[1])
        assert f"(id {way} '" in scan["Index Cond"]
    session.rollback()
