"""What a policy of the database can be made of: everything else is refused by name, and nothing is left out."""

from __future__ import annotations

import operator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, and_, create_engine, func, not_, or_, text
from sqlalchemy.orm import Session, sessionmaker

from dotmac_database import (
    MisuseError,
    Policy,
    PolicyNotExpressibleError,
    QueryFilter,
    RowLevelSecurity,
    all_of,
    any_of,
    bind_policies,
    bind_tenant,
    create_repository,
    guard_tenants,
    none_of,
)
from dotmac_database.engines import Database

from .row_models import Actor, Base, Level, Note, Team, fill


def _helper(a: Any) -> bool:
    return a.role is None


def _caught(a: Any) -> Any:
    try:
        return bool(a.role == "auditor")
    except Exception:  # noqa: BLE001 - as an application could
        return True


REFUSED: dict[str, tuple[Any, str]] = {
    "if": (lambda a: True if a.is_admin else False, "actor.is_admin"),  # noqa: SIM210 - the case
    "if of a comparison": (lambda a: True if a.role == "x" else False, "actor.role"),  # noqa: SIM210 - the case
    "or": (lambda a: a.role == "x" or False, "actor.role"),
    "not": (lambda a: not a.is_admin, "actor.is_admin"),
    "in a tuple": (lambda a: a.role in ("x", "y"), "actor.role"),
    "in a set": (lambda a: a.role in {"x", "y"}, "actor.role"),
    "in the actor's list": (lambda a: "x" in a.roles, "actor.roles"),
    "iteration": (lambda a: [QueryFilter("owner_id", "in", list(a.ids))], "actor.ids"),
    "length": (lambda a: len(a.ids) > 1, "actor.ids"),
    "text": (lambda a: [QueryFilter("title", "eq", f"of {a.name}")], "actor.name"),
    "str": (lambda a: [QueryFilter("title", "eq", str(a.name))], "actor.name"),
    "arithmetic": (lambda a: [QueryFilter("owner_id", "eq", a.id + 1)], "actor.id"),
    "call": (lambda a: a.may("read"), "actor.may"),
    "two values": (lambda a: a.id == a.boss, "actor.id"),
    "None": (lambda a: or_(a.role == None), "NoneType"),  # noqa: E711
    "order of texts": (lambda a: a.role > "x", "actor.role"),
    "is None": (lambda a: a.role is None, '"is"'),
    "is in a function": (_helper, '"is"'),
    "a caught refusal": (_caught, "actor.role"),
    "isinstance": (lambda a: isinstance(a, Actor), "isinstance"),
    "hasattr": (lambda a: hasattr(a, "admin"), "hasattr"),
    "type": (lambda a: type(a) == Actor, "class"),  # noqa: E721
    "class": (lambda a: a.__class__ == Actor, "class"),
    "operator.is_": (lambda a: operator.is_(a.role, None), "is_"),
    "pattern": (lambda a: [QueryFilter("title", "starts_with", a.name)], "actor.name"),
    "a list of values": (lambda a: [QueryFilter("owner_id", "in", [a.id, 5])], "actor.id"),
    "a value without a type": (lambda a: Note.title == func.lower(a.name), "actor.name"),
    "another error": (lambda a: {}["x"], "KeyError"),
    "unknown field": (lambda a: [QueryFilter("owner", "eq", a.id)], "owner"),
}


