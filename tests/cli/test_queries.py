"""``dotmac-db explain`` and ``advise``: the words of a query string, and the read that they mean."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dotmac_database import FilterOperator, OffsetParams, PaginationParams, QueryFilter, SortField, SortOrder, traits_of
from dotmac_database.cli.read_options import ReadWords
from tests.cli.shop import User

from .conftest import APP, Run

EQ, GTE, IN, NULL = FilterOperator.EQ, FilterOperator.GTE, FilterOperator.IN, FilterOperator.IS_NULL


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], []),
        (["status=active"], [("status", EQ, "active")]),
        (["status="], [("status", EQ, "")]),
        (["name=a=b"], [("name", EQ, "a=b")]),
        (["score__gte=10"], [("score", GTE, "10")]),
        (["score__eq=10"], [("score", EQ, "10")]),
        (["status__in=a,b"], [("status", IN, ["a", "b"])]),
        (["status__in=a,b", "status__in=c"], [("status", IN, ["a,b", "c"])]),
        (["score__between=1,9"], [("score", FilterOperator.BETWEEN, ["1", "9"])]),
        (["deleted_at__is_null=true"], [("deleted_at", NULL, True)]),
        (["deleted_at__is_null=False"], [("deleted_at", NULL, False)]),
        (["orders.placed_at__gte=2026-01-01"], [("orders.placed_at", GTE, "2026-01-01")]),
        (["name__ilike=%a%", "name__ilike=%b%"], [("name", FilterOperator.ILIKE, v) for v in ("%a%", "%b%")]),
        ([" status =active"], [("status", EQ, "active")]),
    ],
)
def test_the_filters(words: Sequence[str], expected: list[tuple[str, FilterOperator, object]]) -> None:
    options = ReadWords(filters=tuple(words)).options(traits_of(User))
    assert list(options.filters) == [QueryFilter(*each) for each in expected]


DESC = SortOrder.DESC


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sort=-created_at,name", [SortField("created_at", DESC), SortField("name")]),
        ("sort=-created_at&sort=name", [SortField("created_at", DESC), SortField("name")]),
        ("?sort=%2Bname__folded", [SortField("name", by="folded")]),
        ("sort=", []),
    ],
)
def test_the_sorts(query: str, expected: list[SortField]) -> None:
    assert list(ReadWords.of_query(query).options(traits_of(User)).sorts) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", None),
        ("limit=50", PaginationParams(page=1, per_page=50)),
        ("page=3", PaginationParams(page=3, per_page=20)),
        ("page=3&per_page=7", PaginationParams(page=3, per_page=7)),
        ("skip=40&limit=10", OffsetParams(skip=40, limit=10)),
    ],
)
def test_the_pages(query: str, expected: object) -> None:
    assert ReadWords.of_query(query).options(traits_of(User)).pagination == expected


def test_options_beside_a_query_string_are_added_to_it() -> None:
    words = ReadWords.of_query("status=a&sort=name&include=orders&limit=5") + ReadWords(
        ("score=1",), numbers={"limit": 9}
    )
    options = words.options(traits_of(User), include_deleted=True)
    assert list(options.filters) == [QueryFilter("status", EQ, "a"), QueryFilter("score", EQ, "1")]
    assert options.pagination == PaginationParams(page=1, per_page=9)
    assert list(options.relationships) == ["orders"]
    assert options.include_deleted


BAD = {
    "a field": (["--filter", "statsu=x"], "User has no field 'statsu'; did you mean 'status'?"),
    "a field of another class": (
        ["--filter", "orders.placed=x"],
        "Order has no field 'placed' (in 'orders.placed' of",
    ),
    "a field with an operator": (["--filter", "statsu__gte=x"], "User has no field 'statsu'; did you mean 'status'?"),
    "an operator": (["--filter", "score__gtee=1"], "There is no operator 'gtee'; did you mean 'gte'?"),
    "a value": (["--filter", "score=abc"], "User.score eq: 'abc' is not an integer."),
    "a value of a list": (["--filter", "score__in=1,x"], "User.score in"),
    "a pair": (["--filter", "score__between=1"], "User.score between"),
    "a truth": (["--filter", "deleted_at__is_null=maybe"], "it must be true or false, not 'maybe'."),
    "no value": (["--filter", "status"], "--filter 'status': it must be field=value or field__operator=value."),
    "no name": (["--filter", "=x"], "it must be field=value"),
    "a sort": (["--sort", "-nmae"], "User has no field 'nmae'; did you mean 'name'?"),
    "a page of no rows": (["--limit", "0"], "limit: 0 is out of range."),
    "a page of too many rows": (["--limit", "1001"], "limit: 1001 is out of range."),
    "page zero": (["--page", "0"], "page: 0 is out of range."),
    "a number": (["--query", "page=x"], "page: 'x' is no number."),
    "a negative number": (["--query", "skip=-1"], "skip: '-1' is no number."),
    "a relationship": (["--include", "ordres"], "User has no relationship 'ordres'"),
    "a cursor": (["--query", "cursor=abc"], "cursor can't be explained here"),
    "words to search for": (["--query", "q=abc"], "q can't be explained here"),
    "two kinds of tenants": (["--all-tenants"], "Either --tenant or --all-tenants, not both."),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("command", ["explain", "advise"])
def test_bad_words(command: str, name: str, shop_url: str, run: Run) -> None:
    words, message = BAD[name]
    ended = run(command, "User", "--app", f"{APP}:Base", "--url", shop_url, "--tenant", "a", *words)
    assert (ended.code, ended.out) == (2, ""), ended
    assert message in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("command", ["explain", "advise"])
def test_models_and_tenants(command: str, shop_url: str, run: Run) -> None:
    app = ("--app", f"{APP}:Base", "--url", shop_url)
    assert run(command, "Usre", *app).err == "There is no model 'Usre'; did you mean 'User'?\n"
    assert "belong to tenants: use --tenant or --all-tenants" in run(command, "User", *app).err
    assert run(command, "Plan", *app).code == 0
    assert run(command, "Plan", *app, "--tenant", "a").code == 0


@pytest.mark.parametrize("tenant", [("--tenant", "a"), ("--all-tenants",)])
def test_the_plan_is_that_of_the_tenants_read(tenant: Sequence[str], shop_url: str, dialect: str, run: Run) -> None:
    words = ("Order", "--app", f"{APP}:Base", "--url", shop_url, "--query", "sort=-placed_at&limit=5&include=user")
    ended = run("explain", *words, *tenant, "--json")
    document = ended.document
    assert ("tenant_id =" in document["statement"].partition("WHERE")[2]) is (tenant[0] == "--tenant")
    assert "ORDER BY shop_orders.placed_at DESC" in document["statement"]
    assert document["scans"] == ["shop_orders"]
    expected = ["tenant_id", "placed_at", "id"] if tenant[0] == "--tenant" else ["placed_at", "id"]
    assert expected in [each["columns"] for each in document["advice"]]
    for each in document["advice"]:
        assert each["reason"]
        assert each["remedy"].endswith(";")
        assert ("CONCURRENTLY" in each["remedy"]) is (dialect == "postgresql")
    advised = run("advise", *words, *tenant, "--json")
    assert (advised.code, advised.document["advice"]) == (1, document["advice"])
    assert ended.err == ""


def test_deleted_rows_are_read_where_they_are_wanted(shop_url: str, run: Run) -> None:
    words = ("explain", "User", "--app", f"{APP}:Base", "--url", shop_url, "--tenant", "a", "--json")
    assert "is_deleted = " in run(*words).document["statement"]
    assert "is_deleted = " not in run(*words, "--deleted").document["statement"]


def test_analyze_measures_on_postgresql(shop_url: str, dialect: str, run: Run) -> None:
    ended = run("explain", "User", "--app", f"{APP}:Base", "--url", shop_url, "--tenant", "b", "--analyze")
    if dialect == "sqlite":
        assert (ended.code, ended.err) == (2, "SQLite's EXPLAIN does not measure.\n")
    else:
        assert ended.code == 0
        assert "Execution Time" in ended.out
        assert "rows=1 " in ended.out
