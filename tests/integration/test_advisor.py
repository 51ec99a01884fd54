"""EXPLAIN of a read, and the index that it lacks: the planner must use what is advised."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import ForeignKey, MetaData, String, UniqueConstraint, event, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.types import JSON

from dotmac_database import (
    ALL_TENANTS,
    Database,
    FilterOperator,
    IndexAdvice,
    InvalidCursorError,
    QueryPlan,
    SoftDeleteMixin,
    SortField,
    TenantIsolationError,
    TenantMixin,
    UnscopedStatementError,
    ValidationError,
    any_of,
    bind_tenant,
    create_repository,
)
from dotmac_database.testing import MockRepository
from tests import models
from tests.conftest import Face, counted
from tests.matrices import sampled

ROWS = 20_000
ONE_FACE = pytest.mark.parametrize("face", ["sync"], indirect=True)
"""What is advised does not depend on the face; that both ask alike is what the other tests hold."""
TENANT = "t3"


class Base(DeclarativeBase):
    """Tables of this module only: they are large, and their indexes come and go."""


class Event(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "events"
    __table_args__ = (UniqueConstraint("code", "tenant_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(20))
    code: Mapped[str]
    status: Mapped[str]
    at: Mapped[int]
    score: Mapped[int | None]
    title: Mapped[str]
    closed: Mapped[int | None]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("events.id"))

    notes: Mapped[list[Note]] = relationship(back_populates="event")
    parent: Mapped[Event | None] = relationship(remote_side=[id])


class Note(TenantMixin, Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(20))
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"))
    body: Mapped[str]

    event: Mapped[Event] = relationship(back_populates="notes")


class Shelf(Base):
    """Of no tenant, with a reserved word and a quoted name."""

    __tablename__ = "Shelf"

    id: Mapped[int] = mapped_column(primary_key=True)
    order: Mapped[int]


class Spot(Base):
    __tablename__ = "spots"
    __tenant_column__ = "org"

    org: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Paper(TenantMixin, Base):
    """What PostgreSQL alone can look into."""

    __tablename__ = "papers"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(20))
    title: Mapped[str]
    meta: Mapped[dict[str, Any]] = mapped_column(JSONB().with_variant(JSON(), "sqlite"))
    plain: Mapped[dict[str, Any]] = mapped_column(JSON)
    labels: Mapped[list[str]] = mapped_column(ARRAY(String).with_variant(JSON(), "sqlite"))
    words: Mapped[str | None] = mapped_column(TSVECTOR().with_variant(String(), "sqlite"))


class Zoo(DeclarativeBase):
    """Classes on two tables, and on a query."""


class Animal(TenantMixin, Zoo):
    __tablename__ = "animals"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]


class Cat(Animal):
    __tablename__ = "cats"
    __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
    lives: Mapped[int]

    @hybrid_property
    def lost(self) -> int:
        return 9 - self.lives


class Name(Zoo):
    __table__ = select(Animal.__table__.c.id, Animal.__table__.c.name).subquery("names")
    __mapper_args__ = {"primary_key": [__table__.c.id]}  # noqa: RUF012 - as SQLAlchemy has it


_COUNTING = {
    "postgresql": "generate_series(1, {n}) AS i",
    "sqlite": "(WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {n}) SELECT i FROM c) AS s",
}
_EVENTS = """INSERT INTO events (id, tenant_id, code, status, at, score, title, closed, parent_id, is_deleted)
SELECT i, 't' || (i % 10), 'c' || i, 's' || ((i / 10) % 20), (i * 7919) % 50000,
  CASE WHEN i % 3 = 0 THEN NULL ELSE i % 1000 END, 'word' || i, CASE WHEN i % 7 = 0 THEN NULL ELSE i END,
  CASE WHEN i > 100 THEN i - 100 END, {deleted} FROM """
_NOTES = "INSERT INTO notes (id, tenant_id, event_id, body) SELECT i, 't' || (i % 10), i, 'note' || (i % 977) FROM "
_PAPERS = """INSERT INTO papers (id, tenant_id, title, meta, plain, labels, words)
SELECT i, 't' || (i % 10), 'title number' || i,
  jsonb_build_object('theme', 'theme' || i, 'size', i, 'deep', jsonb_build_object('tags', jsonb_build_array(i))),
  json_build_object('theme', 'theme' || i), ARRAY['label' || i, 'all'], to_tsvector('simple', 'word' || i) FROM """
_MADE = {
    "postgresql": """SELECT relname FROM pg_index JOIN pg_class ON oid = indexrelid
      WHERE relnamespace = 'public'::regnamespace AND NOT indisunique""",
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
}


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture(scope="module")
def _filled(_database: Database, dialect: str) -> Iterator[Database]:
    """The rows, which go with their tables: a run in parallel may come back to this database after the other one."""
    rows = _COUNTING[dialect].format(n=ROWS)
    statements = [
        _EVENTS.format(deleted="i % 50 = 0") + rows,
        _NOTES + rows,
        'INSERT INTO "Shelf" (id, "order") SELECT i, i FROM ' + rows,
    ]
    if dialect == "postgresql":
        statements += [_PAPERS + _COUNTING[dialect].format(n=20_000), "CREATE EXTENSION IF NOT EXISTS pg_trgm"]
    models.Base.metadata.create_all(_database.engine)
    Zoo.metadata.create_all(_database.engine)
    with _database.engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
        connection.exec_driver_sql("ANALYZE")
    yield _database
    for metadata in (Zoo.metadata, models.Base.metadata, Base.metadata):
        metadata.drop_all(_database.engine)


@pytest.fixture
def database(_filled: Database) -> Iterator[Database]:
    """The rows stay for the whole module; the indexes that a test has made, or a mixin, go."""
    _drop_indexes(_filled)
    yield _filled
    _drop_indexes(_filled)


def _drop_indexes(database: Database) -> None:
    with database.engine.begin() as connection:
        for name in connection.exec_driver_sql(_MADE[database.engine.dialect.name]).scalars().all():
            connection.exec_driver_sql(f'DROP INDEX "{name}"')


def explain(face: Face, options: Any, model: Any = Event, tenant: Any = TENANT, **how: Any) -> QueryPlan:
    with face.session() as session:
        plan: QueryPlan = face(face.repository(session, model, tenant).explain, options, **how)
    return plan


def run(database: Database, *statements: str) -> None:
    with database.engine.begin() as connection:
        for statement in (*statements, "ANALYZE"):
            connection.exec_driver_sql(statement)


def follow(database: Database, plan: QueryPlan) -> IndexAdvice:
    (advice,) = plan.advice
    run(database, advice.ddl)
    return advice


def nodes(plan: QueryPlan) -> list[dict[str, Any]]:
    waiting, found = [plan.plan[0]["Plan"]], []
    while waiting:
        found.append(waiting.pop())
        waiting.extend(found[-1].get("Plans", ()))
    return found


def range_of(plan: QueryPlan, name: str) -> str:
    """The condition by which an index is read."""
    if isinstance(plan.plan[0], dict) and "detail" in plan.plan[0]:
        (line,) = (row["detail"] for row in plan.plan if name in row["detail"])
        assert line.startswith("SEARCH"), line
        return str(line)
    (node,) = (node for node in nodes(plan) if node.get("Index Name") == name)
    return str(node["Index Cond"])


PAGE = {
    "filters": [{"field": "status", "value": "s4"}],
    "sorts": [{"field": "at", "order": "desc"}],
    "pagination": {"page": 2, "per_page": 20},
}


def test_the_advice_turns_a_scan_of_the_table_into_a_range_of_an_index(face: Face, database: Database) -> None:
    before = explain(face, PAGE)
    assert (before.scans, before.indexes, before.sorts) == (("events",), (), True)
    assert ("SCAN events" if face.database.engine.dialect.name == "sqlite" else "Seq Scan on events") in before.text
    advice = follow(database, before)
    assert advice.table == "events"
    assert advice.columns == ("tenant_id", "status", "at", "id")
    assert "tenant_id is the tenant; status is compared for equality; the order is at, id" in advice.reason
    after = explain(face, PAGE)
    assert (after.scans, after.sorts, after.advice) == ((), False, ())
    assert after.indexes == (advice.index.name,)
    condition = range_of(after, str(advice.index.name))
    assert "tenant_id" in condition
    assert "status" in condition


def test_what_is_explained_is_what_is_sent(face: Face) -> None:
    cursor = {"cursor_pagination": {"limit": 5}, "sorts": [{"field": "at"}], "filters": PAGE["filters"]}
    for options, method in ((PAGE, "list"), ({}, "list"), (cursor, "cursor_paginate")):
        with face.session() as session, counted(face.engine) as sent:
            face(getattr(face.repository(session, Event, TENANT), method), options)
        (read,) = (each for each in sent if each.startswith("SELECT"))
        assert explain(face, options).statement == read


def test_it_sends_the_explanation_and_one_look_at_the_catalogue_and_reads_no_row(face: Face) -> None:
    with counted(face.engine) as sent:
        explain(face, PAGE)
    catalogue, explained = (each for each in sent if each not in ("BEGIN", "ROLLBACK", "COMMIT"))
    assert explained.startswith("EXPLAIN")
    assert "ANALYZE" not in explained
    assert "events" not in catalogue.replace("pragma_index", "")


@pytest.mark.fast_way("row-comparisons")
def test_a_page_after_a_cursor_is_one_range_of_the_index(face: Face, database: Database) -> None:
    options: dict[str, Any] = {"sorts": [{"field": "at"}], "cursor_pagination": {"limit": 20}}
    with face.session() as session:
        first = face(face.repository(session, Event, TENANT).cursor_paginate, options)
    options["cursor_pagination"]["cursor"] = first.next_cursor
    advice = follow(database, explain(face, options))
    assert advice.columns == ("tenant_id", "at", "id")
    after = explain(face, options)
    assert (after.scans, after.sorts, after.advice) == ((), False, ())
    assert "at" in range_of(after, str(advice.index.name)).partition("tenant_id")[2].replace("tenant", "")
    backwards = explain(face, {**options, "sorts": [SortField("at", "desc")], "cursor_pagination": {"limit": 20}})  # type: ignore[arg-type]
    assert (backwards.indexes, backwards.sorts, backwards.advice) == ((advice.index.name,), False, ())


@ONE_FACE
@pytest.mark.parametrize(
    ("sorts", "postgresql", "sqlite"),
    [
        (["at", "-id"], "at, id DESC", "at, id DESC"),
        (["-at", "status"], "at, status DESC, id DESC", "at, status DESC, id DESC"),
        (["-score"], "score, id", "score, id"),
        (["-score>"], "score NULLS FIRST, id", "score, id"),
        (["score<", "-at"], "score NULLS FIRST, at DESC, id DESC", "score, at DESC, id DESC"),
        (["at", "-score>"], "at, score DESC NULLS LAST, id DESC", "at, score DESC, id DESC"),
    ],
)
def test_directions_and_nulls(
    face: Face, database: Database, dialect: str, sorts: list[str], postgresql: str, sqlite: str
) -> None:
    places = {"<": "first", ">": "last"}
    options = {
        "sorts": [
            {
                "field": sort.strip("-<>"),
                "order": "desc" if sort.startswith("-") else "asc",
                "nulls": places.get(sort[-1]),
            }
            for sort in sorts
        ],
        "pagination": {"per_page": 10},
    }
    advice = follow(database, explain(face, options))
    expected = postgresql if dialect == "postgresql" else sqlite
    assert f"(tenant_id, {expected}) WHERE" in advice.ddl
    after = explain(face, options)
    assert (after.scans, after.indexes, after.sorts, after.advice) == ((), (advice.index.name,), False, ())


def test_on_sqlite_an_order_ends_where_an_index_can_not_have_it(face: Face, dialect: str) -> None:
    options = {"sorts": [{"field": "at"}, {"field": "score"}], "pagination": {"per_page": 10}}
    (advice,) = explain(face, options).advice
    assert advice.columns == ("tenant_id", "at", *(() if dialect == "sqlite" else ("score", "id")))


@ONE_FACE
@pytest.mark.parametrize(
    ("filters", "columns"),
    [
        ([{"field": "at", "operator": "lt", "value": 50}], ("tenant_id", "at")),
        ([{"field": "score", "operator": "between", "value": [5, 7]}], ("tenant_id", "score")),
        (
            [{"field": "status", "value": "s4"}, {"field": "at", "operator": "gte", "value": 49_900}],
            ("tenant_id", "status", "at"),
        ),
        ([{"field": "score", "operator": "in", "value": [5, 7]}], ("tenant_id", "score")),
        ([{"field": "score", "operator": "in", "value": [5]}], ("tenant_id", "score", "id")),
        ([any_of({"field": "score", "value": 5})], ("tenant_id", "score", "id")),  # type: ignore[arg-type]
    ],
)
def test_a_range_comes_last(face: Face, database: Database, filters: Any, columns: tuple[str, ...]) -> None:
    advice = follow(database, explain(face, {"filters": filters}))
    assert advice.columns == columns
    after = explain(face, {"filters": filters})
    assert (after.scans, after.indexes, after.advice) == ((), (advice.index.name,), ())
    condition = range_of(after, str(advice.index.name))
    assert all(column in condition for column in columns if column != "id")


def test_a_page_is_read_by_its_order_though_there_is_a_range(face: Face) -> None:
    options = {"filters": [{"field": "score", "operator": "gt", "value": 5}], "sorts": [{"field": "at"}]}
    (whole,) = explain(face, options).advice
    (page,) = explain(face, {**options, "pagination": {}}).advice
    assert (whole.columns, page.columns) == (("tenant_id", "score"), ("tenant_id", "at", "id"))
    same = {**options, "sorts": [{"field": "score", "order": "desc"}], "pagination": {}}
    assert explain(face, same).advice[0].columns == ("tenant_id", "score", "id")


def test_rows_that_are_deleted_are_left_out_of_the_index_where_they_are_left_out_of_the_read(
    face: Face, database: Database, dialect: str
) -> None:
    options = {"sorts": [{"field": "at"}], "pagination": {}}
    advice = follow(database, explain(face, options))
    assert advice.ddl.endswith("WHERE is_deleted = " + ("false" if dialect == "postgresql" else "0"))
    (other,) = explain(face, {**options, "include_deleted": True}).advice
    assert "WHERE" not in other.ddl
    run(database, other.ddl, f'DROP INDEX "{advice.index.name}"')
    assert explain(face, options).advice == ()
    assert explain(face, {**options, "include_deleted": True}).advice == ()


def test_a_column_that_must_be_null_goes_into_the_condition(face: Face, database: Database) -> None:
    options = {
        "filters": [{"field": "closed", "operator": "is_null"}],
        "sorts": [{"field": "at"}],
        "pagination": {},
    }
    advice = follow(database, explain(face, options))
    assert advice.columns == ("tenant_id", "at", "id")
    assert "AND closed IS NULL" in advice.ddl
    after = explain(face, options)
    assert (after.scans, after.indexes, after.sorts, after.advice) == ((), (advice.index.name,), False, ())
    assert explain(face, {"sorts": options["sorts"], "pagination": {}}).advice != ()


@ONE_FACE
@pytest.mark.parametrize("operator", ["starts_with", "like"])
def test_the_beginning_of_a_text(face: Face, database: Database, dialect: str, operator: str) -> None:
    value = "word3123" + ("%" if operator == "like" else "")
    options = {"filters": [{"field": "title", "operator": operator, "value": value}]}
    advice = follow(database, explain(face, options))
    assert advice.columns == ("tenant_id", "title")
    assert ("title text_pattern_ops" in advice.ddl) is (dialect == "postgresql")
    after = explain(face, options)
    assert (after.scans, after.indexes, after.advice) == ((), (advice.index.name,), ())
    assert "title" in range_of(after, str(advice.index.name))


def test_relationships_are_followed_by_their_foreign_keys(face: Face, database: Database) -> None:
    options = {"filters": [{"field": "notes.body", "value": "note5"}, {"field": "code", "value": "c1253"}]}
    advice = follow(database, explain(face, options))
    assert (advice.table, advice.columns) == ("notes", ("tenant_id", "event_id"))
    assert "Event.notes" in advice.reason
    after = explain(face, options)
    assert advice.index.name in after.indexes
    assert (after.scans, after.advice) == ((), ())


def test_a_row_behind_a_foreign_key_is_looked_up_too(face: Face, database: Database, dialect: str) -> None:
    options = {"filters": [{"field": "event.title", "value": "word1253"}]}
    plan = explain(face, options, Note)
    assert [(each.table, each.columns) for each in plan.advice] == [
        ("notes", ("tenant_id", "id")),
        ("notes", ("tenant_id", "event_id")),
        ("events", ("tenant_id", "title")),
    ]
    run(database, *(advice.ddl for advice in plan.advice))
    after = explain(face, options, Note)
    assert (after.scans, after.advice) == ((), ())
    if dialect == "postgresql":
        assert {each.index.name for each in plan.advice[1:]} <= set(after.indexes)


def test_loaded_relationships_need_their_foreign_key(face: Face) -> None:
    plan = explain(face, {"filters": [{"field": "code", "value": "c1253"}], "relationships": ["notes", "parent"]})
    assert [(each.table, each.columns) for each in plan.advice] == [("notes", ("tenant_id", "event_id"))]


def test_nothing_is_advised_twice(face: Face) -> None:
    filters = [
        {"field": "notes.body", "value": "a"},
        {"field": "notes.id", "operator": "gt", "value": 1},
        {"field": "title", "operator": "starts_with", "value": "a"},
        {"field": "title", "operator": "like", "value": "ab%"},
        {"field": "status", "value": "s1"},
        {"field": "status", "operator": "in", "value": ["s1"]},
    ]
    plan = explain(face, {"filters": filters, "relationships": ["notes"]})
    assert [(each.table, each.columns) for each in plan.advice] == [
        ("events", ("tenant_id", "status", "id")),
        ("events", ("tenant_id", "status", "title")),
        ("notes", ("tenant_id", "event_id")),
    ]
    assert len({each.ddl for each in plan.advice}) == 3


@ONE_FACE
@pytest.mark.parametrize(
    "keys",
    [
        "tenant_id, status, at, id",
        "status, tenant_id, at, id",
        "tenant_id DESC, status, at DESC, id DESC",
        "tenant_id, status, is_deleted, at, id",
        "tenant_id, status, at, id, title",
    ],
)
@pytest.mark.parametrize("where", ["", " WHERE is_deleted = {false}"])
def test_an_index_that_serves_is_enough(face: Face, database: Database, dialect: str, keys: str, where: str) -> None:
    false = "false" if dialect == "postgresql" else "0"
    run(database, f"CREATE INDEX own ON events ({keys})" + where.format(false=false))
    plan = explain(face, PAGE)
    assert (plan.advice, plan.indexes, plan.sorts) == ((), ("own",), False)


@ONE_FACE
@pytest.mark.parametrize(
    "rest",
    [
        "(status, at, id)",
        "(tenant_id, status)",
        "(tenant_id, at, id, status)",
        "(tenant_id, status, at DESC, title)",
        "(tenant_id, status, at, id DESC)",
        "(tenant_id, status, title, at, id)",
        "(tenant_id, status, at, id) WHERE at > 5",
        "(tenant_id, status, (at + 0), id)",
    ],
)
def test_an_index_that_does_not_serve_is_not_enough(face: Face, database: Database, rest: str) -> None:
    run(database, f"CREATE INDEX own ON events {rest}")
    (advice,) = explain(face, PAGE).advice
    assert advice.columns == ("tenant_id", "status", "at", "id")


def test_keys_and_unique_constraints_are_indexes(face: Face) -> None:
    assert explain(face, {"filters": [{"field": "code", "value": "c7"}], "sorts": [{"field": "at"}]}).advice == ()
    assert explain(face, {"filters": [{"field": "id", "value": 7}], "sorts": [{"field": "at"}]}).advice == ()
    assert explain(face, {}, Shelf, None).advice == ()
    assert explain(face, {"pagination": {}}, Event, ALL_TENANTS).advice == ()
    assert explain(face, {"sorts": [{"field": "number", "order": "desc"}]}, Spot, 1).advice == ()


def test_names_are_quoted_and_no_tenant_comes_first_where_there_is_none(face: Face, database: Database) -> None:
    options = {"sorts": [{"field": "order"}], "pagination": {}}
    advice = follow(database, explain(face, options, Shelf, None))
    assert 'ON "Shelf" ("order", id)' in advice.ddl
    after = explain(face, options, Shelf, None)
    assert (after.scans, after.indexes, after.sorts, after.advice) == ((), (advice.index.name,), False, ())
    (across,) = explain(face, PAGE, Event, ALL_TENANTS).advice
    assert across.columns == ("status", "at", "id")


def test_the_index_object_makes_it_and_the_mapped_table_does_not_get_it(
    face: Face, database: Database, dialect: str
) -> None:
    (advice,) = explain(face, PAGE).advice
    with database.engine.begin() as connection:
        advice.index.create(connection)
    assert explain(face, PAGE).advice == ()
    assert not Event.__table__.indexes  # type: ignore[attr-defined]  # a Table
    if dialect == "sqlite":
        assert advice.concurrently_ddl is None
        return
    assert advice.concurrently_ddl is not None
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f'DROP INDEX "{advice.index.name}"')
        connection.exec_driver_sql(advice.concurrently_ddl)
    assert explain(face, PAGE).advice == ()


def test_an_unreadable_read_is_refused(face: Face) -> None:
    for options in (
        {"filters": [{"field": "statsu", "value": 1}]},
        {"filters": [{"field": "at", "value": "soon"}]},
        {"pagination": {}, "cursor_pagination": {}},
    ):
        with pytest.raises(ValidationError):
            explain(face, options)
    with pytest.raises(InvalidCursorError):
        explain(face, {"cursor_pagination": {"cursor": "nonsense"}})


def test_measuring_runs_the_read(face: Face, dialect: str) -> None:
    if dialect == "sqlite":
        with pytest.raises(ValidationError, match="does not measure"):
            explain(face, PAGE, analyze=True)
        return
    plan = explain(face, PAGE, analyze=True)
    assert plan.plan[0]["Plan"]["Actual Rows"] == 20
    for told in ("actual time=", "Buffers: shared hit=", "Rows Removed by Filter", "Execution Time"):
        assert told in plan.text


def test_a_guarded_session_explains_its_own_tenant_and_no_other(face: Face) -> None:
    with face.guarded() as session:
        bind_tenant(session, TENANT)
        plan = face(face.repository(session, Event, TENANT).explain, PAGE)
        assert [advice.columns for advice in plan.advice] == [("tenant_id", "status", "at", "id")]
        loaded = face(face.repository(session, Event, TENANT).explain, {**PAGE, "relationships": ["notes"]})
        assert len(loaded.advice) == 2
    with face.guarded() as session:
        bind_tenant(session, TENANT)
        with pytest.raises(TenantIsolationError):
            face(face.repository(session, Event, "t4").explain, PAGE)
    with face.guarded() as session:
        bind_tenant(session, TENANT)
        with pytest.raises((TenantIsolationError, UnscopedStatementError)):
            face(face.repository(session, Event, ALL_TENANTS).explain, PAGE)


POSTGRESQL = [
    ("title", "ilike", "number1253", None, "title gin_trgm_ops"),
    ("title", "contains", "number1253", None, "title gin_trgm_ops"),
    ("title", "ends_with", "number1253", None, "title gin_trgm_ops"),
    ("title", "search", "number1253", None, "to_tsvector('simple'::regconfig, title)"),
    ("words", "search", "word1253", None, "(words)"),
    ("labels", "contains", ["label1253"], None, "(labels)"),
    ("labels", "overlaps", ["label1253", "label7"], None, "(labels)"),
    ("meta", "contains", {"theme": "theme1253"}, None, "meta jsonb_path_ops"),
    ("meta.deep", "contains", {"tags": [1253]}, None, "jsonb_path_ops"),
    ("plain", "contains", {"theme": "theme1253"}, None, "jsonb_path_ops"),
    ("meta.theme", "eq", "theme1253", "id", "CASE WHEN"),
    ("meta.size", "eq", 1253, "id", "NUMERIC"),
    ("meta.size", "lt", 5, None, "NUMERIC"),
    ("plain.theme", "eq", "theme1253", "id", "CASE WHEN"),
    ("meta.theme", "starts_with", "theme125", None, "text_pattern_ops"),
    ("meta.theme", "ilike", "theme1253", None, "gin_trgm_ops"),
]


@ONE_FACE
@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True, scope="module")
@pytest.mark.parametrize(("field", "operator", "value", "last", "told"), POSTGRESQL)
def test_each_kind_of_index_is_used_as_advised(
    face: Face, database: Database, field: str, operator: str, value: Any, last: str | None, told: str
) -> None:
    options = {"filters": [{"field": field, "operator": operator, "value": value}]}
    plan = explain(face, options, Paper)
    assert plan.scans == ("papers",)
    advice = follow(database, plan)
    assert told in advice.ddl
    assert (advice.columns[-1] == "id") is (last == "id")
    assert advice.extension == ("pg_trgm" if "trgm" in told else None)
    after = explain(face, options, Paper)
    assert (after.scans, after.indexes, after.advice) == ((), (advice.index.name,), ())


@ONE_FACE
@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True, scope="module")
@pytest.mark.parametrize(
    ("ddl", "field", "operator", "value"),
    [
        ("USING gin (to_tsvector('simple', title))", "title", "search", "a"),
        ("USING gist (title gist_trgm_ops)", "title", "ilike", "abc"),
        ("USING gin (meta)", "meta", "contains", {"a": 1}),
        ("USING gin ((meta #> '{deep}'))", "meta.deep", "contains", {"a": 1}),
        ('(tenant_id, title COLLATE "C")', "title", "starts_with", "abc"),
    ],
)
def test_indexes_of_other_kinds_serve_too(
    face: Face, database: Database, ddl: str, field: str, operator: str, value: Any
) -> None:
    options = {"filters": [{"field": field, "operator": operator, "value": value}]}
    assert len(explain(face, options, Paper).advice) == 1
    run(database, f"CREATE INDEX own ON papers {ddl}")
    assert explain(face, options, Paper).advice == ()


@ONE_FACE
@pytest.mark.parametrize("operator", ["ne", "not_in", "not_like"])
def test_no_index_is_for_what_a_column_is_not(face: Face, operator: str) -> None:
    value = ["s1"] if operator == "not_in" else "s1"
    (advice,) = explain(face, {"filters": [{"field": "status", "operator": operator, "value": value}]}).advice
    assert advice.columns == ("tenant_id", "id")


def test_alternatives_are_not_a_condition_of_every_row(face: Face) -> None:
    either = {"mode": "any", "members": [{"field": "status", "value": "s1"}, {"field": "at", "value": 5}]}
    (advice,) = explain(face, {"filters": [either, {"field": "score", "value": 5}]}).advice
    assert advice.columns == ("tenant_id", "score", "id")


def test_the_values_of_conditions_are_told_apart_by_their_places(face: Face) -> None:
    filters = [
        {"field": "at", "operator": "between", "value": [1, 2]},
        {"mode": "none", "members": [{"field": "at", "value": 5}, {"field": "closed", "operator": "is_null"}]},
        {"field": "status", "operator": "in", "value": ["s1"]},
        {"field": "title", "operator": "like", "value": "abc%"},
    ]
    plan = explain(face, {"filters": filters})
    assert [each.columns for each in plan.advice] == [
        ("tenant_id", "status", "at"),
        ("tenant_id", "status", "title"),
    ]


def test_a_mock_explains_itself() -> None:
    plan = MockRepository(Shelf).explain({"sorts": [{"field": "order"}]})
    assert plan.scans == ("Shelf",)
    assert [each.columns for each in plan.advice] == [("order", "id")]


def test_the_plan_is_told_to_the_sync_session_of_any_maker(database: Database) -> None:
    with database.sessions() as session:
        plan = create_repository(session, Event, TENANT).explain(PAGE)
    assert TENANT not in plan.statement
    assert plan.text


def advised_within(database: Database, model: Any, tenant: Any, options: Any) -> tuple[IndexAdvice, ...]:
    """The advice, once each of its indexes was made and has ended it; all within a transaction that is undone."""
    with database.engine.connect() as connection, Session(connection) as session:
        repository: Any = create_repository(session, model, tenant, auto_commit=False)
        plan = repository.explain(options)
        for advice in plan.advice:
            advice.index.create(connection)
        assert repository.explain(options).advice == ()
        connection.rollback()
    return plan.advice  # type: ignore[no-any-return]  # a QueryPlan


VALUES: dict[str, Any] = {
    "name": "abcd",
    "email": "abcd%",
    "status": "active",
    "score": 4,
    "balance": "1.5",
    "settings.theme": "dark",
    "settings.size": 5,
    "settings": {"a": 1},
    "seen_at": "2024-01-01",
    "active": True,
    "avatar": b"x",
    "tenant_id": "a",
    "is_deleted": True,
    "id": "00000000-0000-0000-0000-000000000001",
    "posts": True,
    "posts.title": "abcd",
    "posts.tags.name": "abcd",
}


@pytest.mark.parametrize("field", sampled(list(VALUES), 3))
def test_every_advice_can_be_followed_and_is_not_given_again(database: Database, field: str) -> None:
    tried = 0
    for operator in FilterOperator:
        value = VALUES[field]
        listed = operator in ("in", "not_in", "between")
        condition = {"field": field, "operator": operator, "value": [value, value] if listed else value}
        for rest in ({}, {"sorts": [{"field": "seen_at", "nulls": "first"}, {"field": "name"}], "pagination": {}}):
            try:
                found = advised_within(database, models.User, "a", {"filters": [condition], **rest})
            except ValidationError:
                continue  # the operator is not for this type
            tried += 1
            assert all("avatar" not in each.columns for each in found)
    assert tried


@pytest.mark.parametrize(
    ("model", "tenant", "field", "value", "expected"),
    [
        (
            models.Post,
            "a",
            "author.name",
            "x",
            [
                ("posts", ("tenant_id", "id")),
                ("posts", ("tenant_id", "author_id")),
                ("users", ("tenant_id", "name")),
            ],
        ),
        (models.Tag, "a", "posts.title", "x", [("tags", ("tenant_id", "id")), ("post_tags", ("tag_id",))]),
        (models.Post, "a", "tags.name", "x", [("posts", ("tenant_id", "id"))]),
        (models.Seat, 1, "holder", "x", [("seats", ("org", "holder", "number"))]),
        (Animal, "a", "kind", "cat", [("animals", ("tenant_id", "kind", "id"))]),
        (Cat, ALL_TENANTS, "lives", 7, [("cats", ("lives", "id"))]),
        (Cat, "a", "name", "x", [("animals", ("tenant_id", "name"))]),
        (Cat, "a", "lost", 2, [("animals", ("tenant_id",))]),
        (Name, None, "name", "x", []),
    ],
)
def test_classes_of_every_kind(
    database: Database, dialect: str, model: Any, tenant: Any, field: str, value: Any, expected: Any
) -> None:
    found = advised_within(database, model, tenant, {"filters": [{"field": field, "value": value}]})
    by_row_number = {("tenant_id", "id")} if dialect == "sqlite" and model is models.Tag else set()
    wanted = [each for each in expected if each[1] not in by_row_number]
    assert [(each.table, each.columns) for each in found if each.columns not in by_row_number] == wanted


def test_an_enum_that_is_text_has_no_range_in_an_index(face: Face, dialect: str) -> None:
    options = {"filters": [{"field": "status", "operator": "gt", "value": "new"}], "sorts": [{"field": "status"}]}
    columns = [advice.columns for advice in explain(face, options, models.User, "a").advice]
    assert columns == ([] if dialect == "sqlite" else [("tenant_id", "status", "id")])


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True, scope="module")
@pytest.mark.parametrize(
    "options",
    [
        PAGE,
        {"filters": [{"field": "notes.body", "value": "note5"}]},
        {"filters": [{"field": "parent.title", "value": "word7"}, {"field": "code", "value": "c1253"}]},
        {"filters": [{"field": "code", "operator": "in", "value": ["c13", "c23"]}], "sorts": [{"field": "parent.at"}]},
        {"filters": [{"field": "id", "operator": "lt", "value": 400}], "sorts": [{"field": "id", "order": "desc"}]},
    ],
)
def test_the_text_is_what_postgresql_would_have_written(database: Database, options: Any) -> None:
    given: list[Any] = []

    def listen(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("EXPLAIN"):
            given.append(parameters)

    event.listen(database.engine, "before_cursor_execute", listen)
    with database.sessions() as session:
        plan = create_repository(session, Event, TENANT).explain(options)
    event.remove(database.engine, "before_cursor_execute", listen)
    with database.engine.connect() as connection:
        told = connection.exec_driver_sql(f"EXPLAIN {plan.statement}", given[0]).scalars().all()
    assert plan.text.splitlines() == list(told)