@pytest.mark.parametrize("right", ["read", "create", "update", "delete", "check"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_needs_a_value_in_python_is_refused_by_name(case: str, right: str) -> None:
    rule, named = REFUSED[case]
    rules: dict[str, Any] = {"read": True, right: rule}
    with pytest.raises(PolicyNotExpressibleError, match="Note") as caught:
        RowLevelSecurity(Base.metadata, policies=[Policy(Note, **rules)]).create_statements()
    assert named in str(caught.value)
    rights = ("create", "update") if right == "check" else (right,)
    assert any(each in str(caught.value) for each in rights)


def test_two_policies_and_models_without_a_tenant_are_refused() -> None:
    with pytest.raises(MisuseError, match="combine"):
        RowLevelSecurity(Base.metadata, policies=[Policy(Note), Policy(Note)]).create_statements()


def test_a_rule_that_needs_a_hidden_row_to_be_missing_is_refused() -> None:
    team = Policy(Team, read=lambda a: [QueryFilter("lead_id", "eq", a.id)])
    for rule in (
        lambda a: not_(Note.team.has(Team.lead_id == a.id)),
        lambda a: [none_of(QueryFilter("team.lead_id", "eq", a.id))],
        lambda a: [QueryFilter("team", "is_null")],
    ):
        policy = Policy(Note, read=rule)
        with pytest.raises(PolicyNotExpressibleError, match="teams do not exist"):
            RowLevelSecurity(Base.metadata, policies=[policy, team]).create_statements()
        assert RowLevelSecurity(Base.metadata, policies=[policy]).create_statements()
    positive = Policy(Note, read=lambda a: [QueryFilter("team.lead_id", "eq", a.id)])
    assert RowLevelSecurity(Base.metadata, policies=[positive, team]).create_statements()


def test_hidden_columns_are_findings(owner_engine: Engine) -> None:
    policy = Policy(Note, read=True, hidden=["title"], read_only=lambda a: ["level"] if a.admin else [])
    rls = RowLevelSecurity(Base.metadata, policies=[policy])
    with owner_engine.connect() as connection:
        rls.apply(connection)
        found = {each.object: each.risk for each in rls.verify(connection) if each.object.startswith("Note: ")}
        assert set(found) == {"Note: hidden", "Note: read_only"}
        assert "title" in found["Note: hidden"]
        assert not any(
            each.object.startswith("Note: ")
            for each in rls.verify(connection, accepted=["Note: hidden", "Note: read_only"])
        )
        connection.rollback()


VALUES: dict[str, Any] = {
    "owner_id": lambda a: a.id,
    "title": lambda a: a.name,
    "level": lambda a: a.level,
    "team.lead_id": lambda a: a.id,
}
LEAVES = st.one_of(
    st.tuples(st.sampled_from(list(VALUES)), st.sampled_from(["eq", "ne"])).map(
        lambda each: lambda a: QueryFilter(each[0], each[1], VALUES[each[0]](a))
    ),
    st.sampled_from(["owner_id", "team_id"]).flatmap(
        lambda field: st.sampled_from(["in", "not_in"]).map(lambda op: lambda a: QueryFilter(field, op, a.team_ids))
    ),
    st.sampled_from(["gt", "lte"]).map(lambda op: lambda a: QueryFilter("owner_id", op, a.id)),
    st.sampled_from(["x", "kept", "gone", 'it\'s \\ "odd"']).map(
        lambda word: lambda a: QueryFilter("title", "ne", word)
    ),
    st.sampled_from(["title", "team", "owner_id"]).map(lambda field: lambda a: QueryFilter(field, "is_not_null")),
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.tuples(st.sampled_from([any_of, all_of, none_of]), st.lists(inner, min_size=1, max_size=3)).map(
        lambda each: lambda a: each[0](*(member(a) for member in each[1]))
    ),
    max_leaves=5,
)
RULES = st.one_of(
    FILTERS.map(lambda made: lambda a: [made(a)]),
    st.tuples(st.sampled_from([or_, and_]), st.sampled_from(["auditor", "member"]), st.booleans()).map(
        lambda each: (
            lambda a: each[0](
                a.role == each[1],
                Note.owner_id == a.id,
                Note.team_id.in_(a.team_ids) if each[2] else a.level == Level.HIGH,
            )
        )
    ),
)
PEOPLE = st.builds(
    Actor,
    id=st.sampled_from([1, 2, 7]),
    role=st.sampled_from(["member", "auditor"]),
    team_ids=st.sampled_from([[], [1], [1, 2]]),
    level=st.sampled_from(Level),
    name=st.sampled_from(["x", "kept", 'a "b" \\ \'']),
)


def _agree(rule: Any, actor: Actor, owner_engine: Engine, app: Database, lite: Engine) -> None:
    policy = Policy(Note, read=rule)
    rls = RowLevelSecurity(Base.metadata, policies=[policy])
    with owner_engine.begin() as connection:
        rls.apply(connection)
    found = []
    for engine in (lite, owner_engine):  # the owner of the tables is a superuser here
        with Session(engine) as session:
            bind_policies(session, [policy], actor=actor)
            found.append(sorted(each.id for each in create_repository(session, Note, tenant_id="a").list()))
    with guard_tenants(sessionmaker(app.engine), rls=rls)() as session:
        bind_tenant(session, "a")
        bind_policies(session, [], actor=actor)
        rows = session.execute(text("SELECT id FROM notes WHERE NOT is_deleted ORDER BY id"))
        assert [*rows.scalars()] == found[0] == found[1]


@pytest.fixture(scope="module")
def lite() -> Any:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        fill(connection)
    yield engine
    engine.dispose()


PROPERTY = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture], "database": None}


@settings(max_examples=40, derandomize=True, **PROPERTY)
@given(rule=RULES, actor=PEOPLE)
def test_repositories_and_policies_admit_the_same_rows(
    owner_engine: Engine, app: Database, lite: Engine, rule: Any, actor: Actor
) -> None:
    _agree(rule, actor, owner_engine, app, lite)


@pytest.mark.matrix
@settings(max_examples=600, **PROPERTY)
@given(rule=RULES, actor=PEOPLE)
def test_they_admit_the_same_rows_at_length(
    owner_engine: Engine, app: Database, lite: Engine, rule: Any, actor: Actor
) -> None:
    _agree(rule, actor, owner_engine, app, lite)
