"""Filters become a shape and values, and the shape becomes SQL. No statement is sent."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import ARRAY, Float, ForeignKey, Numeric
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.ext.hybrid import Comparator, hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column, relationship

from dotmac_database import QueryFilter, ValidationError, all_of, any_of, none_of
from dotmac_database.dialects.postgresql import Postgresql
from dotmac_database.dialects.sqlite import Sqlite
from dotmac_database.errors import MisuseError, PolicyNotExpressibleError
from dotmac_database.models.traits import traits_of
from dotmac_database.policies.symbols import ActorValue, Trace
from dotmac_database.statements.bounds import MAX_DEPTH, MAX_PATTERN, MAX_SEARCH
from dotmac_database.statements.filters import Analysis, ConditionShape, GroupShape, analyse, build, search_terms
from dotmac_database.statements.scope import Scope
from tests.models import Post, Status, User

F = QueryFilter
DIALECTS: dict[str, tuple[Any, Any]] = {
    "postgresql": (Postgresql(), postgresql.dialect()),
    "sqlite": (Sqlite(), sqlite.dialect(paramstyle="named")),
}


class Base(DeclarativeBase):
    """The base class of what `tests.models` does not have."""


class Lower(Comparator[str]):
    """Only equality and ranges; lists take plain values."""

    def operate(self, op: Any, *other: Any, **kwargs: Any) -> Any:
        if op.__name__ not in ("eq", "lt", "in_op", "not_in_op", "is_", "is_not"):
            raise NotImplementedError(op.__name__)
        return op(self.__clause_element__(), *other, **kwargs)


class Thing(Base):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    price: Mapped[float] = mapped_column(Numeric(30, 20, asdecimal=False))
    weight: Mapped[Decimal] = mapped_column(Float(asdecimal=True))
    words: Mapped[list[str]] = mapped_column(ARRAY(postgresql.TEXT))
    vector: Mapped[str] = mapped_column(TSVECTOR)
    secret: Mapped[int] = mapped_column(info={"private": True})
    container_id: Mapped[int | None] = mapped_column(ForeignKey("boxes.id"))
    container: Mapped[Box | None] = relationship(foreign_keys=[container_id], back_populates="contents")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "thing"}  # noqa: RUF012

    @hybrid_property
    def lowered(self) -> str:
        return self.kind.lower()

    @lowered.inplace.comparator
    @classmethod
    def _lowered(cls) -> Lower:
        return Lower(cls.kind)


class Box(Thing):
    __tablename__ = "boxes"
    id: Mapped[int] = mapped_column(ForeignKey("things.id"), primary_key=True)
    size: Mapped[int]
    contents: Mapped[list[Thing]] = relationship(
        foreign_keys=[Thing.container_id], back_populates="container", primaryjoin=lambda: Thing.container_id == Box.id
    )
    __mapper_args__ = {  # noqa: RUF012
        "polymorphic_identity": "box",
        "inherit_condition": id == Thing.id,
    }


def analysed(*filters: Any, model: Any = User, dialect: str = "postgresql") -> Analysis:
    return analyse(traits_of(model), filters, DIALECTS[dialect][0])


def sql(*filters: Any, model: Any = User, dialect: str = "postgresql", tenant: Any = "a", entity: Any = None) -> str:
    toolkit, compiler = DIALECTS[dialect]
    shape = analyse(traits_of(model), filters, toolkit).shape
    conditions = build(traits_of(model), shape, Scope(tenant), toolkit, entity=entity)
    text = "; ".join(str(each.compile(dialect=compiler)) for each in conditions)
    return re.sub(r"\s+", " ", re.sub(r"::[A-Z]+(\[\])?", "", text)).replace("%(", ":").replace(")s", "")


# -- values --------------------------------------------------------------------------------------------------------

NEVER, EVERY = GroupShape("never", ()), GroupShape("all", ())


def shape(field: str, operator: str, kind: str = "", values: int = 1) -> ConditionShape:
    return ConditionShape(field, F(field, operator).operator, kind, values)


@pytest.mark.parametrize(
    ("condition", "expected", "values"),
    [
        (F("name", "eq", "x"), shape("name", "eq"), ["x"]),
        (F("name", "eq", None), shape("name", "is_null", values=0), []),
        (F("name", "ne", None), shape("name", "is_not_null", values=0), []),
        (F("name", "is_null", None), shape("name", "is_null", values=0), []),
        (F("name", "is_null", " FALSE "), shape("name", "is_not_null", values=0), []),
        (F("name", "is_not_null", "0"), shape("name", "is_null", values=0), []),
        (F("name", "is_not_null", "1"), shape("name", "is_not_null", values=0), []),
        (F("name", "is_not_null", "true"), shape("name", "is_not_null", values=0), []),
        (F("name", "is_null", 0), shape("name", "is_not_null", values=0), []),
        (F("settings.a", "is_null"), shape("settings.a", "is_null", "any", 0), []),
        (F("author", "is_null"), shape("author", "is_null", values=0), []),
        (F("score", "gt", "1"), shape("score", "gt"), [1]),
        (F("score", "between", ("1", 2)), shape("score", "between", values=2), [1, 2]),
        (F("score", "in", {1}), shape("score", "in"), [[1]]),
        (F("score", "in", [1, None]), shape("score", "in"), [[1]]),
        (F("score", "in", []), NEVER, []),
        (F("score", "in", [None]), NEVER, []),
        (F("score", "not_in", []), EVERY, []),
        (F("score", "not_in", [1, None]), NEVER, []),
        (F("score", "not_in", [1, 2]), shape("score", "not_in"), [[1, 2]]),
        (F("name", "like", "a_%"), shape("name", "like"), ["a_%"]),
        (F("name", "like", "a_"), shape("name", "like"), [r"%a\_%"]),
        (F("name", "ilike", "a%"), shape("name", "ilike"), ["a%"]),
        (F("name", "starts_with", "a%"), shape("name", "starts_with"), [r"a\%%"]),
        (F("name", "ends_with", "a%"), shape("name", "ends_with"), [r"%a\%"]),
        (F("name", "contains", "a%"), shape("name", "contains"), [r"%a\%%"]),
        (F("name", "search", "two words"), shape("name", "search"), ['"two" "words"']),
        (F("settings.a", "like", "a"), shape("settings.a", "like", "text"), ["%a%"]),
        (F("settings.a", "eq", "a"), shape("settings.a", "eq", "text"), ["a"]),
        (F("settings.a", "eq", 1), shape("settings.a", "eq", "number"), [1]),
        (F("settings.a", "gt", 1.5), shape("settings.a", "gt", "number"), [1.5]),
        (F("settings.a", "eq", True), shape("settings.a", "eq", "boolean"), [True]),
        (F("settings.a", "in", [None, 1]), shape("settings.a", "in", "number"), [[1]]),
        (F("settings.a", "in", []), NEVER, []),
        (F("settings.a", "between", [1, 2]), shape("settings.a", "between", "number", 2), [1, 2]),
        (F("settings", "contains", {"a": 1}), shape("settings", "contains"), ['{"a": 1}']),
        (F("settings.a", "contains", (1,)), shape("settings.a", "contains"), ["[1]"]),
        (F("settings", "overlaps", ("a",)), shape("settings", "overlaps"), ['["a"]']),
        (F("settings", "contained_by", {1}), shape("settings", "contained_by"), ["[1]"]),
    ],
    ids=str,
)
def test_a_filter_has_a_shape_and_values(condition: Any, expected: object, values: list[object]) -> None:
    found = analysed(condition, model=Post if condition.field == "author" else User)
    assert (found.shape, found.values) == ((expected,), values)
    nested = analysed(all_of(any_of(condition)), model=Post if condition.field == "author" else User)
    assert nested.shape == (GroupShape("all", (GroupShape("any", (expected,)),)),)
    assert nested.values == values
    assert nested.parameters == {f"p{number}": value for number, value in enumerate(values)}


def test_an_enum_is_ranked_for_a_range_where_the_database_does_not_order_it() -> None:
    assert analysed(F("status", "gte", "active"), dialect="sqlite").values == [1]
    assert analysed(F("status", "between", ["active", "closed"]), dialect="sqlite").values == [1, 2]
    assert analysed(F("status", "eq", "active"), dialect="sqlite").values == [Status.ACTIVE]
    assert analysed(F("status", "gte", "active")).values == [Status.ACTIVE]


def test_the_values_of_spans_and_arrays() -> None:
    for operator, value, expected in [
        ("eq", 1.5, (2, [1.5, 1.5])),
        ("ne", 1.5, (2, [1.5, 1.5])),
        ("gt", 1.5, (1, [1.5])),
        ("between", [1, 2], (2, [1.0, 2.0])),
        ("in", [1.5], (2, [[1.5], [1.5]])),
    ]:
        found = analysed(F("price", operator, value), model=Thing)
        assert (found.shape[0].values, found.values) == expected  # type: ignore[attr-defined]
    assert analysed(F("price", "in", []), model=Thing).shape == (NEVER,)
    assert analysed(F("words", "eq", ["a"]), model=Thing).values == [["a"]]
    for value in ("a", ["a"], ("a",), {"a"}):
        assert analysed(F("words", "overlaps", value), model=Thing).values == [["a"]]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (F("score", "gt", "x"), "User.score gt: 'x' is not an integer"),
        (F("score", "gt"), "User.score gt: None is not a value; use is_null to find NULLs"),
        (F("score", "is_null", "perhaps"), "'perhaps' is not true or false"),
        (F("score", "is_null", [1]), "[1] is not true or false"),
        (F("score", "is_null", 2), "2 is not true or false"),
        (F("score", "between", 1), "1 is not a pair: the lower and the upper bound"),
        (F("score", "between", [1]), "[1] is not a pair: the lower and the upper bound"),
        (F("score", "between", [1, None]), "[1, None] is not a pair: the lower and the upper bound"),
        (F("score", "in", 1), "1 is not a list"),
        (F("score", "in", "12"), "'12' is not a list"),
        (F("score", "in", b"12"), "b'12' is not a list"),
        (F("score", "in", {"1": 2}), "{'1': 2} is not a list"),
        (F("score", "like", "1"), "'1' is not possible: the field is not text"),
        (F("score", "contains", "1"), "'1' is not possible: the field is neither an array nor JSON"),
        (F("name", "like", 1), "1 is not text."),
        (F("name", "like", "%\\"), "is not a pattern: it ends in an escape character"),
        (F("name", "like", "a\x00"), "is not text without NUL characters"),
        (F("name", "like", "a" * (MAX_PATTERN + 1)), f"is not text of at most {MAX_PATTERN} characters"),
        (F("name", "search", "a" * (MAX_SEARCH + 1)), f"is not text of at most {MAX_SEARCH} characters"),
        (F("settings", "eq", "a"), "is not possible: compare a path into the JSON document, or use contains"),
        (F("settings.a", "in", [1, "a"]), "[1, 'a'] is not of the same type as the other values"),
        (F("settings.a", "in", 1), "1 is not a list"),
        (F("settings.a", "eq", {}), "{} is not text, a number, true or false"),
        (F("settings.a", "eq", 1e300), "1e+300 is not text, a number, true or false"),
        (F("settings.a", "eq", "a\x00"), "is not text without NUL characters"),
        (F("settings", "overlaps", "a"), "'a' is not a list"),
        (F("author", "eq", 1), "the path ends at a relationship, which supports only is_null and is_not_null"),
        (F("words", "in", [["a"]]), "is not possible: use contains, contained_by or overlaps for an array"),
        (F("vector", "eq", "a"), "'a' is not possible: use search for a text search vector"),
        (F("vector", "like", "a"), "'a' is not possible: the field is not text"),
    ],
    ids=lambda each: str(each)[:60],
)
def test_a_refusal_names_the_field_the_operator_and_what_is_wrong(condition: Any, expected: str) -> None:
    model: Any = {"author": Post, "words": Thing, "vector": Thing}.get(condition.field, User)
    for each in (condition, any_of(condition)):
        with pytest.raises(ValidationError) as refused:
            analysed(each, model=model)
        assert expected in str(refused.value)
        assert (refused.value.field, refused.value.operator) == (condition.field, condition.operator.value)


def test_the_value_of_a_private_column_is_not_repeated() -> None:
    with pytest.raises(ValidationError, match=r"Thing\.secret eq: the value is not an integer") as refused:
        analysed(F("secret", "eq", "hunter2"), model=Thing)
    assert "hunter2" not in str(refused.value)


ACTOR = ActorValue(Trace("The rule"), (("team", False),))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("model", "field", "operator", "taken"),
    [
        (User, "name", "eq", "both"),
        (User, "score", "in", "both"),
        (User, "score", "gt", "both"),
        (User, "status", "gt", "postgresql"),
        (User, "status", "ne", "both"),
        (User, "score", "between", "none"),
        (User, "settings.theme", "eq", "none"),
        (Thing, "lowered", "eq", "none"),
        (Thing, "price", "eq", "sqlite"),
        (Thing, "words", "eq", "none"),
        (Thing, "vector", "eq", "none"),
    ],
)
def test_a_value_that_the_database_reads_is_compared_as_it_is_or_refused(
    dialect: str, model: Any, field: str, operator: str, taken: str
) -> None:
    condition = F(field, operator, ACTOR)
    if taken in ("both", dialect):
        found = analysed(condition, model=model, dialect=dialect)
        assert found.shape == (shape(field, operator),)
        assert found.values[0] is ACTOR
    else:
        with pytest.raises(PolicyNotExpressibleError, match=f"actor.team, .* to compare {field} by {operator}"):
            analysed(condition, model=model, dialect=dialect)


def test_the_longest_text_and_the_deepest_group_are_taken() -> None:
    assert analysed(F("name", "like", "%" + "a" * (MAX_PATTERN - 1))).values == ["%" + "a" * (MAX_PATTERN - 1)]
    assert analysed(F("name", "search", "a" * MAX_SEARCH)).values
    group: Any = F("score", "eq", 1)
    for _ in range(MAX_DEPTH):
        group = all_of(group)
    assert analysed(group).values == [1]
    with pytest.raises(ValidationError, match=f"nested at most {MAX_DEPTH} deep"):
        analysed(any_of(group))


ONE = F("score", "eq", 1)


@pytest.mark.parametrize(
    ("filters", "unbounded"),
    [
        ([], True),
        ([ONE], False),
        ([all_of()], True),
        ([any_of()], True),
        ([none_of()], True),
        ([any_of(any_of())], True),
        ([none_of(none_of())], True),
        ([none_of(any_of())], True),
        ([none_of(any_of(), ONE)], False),
        ([none_of(any_of(), F("score", "in", []))], True),
        ([none_of(F("score", "in", []))], True),
        ([all_of(ONE)], False),
        ([any_of(ONE, all_of())], True),
        ([all_of(ONE, all_of())], False),
        ([all_of(), ONE], False),
        ([F("score", "in", [])], False),
        ([F("score", "not_in", [])], True),
        ([any_of(F("score", "not_in", []), ONE)], True),
        ([all_of(F("score", "not_in", []), ONE)], False),
    ],
)
def test_whether_filters_limit_anything(filters: list[Any], unbounded: bool) -> None:
    assert analysed(*filters).unbounded is unbounded


WORDS = F("name", "search", "words")


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ([], None),
        ([F("name", "eq", "x"), F("email", "search", "x"), WORDS, F("name", "search", "later")], "words"),
        ([none_of(WORDS)], None),
        ([none_of(F("name", "search", "not these")), any_of(all_of(WORDS))], "words"),
        ([any_of(ONE), WORDS], "words"),
        ([F("name", "search", 1), WORDS], "words"),
    ],
)
def test_the_words_of_a_search(filters: list[Any], words: str | None) -> None:
    assert search_terms(filters, "name") == words


# -- SQL -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([F("score", "eq", 1), F("name", "ne", "x")], "users.score = :p0; users.name != :p1"),
        ([F("score", "gt", 1)], "users.score > :p0"),
        ([F("score", "gte", 1)], "users.score >= :p0"),
        ([F("score", "lt", 1)], "users.score < :p0"),
        ([F("score", "lte", 1)], "users.score <= :p0"),
        ([F("score", "between", [1, 2]), ONE], "users.score BETWEEN :p0 AND :p1; users.score = :p2"),
        ([F("score", "in", [1, 2])], "users.score = ANY (:p0)"),
        ([F("score", "not_in", [1])], "NOT (users.score = ANY (:p0))"),
        ([F("score", "is_null"), ONE], "users.score IS NULL; users.score = :p0"),
        ([F("score", "is_not_null")], "users.score IS NOT NULL"),
        ([F("name", "like", "x")], "users.name LIKE :p0"),
        ([F("name", "not_like", "x")], "NOT (users.name LIKE :p0)"),
        ([F("name", "ilike", "x")], "users.name ILIKE :p0"),
        ([F("name", "not_ilike", "x")], "NOT (users.name ILIKE :p0)"),
        ([F("name", "starts_with", "x")], "users.name LIKE :p0"),
        ([F("name", "contains", "x")], "users.name LIKE :p0"),
        ([all_of(ONE, ONE)], "users.score = :p0 AND users.score = :p1"),
        ([any_of(ONE, ONE)], "users.score = :p0 OR users.score = :p1"),
        ([none_of(ONE, ONE)], "NOT (users.score = :p0 OR users.score = :p1)"),
        ([any_of(all_of(ONE, ONE), ONE)], "users.score = :p0 AND users.score = :p1 OR users.score = :p2"),
        ([any_of()], "false"),
        ([all_of(), none_of()], "true; true"),
        ([F("settings", "contains", {})], "CAST(users.settings AS JSONB) @> CAST(:p0 AS JSONB)"),
        ([F("settings", "contained_by", {})], "CAST(users.settings AS JSONB) <@ CAST(:p0 AS JSONB)"),
    ],
    ids=lambda each: str(each)[:60],
)
def test_the_sql_of_a_filter(filters: list[Any], expected: str) -> None:
    assert sql(*filters) == expected


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        ("eq", 1.5, "things.price BETWEEN :p0 AND :p1; things.id = :p2"),
        ("gt", 1.5, "things.price > :p0; things.id = :p1"),
        ("between", [1, 2], "things.price BETWEEN :p0 AND :p1; things.id = :p2"),
        ("is_null", None, "things.price IS NULL; things.id = :p0"),
    ],
)
def test_a_span_takes_as_many_parameters_as_it_has_values(operator: str, value: object, expected: str) -> None:
    filters = F("price", operator, value), F("id", "eq", 1)
    assert sql(*filters, model=Thing) == expected
    assert len(analysed(*filters, model=Thing).values) == expected.count(":")


@pytest.mark.parametrize(
    ("operator", "sign"), [("contains", "@>"), ("contained_by", "<@"), ("overlaps", "&&"), ("eq", "=")]
)
def test_arrays(operator: str, sign: str) -> None:
    assert sql(F("words", operator, ["a"]), model=Thing) == f"things.words {sign} :p0"


def test_a_value_inside_json_is_compared_as_its_type() -> None:
    for value, kind in [("a", ""), (1, "NUMERIC"), (True, "BOOLEAN")]:
        text = sql(F("settings.a", "eq", value))
        assert text.endswith("END = :p0")
        assert f"AS {kind}) END" in text if kind else "text[] END" in text
    assert sql(F("settings.a", "is_null")).endswith("#>> '{}'::text[]) IS NULL")
    assert " ILIKE :p0" in sql(F("settings.a", "ilike", "x"))
    assert sql(F("settings.a", "in", [1, 2])).endswith("END = ANY (:p0)")
    assert "jsonb_array_elements(CAST(:p0 AS JSONB))" in sql(F("settings", "overlaps", ["a"]))


def test_an_enum_is_compared_by_its_rank_where_the_database_does_not_order_it() -> None:
    assert re.fullmatch(r"CASE .* END >= :p0", sql(F("status", "gte", "new"), dialect="sqlite"))
    assert sql(F("status", "eq", "new"), dialect="sqlite") == "users.status = :p0"
    assert sql(F("status", "gte", "new")) == "users.status >= :p0"


def test_a_comparator_of_its_own_gets_parameters_and_says_what_it_lacks() -> None:
    assert sql(F("lowered", "eq", "x"), model=Thing) == "things.kind = :p0"
    assert sql(F("lowered", "lt", "x"), model=Thing) == "things.kind < :p0"
    assert "things.kind IN (__[POSTCOMPILE_p0]" in sql(F("lowered", "in", ["x"]), model=Thing)
    assert "things.kind NOT IN (__[POSTCOMPILE_p0]" in sql(F("lowered", "not_in", ["x"]), model=Thing)
    assert sql(F("lowered", "is_null"), model=Thing) == "things.kind IS NULL"
    with pytest.raises(MisuseError, match=r"Thing.lowered: its comparator has no gt, or none for a bound") as refused:
        sql(F("lowered", "gt", "x"), model=Thing)
    assert (refused.value.field, refused.value.operator) == ("lowered", "gt")


LIVING_OF = "{0}.tenant_id = :dotmac_tenant AND {0}.is_deleted = false"
AUTHOR = "EXISTS (SELECT 1 FROM users, posts WHERE users.id = posts.author_id AND " + LIVING_OF.format("users")
POSTS = "EXISTS (SELECT 1 FROM posts WHERE users.id = posts.author_id AND " + LIVING_OF.format("posts")


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (F("author.score", "eq", 1), f"{AUTHOR} AND users.score = :p0)"),
        (F("author", "is_not_null"), f"{AUTHOR})"),
        (F("author", "is_null"), f"NOT ({AUTHOR}))"),
        (F("author.posts", "is_null"), f"{AUTHOR} AND NOT ({POSTS})))"),
    ],
    ids=str,
)
def test_each_row_on_a_path_is_the_tenants_and_not_deleted(condition: Any, expected: str) -> None:
    assert sql(condition, model=Post) == expected


AUTHOR_1 = (
    AUTHOR.replace("users", "users_1").replace("users_1,", "users AS users_1,").replace("posts ", "posts AS this ")
)
AUTHOR_1 = AUTHOR.replace("users", "users_1").replace("FROM users_1", "FROM users AS users_1")
AUTHOR_1 = AUTHOR_1.replace("posts ", "posts AS this ").replace("posts.", "this.")
POSTS_1 = POSTS.replace("users", "users_1").replace("posts.", "posts_1.").replace("posts ", "posts AS posts_1 ")


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (F("words", "eq", 1), "this.words = :p0"),
        (F("author.score", "eq", 1), f"{AUTHOR_1} AND users_1.score = :p0)"),
        (F("author", "is_not_null"), f"{AUTHOR_1})"),
        (F("author", "is_null"), f"NOT ({AUTHOR_1}))"),
        (F("author.posts", "is_null"), f"{AUTHOR_1} AND NOT ({POSTS_1})))"),
        (F("author.posts.words", "eq", 1), f"{AUTHOR_1} AND ({POSTS_1} AND posts_1.words = :p0)))"),
    ],
    ids=str,
)
def test_with_an_alias_every_class_on_a_path_has_one(condition: Any, expected: str) -> None:
    for each in (condition, any_of(condition)):
        assert sql(each, model=Post, entity=aliased(Post, name="this")) == expected


def test_a_class_that_comes_twice_on_a_path_of_joined_tables_has_aliases() -> None:
    twice = sql(F("container.container.size", "eq", 1), model=Thing)
    assert twice.endswith("WHERE anon_2.boxes_id = anon_1.things_container_id AND anon_2.boxes_size = :p0)))")
