"""The SQL itself: EXISTS for relationships, one range for a keyset, GLOB for LIKE, and the key at the end."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy.dialects import postgresql, sqlite

from dotmac_database import (
    ALL_TENANTS,
    FilterOperator,
    QueryFilter,
    SortField,
    SortOrder,
    TenantRequiredError,
    ValidationError,
    all_of,
    any_of,
    none_of,
)
from dotmac_database.dialects.postgresql import Postgresql
from dotmac_database.dialects.sqlite import Sqlite
from dotmac_database.models.traits import MAX_SHAPES, traits_of
from dotmac_database.statements.ordering import order_of
from dotmac_database.statements.reads import Reader, Seek
from dotmac_database.statements.scope import Scope
from tests.models import Country, Post, Seat, User

F, Op = QueryFilter, FilterOperator
DIALECTS = {"postgresql": (Postgresql(), postgresql.dialect()), "sqlite": (Sqlite(), sqlite.dialect())}


@pytest.fixture(params=sorted(DIALECTS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def reader(name: str, model: Any = User, tenant: Any = "a") -> Reader:
    return Reader(traits_of(model), Scope(tenant), DIALECTS[name][0])


def compiled(name: str, statement: Any) -> str:
    return re.sub(r"\s+", " ", str(statement.compile(dialect=DIALECTS[name][1])))


def sorts(*texts: str) -> list[SortField]:
    return [SortField(text.lstrip("-"), SortOrder.DESC if text[0] == "-" else SortOrder.ASC) for text in texts]


def rows(name: str, filters: Any = (), order: Any = (), model: Any = User, **options: Any) -> str:
    asked = reader(name, model)
    return compiled(name, asked.rows(filters, order_of(asked.traits, order), **options).statement)


def page(name: str, order: Any, values: tuple[Any, ...], mode: str = "after", model: Any = User) -> str:
    asked = reader(name, model)
    return compiled(name, asked.page((), order_of(asked.traits, order), 5, Seek(mode, values)).statement)


def ordered_by(sql: str) -> str:
    return sql.rpartition(" ORDER BY ")[2].partition(" LIMIT ")[0]


@pytest.mark.parametrize("field", ["author.name", "tags.name", "replies.tags.name", "parent.parent.title", "tags"])
def test_a_filter_through_a_relationship_is_an_exists(name: str, field: str) -> None:
    operator = Op.IS_NOT_NULL if field == "tags" else Op.EQ
    filters = [F(field, operator, None if field == "tags" else "x")]
    sql = rows(name, filters, model=Post)
    outer = sql.partition(" WHERE ")[0]
    assert sql.count("EXISTS") == max(1, field.count("."))
    assert " JOIN " not in sql
    assert outer.endswith("FROM posts")
    counted = compiled(name, reader(name, Post).count(filters).statement)
    assert counted.startswith("SELECT count(*) AS")
    assert " JOIN " not in counted
    assert counted.count("EXISTS") == sql.count("EXISTS")


def test_every_row_on_the_way_is_of_the_tenant_and_not_deleted(name: str) -> None:
    sql = rows(name, [F("posts.replies.tags.name", value="x")])
    tables = ["users", r"posts", r"posts_1", "tags"]
    for table in tables:
        assert re.search(rf"\b{table}\.tenant_id = ", sql), table
    for table in tables[:-1]:
        assert re.search(rf"\b{table}\.is_deleted (=|IS)", sql) or f"NOT {table}.is_deleted" in sql, table


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ((), "users.id ASC"),
        (("name",), "users.name ASC, users.id ASC"),
        (("-name",), "users.name DESC, users.id DESC"),
        (("-score",), "users.score DESC NULLS FIRST, users.id DESC"),
        (("score",), "users.score ASC NULLS LAST, users.id ASC"),
        (("name", "-score"), "users.name ASC, users.score DESC NULLS FIRST, users.id DESC"),
        (("-id",), "users.id DESC"),
        (("id", "-name"), "users.id ASC, users.name DESC"),
    ],
)
def test_the_primary_key_ends_the_order(name: str, order: tuple[str, ...], expected: str) -> None:
    assert ordered_by(rows(name, order=sorts(*order))) == expected


def test_both_parts_of_a_composite_key_end_the_order(name: str) -> None:
    assert ordered_by(rows(name, order=sorts("-holder"), model=Seat)).endswith("seats.org DESC, seats.number DESC")


@pytest.mark.parametrize(
    ("order", "values", "mode", "expected"),
    [
        (("name",), ("n", "i"), "after", "(users.name, users.id) > ("),
        (("-name",), ("n", "i"), "after", "(users.name, users.id) < ("),
        (("name",), ("n", "i"), "before", "(users.name, users.id) < ("),
        (("-name",), ("n", "i"), "until", "(users.name, users.id) >= ("),
        (("name",), ("n", "i"), "from", "(users.name, users.id) >= ("),
        ((), ("i",), "after", "users.id > "),
        (("-id",), ("i",), "after", "users.id < "),
        (("name", "balance"), ("n", 1, "i"), "after", "(users.name, users.balance, users.id) > ("),
    ],
)
def test_a_keyset_of_one_direction_without_nulls_is_one_range(
    name: str, order: tuple[str, ...], values: tuple[Any, ...], mode: str, expected: str
) -> None:
    sql = page(name, sorts(*order), values, mode)
    assert expected in sql
    assert " OR " not in sql


@pytest.mark.parametrize(
    ("order", "values"), [(("name", "-balance"), ("n", 1, "i")), (("score",), (1, "i")), (("-score",), (None, "i"))]
)
def test_mixed_directions_and_nulls_are_lexicographic(name: str, order: Any, values: Any) -> None:
    sql = page(name, sorts(*order), values)
    assert " OR " in sql
    assert "(users.name, users" not in sql
    assert "(users.score, users" not in sql


def test_backwards_reads_the_order_reversed(name: str) -> None:
    assert ordered_by(page(name, sorts("-score", "name"), (1, "n", "i"), "before")) == (
        "users.score ASC NULLS LAST, users.name DESC, users.id DESC"
    )


def test_a_sort_through_a_relationship_joins_nothing(name: str) -> None:
    sql = rows(name, order=sorts("author.name"), model=Post)
    assert " JOIN " not in sql
    assert sql.partition(" WHERE ")[0].endswith("FROM posts")
    assert "ORDER BY (SELECT users_1.name" in sql
    assert "users_1.tenant_id = " in sql
    assert ordered_by(sql).endswith("NULLS LAST, posts.id ASC")


@pytest.mark.parametrize(
    ("operator", "value", "like", "glob"),
    [
        (Op.LIKE, "ab", "%ab%", "*ab*"),
        (Op.LIKE, "a_b", "%a\\_b%", "*a_b*"),
        (Op.LIKE, "a\\b", "%a\\\\b%", "*a\\b*"),
        (Op.LIKE, "a%_b", "a%_b", "a*?b"),
        (Op.LIKE, "a\\%%", "a\\%%", "a%*"),
        (Op.LIKE, "*?[]%", "*?[]%", "[*][?][[]]*"),
        (Op.LIKE, "\\*%", "\\*%", "[*]*"),
        (Op.NOT_LIKE, "[%", "[%", "[[]*"),
        (Op.STARTS_WITH, "50%_*", "50\\%\\_*%", "50%_[*]*"),
        (Op.ENDS_WITH, "\\", "%\\\\", "*\\"),
        (Op.CONTAINS, "%", "%\\%%", "*%*"),
        (Op.ILIKE, "a*", "%a*%", "%a*%"),
        (Op.NOT_ILIKE, "_", "%\\_%", "%\\_%"),
    ],
)
def test_patterns(operator: FilterOperator, value: str, like: str, glob: str) -> None:
    filters = [F("name", operator, value)]
    assert reader("postgresql").analysed(filters).values == [like]
    assert reader("sqlite").analysed(filters).values == [glob]
    case_minds = operator not in (Op.ILIKE, Op.NOT_ILIKE)
    assert ("users.name GLOB ?" in rows("sqlite", filters)) is case_minds
    assert f"users.name {'LIKE' if case_minds else 'ILIKE'} %(" in rows("postgresql", filters)


def test_a_statement_is_built_once_for_a_shape(name: str) -> None:
    def statement(*filters: Any, order: Any = (), **options: Any) -> Any:
        asked = reader(name)
        return asked.rows(filters, order_of(asked.traits, order), **options).statement

    traits_of(User).statements.clear()
    first = statement(F("name", value="a"), F("score", Op.IN, [1, 2]), limit=1)
    assert statement(F("name", value="b"), F("score", Op.IN, [3]), limit=9) is first
    assert statement(F("name", Op.NE, "b"), F("score", Op.IN, [3]), limit=9) is not first
    assert statement(F("name", value="b"), F("score", Op.IN, []), limit=9) is not first
    assert statement(F("name", value="b"), F("score", Op.IN, [3])) is not first
    assert statement(any_of(F("name", value="a"))) is not statement(all_of(F("name", value="a")))
    assert statement(any_of(F("name", value="a"))) is not statement(none_of(F("name", value="a")))
    everyones = Reader(traits_of(User), Scope(ALL_TENANTS), DIALECTS[name][0])
    assert everyones.rows([], order_of(everyones.traits, [])).statement is not statement()


def test_a_flood_of_shapes_is_forgotten_and_the_next_ones_are_kept(name: str) -> None:
    kept = traits_of(User).statements
    asked = reader(name)
    for shape in range(MAX_SHAPES + 1):
        asked.cached(("flood", shape), object)
    assert len(kept) <= MAX_SHAPES
    last = asked.rows([], order_of(asked.traits, []), limit=7).statement
    assert asked.rows([], order_of(asked.traits, []), limit=8).statement is last


def test_no_value_is_written_into_a_statement(name: str) -> None:
    secret = "s3cr3t"
    filters = [F("name", op, secret) for op in (Op.EQ, Op.LIKE, Op.ILIKE, Op.SEARCH, Op.CONTAINS)]
    filters += [F("settings.theme", value=secret), F("settings", Op.CONTAINS, {"a": secret})]
    asked = Reader(traits_of(User), Scope("t3n4nt"), DIALECTS[name][0])
    sql = compiled(name, asked.rows(filters, order_of(asked.traits, []), limit=1).statement)
    assert secret not in sql
    assert "t3n4nt" not in sql


def test_a_total_rides_along_in_the_same_statement(name: str) -> None:
    sql = rows(name, [F("posts.title", value="x")], limit=5, offset=5, bound=0)
    assert sql.count("count(*)") == 1
    assert " JOIN " not in sql


def test_a_tenants_class_needs_a_tenant_also_behind_a_relationship(name: str) -> None:
    untenanted = reader(name, Post, None)
    with pytest.raises(TenantRequiredError):
        untenanted.rows([], order_of(untenanted.traits, []))
    assert "tenant" not in rows(name, model=Country)


def nested(depth: int) -> Any:
    group = all_of(F("name", value="x"))
    for _ in range(depth - 1):
        group = none_of(group)
    return group


def test_groups_nest_twenty_deep_and_no_deeper(name: str) -> None:
    assert compiled(name, reader(name).count([nested(20)]).statement)
    for depth in (21, 50, 400):
        with pytest.raises(ValidationError, match="at most 20 deep"):
            reader(name).count([nested(depth)])


@pytest.mark.parametrize(
    ("filters", "unbounded"),
    [
        ([], True),
        ([all_of()], True),
        ([any_of()], True),
        ([none_of()], True),
        ([none_of(any_of())], True),
        ([F("score", Op.NOT_IN, [])], True),
        ([none_of(F("score", Op.IN, []))], True),
        ([any_of(F("name", value="x"), F("score", Op.NOT_IN, []))], True),
        ([F("score", Op.IN, [])], False),
        ([F("score", Op.NOT_IN, [None])], False),
        ([F("name", value="x"), all_of()], False),
        ([none_of(F("name", value="x"))], False),
    ],
)
def test_filters_that_hold_nothing_back_are_known(filters: Any, unbounded: bool) -> None:
    assert reader("sqlite").analysed(filters).unbounded is unbounded
