"""Random policies of two actors who act in turns: no value of the one is in a statement of the other.

Statements are cached by the shape of the rules, so the actors often have rules of one shape with different values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import MetaData
from sqlalchemy.orm import Session

from dotmac_database import (
    Count,
    EntityNotFoundError,
    FilterGroup,
    PermissionDeniedError,
    Policy,
    QueryFilter,
    any_of,
    bind_policies,
)
from dotmac_database.engines import Database
from dotmac_database.repositories import create_repository
from tests.conftest import empty
from tests.policies.attack_models import Base, Note, Paper, rows_of


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture(scope="module")
def filled(_database: Database, tables: MetaData) -> Iterator[Database]:
    with Session(_database.engine) as session:
        session.add_all([*rows_of("one", 0), *rows_of("two", 100)])
        session.commit()
    yield _database
    empty(_database, tables)


class Row(NamedTuple):
    """A paper in plain Python. ``notes`` are the owners of its notes, by their ids."""

    id: int
    owner: str
    level: int
    label: str | None
    notes: dict[int, str]


ROWS = [
    Row(1, "ann", 0, None, {1: "ann", 2: "bob"}),
    Row(2, "bob", 0, "shared", {3: "bob"}),
    Row(3, "bob", 1, None, {4: "ann"}),
    Row(4, "ann", 2, "shared", {5: "cat"}),
    Row(5, "cat", 1, None, {}),
]

OWNERS, LEVELS = st.sampled_from(["ann", "bob", "cat"]), st.integers(0, 2)
LEAVES = st.one_of(
    st.builds(lambda value: QueryFilter("owner", "eq", value), OWNERS),
    st.builds(lambda values: QueryFilter("owner", "in", values), st.lists(OWNERS, max_size=3)),
    st.builds(lambda values: QueryFilter("owner", "not_in", values), st.lists(OWNERS | st.none(), max_size=3)),
    st.builds(lambda low: QueryFilter("level", "between", [low, low + 1]), LEVELS),
    st.builds(lambda value: QueryFilter("label", "eq", value), st.sampled_from([None, "shared", "x"])),
    st.builds(lambda value: QueryFilter("label", "ne", value), st.sampled_from([None, "shared", "x"])),
    st.builds(lambda value: QueryFilter("notes.owner", "eq", value), OWNERS),
)
RULES = st.recursive(
    LEAVES,
    lambda each: st.builds(
        lambda mode, members: FilterGroup(mode, tuple(members)),
        st.sampled_from(["any", "all", "none"]),
        st.lists(each, min_size=1, max_size=3),
    ),
    max_leaves=4,
)
ANY = st.just(True) | RULES


def other(rule: Any, change: Callable[[Any], Any]) -> Any:
    """A rule of the same shape with other values."""
    if isinstance(rule, FilterGroup):
        return FilterGroup(rule.mode, tuple(other(each, change) for each in rule.members))
    return rule if rule is True else QueryFilter(rule.field, rule.operator, change(rule.value))


def turned(value: Any) -> Any:
    if isinstance(value, list):
        return [turned(each) for each in value]
    return {"ann": "bob", "bob": "cat", "cat": "ann", "shared": "x", "x": "shared", 0: 1, 1: 2, 2: 3, 3: 4}.get(value)


def meets(rule: Any, row: Row) -> bool | None:
    """The result of a rule in plain Python; None is SQL's NULL."""
    if isinstance(rule, bool):
        return rule
    if isinstance(rule, FilterGroup):
        results = [meets(each, row) for each in rule.members]
        final = rule.mode != "all"
        result = final if final in results else None if None in results else not final
        return result if rule.mode != "none" or result is None else not result
    value, operator = rule.value, rule.operator.value
    if rule.field == "notes.owner":
        return value in row.notes.values()
    own = getattr(row, rule.field)
    if operator == "in":
        return own in value
    if operator == "not_in":
        return None not in value and own not in value
    if operator == "between":
        return bool(value[0] <= own <= value[1])
    if value is not None and own is None:
        return None
    return bool((own == value) is (operator == "eq"))


