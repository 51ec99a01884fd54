"""Every way of reading, for each actor: what a policy does not admit is neither returned nor counted.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import MetaData, select
from sqlalchemy.orm import Session

from dotmac_database import (
    Count,
    MisuseError,
    PermissionDeniedError,
    Policy,
    QueryFilter,
    ValidationError,
    all_of,
    any_of,
    bind_policies,
)
from dotmac_database.engines import Database
from tests.conftest import Face, counted, empty
from tests.policies.models import (
    ACTORS,
    AUDITOR,
    OTHER,
    OWNER,
    POLICIES,
    TAG_OWNERS,
    TENANTS,
    Doc,
    DocRow,
    Line,
    PolicyBase,
    Tag,
    Team,
    docs_of,
    readable,
    rows_of,
)


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return PolicyBase.metadata


@pytest.fixture(scope="module")
def filled(_database: Database, tables: MetaData) -> Iterator[Database]:
    """A database with the rows of both tenants, which no test of this module changes."""
    with Session(_database.engine) as session:
        session.add_all([each for tenant in TENANTS for each in rows_of(tenant)])
        session.commit()
    yield _database
    empty(_database, tables)


@pytest.fixture(params=["sync", "async"])
def reading(request: pytest.FixtureRequest, filled: Database, _runner: Any) -> Face:
    return Face(request.param, filled, _runner)


SESSIONS = ("plain", "guarded", "in a transaction")


def opened(face: Face, ring: str) -> AbstractContextManager[Any]:
    return face.guarded() if ring == "guarded" else face.session()


Expected = Callable[[list[DocRow], list[DocRow], Any], Any]


def tags_of(actor: Any, row: DocRow) -> list[int]:
    """The tags of a document that the actor may read."""
    if actor is None:
        return []
    return sorted(each for each in row.tags if actor.role == "auditor" or TAG_OWNERS[each % 100 - 1] == actor.id)


def lines_of(actor: Any, row: DocRow) -> list[int]:
    """The lines of a document that the actor may read."""
    may = actor is not None and (actor.role == "auditor" or actor.id == row.owner)
    return sorted(row.lines) if may else []


def ids(entities: Any) -> list[int]:
    return [each.id for each in entities]


def stream(face: Face, repository: Any) -> list[int]:
    return ids(face(repository.stream, None, 2))


def pages(face: Face, repository: Any) -> tuple[list[int], int]:
    found: list[int] = []
    total, page = 0, 1
    while True:
        result = face(repository.list_paginated, {"pagination": {"page": page, "per_page": 2}})
        found += ids(result.items)
        total = result.total
        if not result.has_next:
            return found, total
        page += 1


def cursors(face: Face, repository: Any, sorts: Any = ("-title",)) -> list[int]:
    found: list[int] = []
    cursor = None
    while True:
        options = {"sorts": list(sorts), "cursor_pagination": {"limit": 2, "cursor": cursor}}
        page = face(repository.cursor_paginate, options)
        found += ids(page.items)
        cursor = page.next_cursor
        if cursor is None:
            return sorted(found)


def by_field(face: Face, repository: Any) -> list[int]:
    every = [row for tenant in TENANTS for row in docs_of(tenant)]
    entities = [face(repository.get_by_field, "title", row.title) for row in every]
    return [each.id for each in entities if each is not None]


READS: dict[str, tuple[Callable[[Face, Any], Any], Expected]] = {
    "list": (lambda face, docs: ids(face(docs.list)), lambda own, _all, _actor: [row.id for row in own]),
    "list with deleted": (
        lambda face, docs: ids(face(docs.list, {"include_deleted": True})),
        lambda _own, every, _actor: [row.id for row in every],
    ),
    "pages": (pages, lambda own, _all, _actor: ([row.id for row in own], len(own))),
    "cursors": (cursors, lambda own, _all, _actor: sorted(row.id for row in own)),
    "cursors through a relationship": (
        lambda face, docs: cursors(face, docs, ("team.name", "-id")),
        lambda own, _all, _actor: sorted(row.id for row in own),
    ),
    "stream": (stream, lambda own, _all, _actor: [row.id for row in own]),
    "count": (lambda face, docs: face(docs.count), lambda own, _all, _actor: len(own)),
    "first": (
        lambda face, docs: [each.id for each in [face(docs.first)] if each is not None],
        lambda own, _all, _actor: [row.id for row in own[:1]],
    ),
    "get": (
        lambda face, docs: [n for n in (*range(1, 9), *range(101, 109)) if face(docs.get_by_id, n) is not None],
        lambda own, _all, _actor: [row.id for row in own],
    ),
    "exists": (
        lambda face, docs: [n for n in (*range(1, 9), *range(101, 109)) if face(docs.exists, n)],
        lambda own, _all, _actor: [row.id for row in own],
    ),
    "get_many": (
        lambda face, docs: ids(face(docs.get_many, [*range(8, 0, -1), *range(101, 109)])),
        lambda own, _all, _actor: sorted((row.id for row in own), key=lambda n: (n > 100, -n if n < 100 else n)),
    ),
    "get_by_field": (by_field, lambda own, _all, _actor: [row.id for row in own]),
    "list_by_field": (
        lambda face, docs: ids(face(docs.list_by_field, "owner_id", "bob")),
        lambda own, _all, _actor: [row.id for row in own if row.owner == "bob"],
    ),
    "values": (
        lambda face, docs: face(docs.values("id", "owner_id").list),
        lambda own, _all, _actor: [{"id": row.id, "owner_id": row.owner} for row in own],
    ),
    "counts": (
        lambda face, docs: [
            (each["id"], each["tags"], each["lines"])
            for each in face(docs.values("id", tags=Count("tags"), lines=Count("lines")).list)
        ],
        lambda own, _all, actor: [(row.id, len(tags_of(actor, row)), len(lines_of(actor, row))) for row in own],
    ),
    "filtered counts": (
        lambda face, docs: [
            (each["id"], each["tags"])
            for each in face(docs.values("id", tags=Count("tags", [QueryFilter("name", "eq", "tag 2")])).list)
        ],
        lambda own, _all, actor: [
            (row.id, len([each for each in tags_of(actor, row) if each % 100 == 2])) for row in own
        ],
    ),
    "include": (
        lambda face, docs: [
            (doc.id, ids(doc.tags), ids(doc.lines)) for doc in face(docs.list, {"relationships": ["tags", "lines"]})
        ],
        lambda own, _all, actor: [(row.id, tags_of(actor, row), lines_of(actor, row)) for row in own],
    ),
    "include with options": (
        lambda face, docs: [
            (doc.id, ids(doc.tags))
            for doc in face(docs.list, {"relationships": {"tags": {"pagination": {"page": 1, "per_page": 5}}}})
        ],
        lambda own, _all, actor: [(row.id, tags_of(actor, row)) for row in own],
    ),
    "filter through a relationship": (
        lambda face, docs: ids(face(docs.list, [QueryFilter("tags.name", "eq", "tag 3")])),
        lambda own, _all, actor: [row.id for row in own if any(each % 100 == 3 for each in tags_of(actor, row))],
    ),
    "filter by the absence of related rows": (
        lambda face, docs: ids(face(docs.list, [QueryFilter("lines", "is_null", True)])),
        lambda own, _all, actor: [row.id for row in own if not lines_of(actor, row)],
    ),
    "aggregate": (
        lambda face, docs: {
            each["owner_id"]: each["n"] for each in face(docs.aggregate, {"n": "count"}, group_by="owner_id")
        },
        lambda own, _all, _actor: {
            owner: len([row for row in own if row.owner == owner]) for owner in sorted({row.owner for row in own})
        },
    ),
    "distinct values": (
        lambda face, docs: face(docs.distinct_values, "title"),
        lambda own, _all, _actor: sorted(row.title for row in own),
    ),
    "stats": (
        lambda face, docs: {
            key: face(docs.get_tenant_stats)[key] for key in ("total_entities", "deleted_entities")
        },
        lambda own, every, _actor: {"total_entities": len(own), "deleted_entities": len(every) - len(own)},
    ),
    "select": (
        lambda face, docs: ids(face(docs.db.scalars, docs.select([QueryFilter("status", "eq", "draft")]))),
        lambda own, _all, _actor: [row.id for row in own],
    ),
}  # fmt: skip


CELLS = [
    pytest.param(who, ring, marks=() if SESSIONS[place % 3] == ring else pytest.mark.matrix)
    for place, who in enumerate(ACTORS)
    for ring in SESSIONS
]
"""Each actor on each session; a third of them by default."""


@pytest.mark.parametrize(("who", "ring"), CELLS)
def test_each_way_of_reading_returns_what_the_policy_admits(reading: Face, who: str, ring: str) -> None:
    actor = ACTORS[who]
    for tenant in TENANTS:
        every = [row for row in docs_of(tenant) if readable(actor, row)]
        own = [row for row in every if not row.deleted]
        with opened(reading, ring) as session:
            if ring == "in a transaction":
                reading(session.begin)
            bind_policies(session, POLICIES, actor=actor)
            docs = reading.repository(session, Doc, tenant)
            for name, (read, expected) in READS.items():
                result = read(reading, docs)
                assert result == expected(own, every, actor), (name, who, tenant)


def hidden_uses(face: Face, docs: Any, lines: Any, name: str) -> dict[str, Callable[[], Any]]:
    """Each way to name the field ``name`` of a document."""
    return {
        "filter": lambda: face(docs.list, [QueryFilter(name, "eq", 10)]),
        "filter in a group": lambda: face(docs.count, [any_of(all_of(QueryFilter(name, "gt", 10)))]),
        "update": lambda: face(docs.update_where, [QueryFilter(name, "gt", 10)], {"title": "x"}),
        "sort": lambda: face(docs.list, {"sorts": [f"-{name}"]}),
        "cursor": lambda: face(docs.cursor_paginate, {"sorts": [name]}),
        "page": lambda: face(docs.list_paginated, {"sorts": [name]}),
        "stream": lambda: face(docs.stream, {"sorts": [name]}),
        "values": lambda: face(docs.values("id", name).list),
        "aggregate": lambda: face(docs.aggregate, {"most": ("max", name)}),
        "group": lambda: face(docs.aggregate, {"n": "count"}, group_by=name),
        "distinct": lambda: face(docs.distinct_values, name),
        "by field": lambda: face(docs.get_by_field, name, 10),
        "undefer": lambda: face(docs.undefer(name).list),
        "select": lambda: docs.select({"sorts": [name]}),
        "within": lambda: face(lines.list, [QueryFilter(f"doc.{name}", "gt", 1)]),
        "sort within": lambda: face(lines.list, {"sorts": [f"doc.{name}"]}),
        "count within": lambda: face(docs.values("id", n=Count("lines", [QueryFilter(f"doc.{name}", "gt", 1)])).list),
    }


@pytest.mark.parametrize("name", ["salary", "rich", "double_salary"])
def test_a_hidden_field_is_an_unknown_field(reading: Face, name: str) -> None:
    with reading.session() as session:
        bind_policies(session, POLICIES, actor=OTHER)
        docs, lines = (reading.repository(session, model, "one") for model in (Doc, Line))
        unknown = hidden_uses(reading, docs, lines, "surely_unknown")
        for way, use in hidden_uses(reading, docs, lines, name).items():
            with pytest.raises(ValidationError) as hidden:
                use()
            with pytest.raises(ValidationError) as other:
                unknown[way]()
            assert str(hidden.value).replace(name, "surely_unknown") == str(other.value), way
            assert "salary" not in str(other.value), way


def test_a_misspelt_name_suggests_no_hidden_field(reading: Face) -> None:
    with reading.session() as session:
        bind_policies(session, POLICIES, actor=OTHER)
        docs = reading.repository(session, Doc, "one")
        for options in ({"sorts": ["salry"]}, [QueryFilter("salry", "eq", 1)]):
            with pytest.raises(ValidationError) as error:
                reading(docs.list, options)
            assert "salary" not in str(error.value)


def test_the_attribute_of_a_hidden_column_raises_and_is_not_selected(reading: Face) -> None:
    with reading.session() as session:
        bind_policies(session, POLICIES, actor=AUDITOR)
        docs, lines = (reading.repository(session, model, "one") for model in (Doc, Line))
        with counted(reading.engine) as sent:
            [doc] = reading(docs.get_many, [1], relationships=["team.docs"])
            read = [doc, *doc.team.docs]
            [line] = reading(lines.list, {"filters": [QueryFilter("id", "eq", 5)], "relationships": ["doc"]})
        assert not any("salary" in statement for statement in sent)
        for each in (line.doc, *read):
            for name in ("salary", "double_salary", "rich"):
                with pytest.raises(PermissionDeniedError):
                    getattr(each, name)


def test_the_owner_sees_the_column_that_is_hidden_from_others(reading: Face) -> None:
    with reading.session() as session:
        bind_policies(session, POLICIES, actor=OWNER)
        docs = reading.repository(session, Doc, "one")
        doc = reading(docs.get_by_id, 2)
        assert (doc.salary, doc.rich) == (200, True)
        assert ids(reading(docs.list, [QueryFilter("rich", "eq", True)])) == [2, 3, 5]


def test_a_row_class_has_no_value_for_a_hidden_column(reading: Face) -> None:
    class Card(BaseModel):
        id: int
        salary: int | None = None

    class Strict(BaseModel):
        salary: int | None

    with reading.session() as session:
        bind_policies(session, POLICIES, actor=OTHER)
        docs = reading.repository(session, Doc, "one")
        assert [each.salary for each in reading(docs.values(Card).list)] == [None] * 3
        with pytest.raises(ValidationError):
            docs.values(Strict)


def test_a_read_sends_as_many_statements_with_policies_as_without(reading: Face) -> None:
    for name in ("list", "pages", "cursors", "get", "counts", "include", "include with options", "aggregate"):
        read, numbers = READS[name][0], []
        for policies in ([], POLICIES):
            with reading.session() as session:
                bind_policies(session, policies, actor=AUDITOR)
                docs = reading.repository(session, Doc, "one")
                with counted(reading.engine) as sent:
                    read(reading, docs)
                numbers.append(len([each for each in sent if each.lstrip().startswith(("SELECT", "WITH"))]))
        assert numbers[0] == numbers[1], name


def test_a_lazy_load_is_confined(filled: Database) -> None:
    with filled.sessions() as session:
        bind_policies(session, POLICIES, actor=OTHER)
        face = Face("sync", filled)
        for doc in face.repository(session, Doc, "one").list():
            row = next(each for each in docs_of("one") if each.id == doc.id)
            assert ids(doc.tags) == tags_of(OTHER, row)
            assert ids(doc.lines) == lines_of(OTHER, row)
            if doc.team is not None:
                teams_docs = [each for each in docs_of("one") if each.lead == row.lead and readable(OTHER, each)]
                assert ids(doc.team.docs) == [each.id for each in teams_docs]
                for each in doc.team.docs:
                    with pytest.raises(PermissionDeniedError):
                        _ = each.salary


def test_a_policy_of_a_repository_takes_the_place_of_the_sessions(reading: Face) -> None:
    everything = Policy(Doc, read=True)
    with reading.session() as session:
        docs = reading.repository(session, Doc, "one")
        assert len(reading(docs.list)) == 6
        with pytest.raises(MisuseError, match="actor="):
            docs.with_policy(everything)
        bind_policies(session, POLICIES, actor=OWNER)
        ruled = reading.repository(session, Doc, "one")
        assert ids(reading(ruled.with_policy(everything).list)) == [1, 2, 3, 4, 5, 6]
        assert ids(reading(ruled.with_policy(everything, actor=None).list)) == [1, 2, 3, 4, 5, 6]
        # The policies of other models still hold.
        assert ids(reading(ruled.with_policy(everything).list, [QueryFilter("tags.name", "eq", "tag 2")])) == []
        with pytest.raises(MisuseError, match="two policies"):
            ruled.with_policy(everything, everything)
        with pytest.raises(MisuseError, match="serves one actor"):
            bind_policies(session, POLICIES, actor=OTHER)


COMPOSED = {
    "and": (lambda a, b: a & b, lambda row: row.owner == "ann" and row.lead is None, {"salary", "title"}),
    "or": (lambda a, b: a | b, lambda row: row.owner == "ann" or row.lead is None, {"salary"}),
}


@pytest.mark.parametrize("how", COMPOSED)
def test_policies_compose(reading: Face, how: str) -> None:
    combine, admits, hidden = COMPOSED[how]
    first = Policy(Doc, read=lambda actor: Doc.owner_id == actor.id, hidden=["salary", "title"])
    second = Policy(Doc, read=lambda _: [QueryFilter("team_id", "is_null")], hidden=[Doc.salary])
    with reading.session() as session:
        docs = reading.repository(session, Doc, "one").with_policy(combine(first, second), actor=OWNER)
        entities = reading(docs.list)
        assert ids(entities) == [row.id for row in docs_of("one") if admits(row) and not row.deleted]
        for name in ("salary", "title", "owner_id"):
            if name in hidden:
                with pytest.raises(PermissionDeniedError):
                    getattr(entities[0], name)
            else:
                getattr(entities[0], name)


def test_a_subselect_of_a_rule_is_confined_to_the_tenant(reading: Face) -> None:
    leads = Policy(Doc, read=lambda _: Doc.id.in_(select(Line.doc_id).where(Line.text == "line 0")))
    foreign = Policy(Doc, read=lambda _: select(Line.id).where(Line.id > 100).exists())
    for ring in SESSIONS[:2]:
        with opened(reading, ring) as session:
            docs = reading.repository(session, Doc, "one")
            assert len(reading(docs.with_policy(leads, actor=OWNER).list)) == 6
            assert reading(docs.with_policy(foreign, actor=OWNER).list) == []


REFUSED: dict[str, Any] = {
    "None": lambda _: None,
    "an empty list": lambda _: [],
    "an empty group": lambda _: all_of(),
    "a list of an empty group": lambda _: [all_of(all_of())],
    "text": lambda _: "owner_id",
    "a number": lambda _: 1,
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_rule_that_says_nothing_is_refused(reading: Face, what: str) -> None:
    with reading.session() as session:
        docs = reading.repository(session, Doc, "one").with_policy(Policy(Doc, read=REFUSED[what]), actor=OWNER)
        with pytest.raises(ValidationError):
            reading(docs.list)


def test_a_coroutine_is_no_rule(reading: Face) -> None:
    async def read(_: object) -> bool:
        return True

    with reading.session() as session:
        policy = Policy(Doc, read=lambda actor: _closed(read(actor)))
        docs = reading.repository(session, Doc, "one").with_policy(policy, actor=OWNER)
        with pytest.raises(MisuseError, match="coroutine"):
            reading(docs.list)


def _closed(coroutine: Any) -> Any:
    coroutine.close()
    return coroutine


def test_a_model_without_a_policy_is_ruled_by_tenancy_alone_unless_policies_are_required(reading: Face) -> None:
    with reading.session() as session:
        bind_policies(session, [], actor=OWNER)
        assert len(reading(reading.repository(session, Team, "one").list)) == 2
    with reading.session() as session:
        bind_policies(session, POLICIES, actor=OWNER, required=True)
        with pytest.raises(PermissionDeniedError, match="Team has no policy"):
            reading(reading.repository(session, Team, "one").list)
        assert reading(reading.repository(session, Tag, "one").count) == 1


def test_a_column_that_the_repository_needs_cannot_be_hidden(reading: Face) -> None:
    for name in ("id", "tenant_id", "version", "is_deleted", "unknown"):
        with reading.session() as session:
            policy = Policy(Doc, read=True, hidden=[name])
            docs = reading.repository(session, Doc, "one").with_policy(policy, actor=OWNER)
            with pytest.raises(ValidationError, match=name):
                reading(docs.list)
