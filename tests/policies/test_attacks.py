"""Ways to learn or change what a policy forbids, each of which has worked once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import MetaData
from sqlalchemy.orm import Session

from dotmac_database import (
    Count,
    EntityNotFoundError,
    PermissionDeniedError,
    Policy,
    QueryFilter,
    ValidationError,
    any_of,
    bind_policies,
)
from dotmac_database.engines import Database
from dotmac_database.repositories import create_repository
from tests.conftest import Face, empty
from tests.policies.attack_models import ADMIN, ANN, BOB, POLICIES, Base, Contract, HistoryBase, Note, Paper, rows_of


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture
def filled(_database: Database, tables: MetaData) -> Iterator[Database]:
    """A database with the rows of both tenants."""
    with Session(_database.engine) as session:
        session.add_all([*rows_of("one", 0), *rows_of("two", 100)])
        session.commit()
    yield _database
    empty(_database, tables)


@pytest.fixture(params=["sync", "async"])
def attacked(request: pytest.FixtureRequest, filled: Database, _runner: Any) -> Face:
    return Face(request.param, filled, _runner)


@pytest.fixture
def contracts(attacked: Face) -> Iterator[None]:
    """Contracts of two tenants, and one that was deleted."""
    HistoryBase.metadata.create_all(attacked.database.engine)
    with Session(attacked.database.engine) as session:
        rows = [(1, "one", "ann"), (2, "one", "bob"), (3, "one", "ann"), (101, "two", "ann")]
        objects = [Contract(id=n, tenant_id=tenant, owner=owner, secret=n) for n, tenant, owner in rows]
        session.add_all(objects)
        session.commit()
        objects[0].secret = 10
        session.delete(objects[2])
        session.commit()
    yield
    HistoryBase.metadata.drop_all(attacked.database.engine)


@pytest.mark.usefixtures("contracts")
def test_the_history_is_that_of_readable_rows_without_hidden_columns(attacked: Face) -> None:
    # An update that changed a hidden column alone is no entry for those from whom it is hidden.
    for actor, readable in ((ANN, {1: 1}), (BOB, {2: 1}), (ADMIN, {1: 2, 2: 1, 3: 2})):
        with attacked.session() as session:
            bind_policies(session, POLICIES, actor=actor)
            repository = attacked.repository(session, Contract, "one")
            entries = {n: attacked(repository.history, n) for n in (1, 2, 3, 101)}
            assert {n: len(found) for n, found in entries.items() if found} == readable
            values = [side for found in entries.values() for each in found for side in (each.before, each.after)]
            assert any("secret" in (each or {}) for each in values) is (actor == ADMIN)


@pytest.mark.usefixtures("contracts")
def test_only_an_actor_who_may_delete_every_row_deletes_the_history(attacked: Face) -> None:
    moment = datetime(2999, 1, 1, tzinfo=UTC)
    for actor in (BOB, ADMIN):
        with attacked.session() as session:
            bind_policies(session, POLICIES, actor=actor)
            repository = attacked.repository(session, Contract, "one")
            if actor == BOB:
                with pytest.raises(PermissionDeniedError):
                    attacked(repository.forget_history, before=moment)
            else:
                assert attacked(repository.forget_history, before=moment) == 5


def test_rows_of_the_same_class_are_linked_by_who_may_update_both(attacked: Face) -> None:
    with attacked.session() as session:
        bind_policies(session, POLICIES, actor=ANN)
        papers = attacked.repository(session, Paper, "one")
        with pytest.raises(PermissionDeniedError):
            attacked(papers.unlink, 1, "children", [2])
        with pytest.raises(PermissionDeniedError):
            attacked(papers.set_links, 1, "children", [4])
        assert attacked(papers.link, 1, "children", [4]) == 1
        assert attacked(papers.unlink, 1, "children", [4]) == 1


def _expired(session: Session) -> Any:
    paper = create_repository(session, Paper, "one").get_by_id(1)
    session.expire(paper)
    return paper


def _refreshed(session: Session) -> Any:
    paper = create_repository(session, Paper, "one").get_by_id(1)
    session.refresh(paper)
    session.refresh(paper, ["notes"])
    return paper


def _created(session: Session) -> Any:
    papers = create_repository(session, Paper, "one")
    papers.delete(4)
    paper = papers.create({"id": 6, "owner": "ann"})
    session.commit()
    session.refresh(paper)
    return papers.get_by_id(1)


def _committed(session: Session) -> Any:
    paper = create_repository(session, Paper, "one").get_by_id(1)
    session.commit()
    return paper


def _selected(session: Session) -> Any:
    statement = create_repository(session, Paper, "one").select([QueryFilter("id", "eq", 1)])
    return session.scalars(statement).one()


def _loaded_before(session: Session) -> Any:
    paper = session.get(Paper, 1)
    assert paper is not None
    assert paper.secret == 11
    return create_repository(session, Paper, "one").get_by_id(1)


WAYS = (_expired, _refreshed, _created, _committed, _selected, _loaded_before)


@pytest.mark.parametrize("expires", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_loaded_later_is_ruled_too(filled: Database, way: Any, expires: bool) -> None:
    with filled.sessions(expire_on_commit=expires) as session:
        bind_policies(session, POLICIES, actor=ANN)
        paper = way(session)
        assert (paper.owner, [each.id for each in paper.notes]) == ("ann", [1])
        for each in (paper, paper.notes[0].paper):
            assert "secret" not in vars(each)
            with pytest.raises(PermissionDeniedError):
                _ = each.secret
        assert [each.id for each in paper.children] == [2]
        assert paper.children[0].children == []
        with pytest.raises(PermissionDeniedError):
            _ = paper.children[0].secret


def test_a_rule_with_an_iterator_is_the_same_for_each_statement(attacked: Face) -> None:
    def others(_: object) -> Any:
        return any_of(QueryFilter("owner", "not_in", (each for each in ("bob", "cat"))))

    with attacked.session() as session:
        bind_policies(session, [Policy(Paper, read=others, update=True)], actor=ANN)
        papers = attacked.repository(session, Paper, "one")
        assert [each.id for each in attacked(papers.list)] == [1, 4]
        assert attacked(papers.update_where, [QueryFilter("id", "gt", 0)], {"level": 5}) == 2
        assert [each.id for each in attacked(session.scalars, papers.select())] == [1, 4]
        with pytest.raises(EntityNotFoundError):
            attacked(papers.update, 3, {"level": 6})


def test_a_hidden_foreign_key_hides_its_relationships(attacked: Face) -> None:
    """Who could filter, sort, count or include by ``parent`` would see ``parent_id``."""
    blind = Policy(Paper, read=True, update=True, hidden=["parent_id"])
    with attacked.session() as session:
        bind_policies(session, [blind], actor=ANN)
        papers = attacked.repository(session, Paper, "one")
        notes = attacked.repository(session, Note, "one")
        attempts: tuple[Callable[[str], Any], ...] = (
            lambda name: attacked(papers.list, [QueryFilter(f"{name}.id", "eq", 1)]),
            lambda name: attacked(papers.count, [QueryFilter(name, "is_null", True)]),
            lambda name: attacked(papers.list, {"sorts": [f"{name}.owner"]}),
            lambda name: attacked(papers.list, {"relationships": [name]}),
            lambda name: attacked(papers.list, {"relationships": {name: {"filters": [QueryFilter("id", "eq", 1)]}}}),
            lambda name: papers.select({"relationships": [name]}),
            lambda name: attacked(papers.explain, {"relationships": [name]}),
            lambda name: papers.values("id", n=Count(name)),
            lambda name: attacked(papers.aggregate, {"n": "count"}, group_by=f"{name}.id"),
            lambda name: attacked(notes.list, [QueryFilter(f"paper.{name}.id", "eq", 1)]),
            lambda name: attacked(notes.list, {"relationships": [f"paper.{name}"]}),
        )
        for attempt in attempts:
            messages = []
            for name in ("parent", "children", "surely_unknown"):
                with pytest.raises(ValidationError) as error:
                    attempt(name)
                messages.append(str(error.value).replace(name, "surely_unknown"))
            assert len(set(messages)) == 1, messages
        assert {"parent_id", "parent", "children"} <= papers.hidden_columns()
        assert len(attacked(papers.list, {"relationships": ["notes.paper"]})) == 5


def test_a_relationship_of_a_hidden_foreign_key_is_not_loaded_lazily(filled: Database) -> None:
    with filled.sessions() as session:
        bind_policies(session, [Policy(Paper, read=True, hidden=["parent_id"])], actor=ANN)
        paper = create_repository(session, Paper, "one").get_by_id(2)
        for name in ("parent", "children"):
            with pytest.raises(PermissionDeniedError):
                getattr(paper, name)