Expected = Callable[[list[Row], Callable[[int], bool]], Any]
READS: dict[str, tuple[Callable[[Any, Session], Any], Expected]] = {
    "list": (lambda papers, _: [each.id for each in papers.list()], lambda rows, _: [row.id for row in rows]),
    "get": (
        lambda papers, _: [n for n in (*range(1, 6), 101) if papers.get_by_id(n) is not None],
        lambda rows, _: [row.id for row in rows],
    ),
    "total": (
        lambda papers, _: papers.list_paginated({"pagination": {"page": 2, "per_page": 2}}).total,
        lambda rows, _: len(rows),
    ),
    "cursor": (
        lambda papers, _: [
            each.id
            for each in papers.cursor_paginate({"sorts": ["-level", "id"], "cursor_pagination": {"limit": 9}}).items
        ],
        lambda rows, _: [row.id for row in sorted(rows, key=lambda row: (-row.level, row.id))],
    ),
    "aggregate": (
        lambda papers, _: {each["owner"]: each["n"] for each in papers.aggregate({"n": "count"}, group_by="owner")},
        lambda rows, _: {row.owner: len([each for each in rows if each.owner == row.owner]) for row in rows},
    ),
    "count of related rows": (
        lambda papers, _: {each["id"]: each["n"] for each in papers.values("id", n=Count("notes")).list()},
        lambda rows, sees: {row.id: len([*filter(sees, row.notes)]) for row in rows},
    ),
    "include": (
        lambda papers, _: {
            each.id: [note.id for note in each.notes] for each in papers.list({"relationships": ["notes"]})
        },
        lambda rows, sees: {row.id: [*filter(sees, row.notes)] for row in rows},
    ),
    "lazy load": (
        lambda papers, session: (
            session.expunge_all(),
            {each.id: [note.id for note in each.notes] for each in papers.list()},
        )[1],
        lambda rows, sees: {row.id: [*filter(sees, row.notes)] for row in rows},
    ),
    "filter through a relationship": (
        lambda papers, _: [each.id for each in papers.list([QueryFilter("notes.id", "gte", 3)])],
        lambda rows, sees: [row.id for row in rows if any(n >= 3 and sees(n) for n in row.notes)],
    ),
    "select": (
        lambda papers, session: [each.id for each in session.scalars(papers.select())],
        lambda rows, _: [row.id for row in rows],
    ),
}  # fmt: skip


def outcome(papers: Any, n: int) -> Any:
    """The key of the row that was updated, or the class of the error."""
    try:
        return papers.update(n, {"secret": 7}).id
    except (EntityNotFoundError, PermissionDeniedError) as error:
        return type(error)


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(read=ANY, update=ANY, notes=st.just(True) | st.builds(lambda owner: QueryFilter("owner", "eq", owner), OWNERS))
def test_actors_in_turns_see_and_change_what_their_own_rules_admit(
    filled: Database, read: Any, update: Any, notes: Any
) -> None:
    first = (read, update, notes)
    second = tuple(other(each, turned) for each in first)
    for rules in (first, second, first):
        may_read, may_update, may_read_notes = rules
        rows = [row for row in ROWS if meets(may_read, row) is True]
        owners = {n: owner for row in ROWS for n, owner in row.notes.items()}

        def sees(note: int, rule: Any = may_read_notes, owners: dict[int, str] = owners) -> bool:
            return rule is True or owners[note] == rule.value

        with filled.sessions() as session:
            policies = [
                Policy(Paper, read=lambda _, rule=may_read: rule, update=lambda _, rule=may_update: rule, check=True),
                Policy(Note, read=lambda _, rule=may_read_notes: rule),
            ]
            bind_policies(session, policies, actor=None)
            papers = create_repository(session, Paper, "one")
            for name, (way, expected) in READS.items():
                assert way(papers, session) == expected(rows, sees), (name, rules)
            session.rollback()  # lazy loads and select() began a transaction
            changeable = [row.id for row in rows if meets(may_update, row) is True]
            with session.begin():
                assert [each.id for each in papers.for_update().list()] == changeable
                assert papers.update_where([any_of(QueryFilter("id", "gt", 0))], {"secret": 9}) == len(changeable)
                readable = {row.id for row in rows}
                for n in (*range(1, 6), 101):
                    refused = PermissionDeniedError if n in readable else EntityNotFoundError
                    result = outcome(papers, n)
                    assert result == (n if n in changeable else refused), (n, rules)
                session.rollback()
