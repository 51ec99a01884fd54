"""The right to delete a row decides for what goes with it: rules of the children change nothing, on either way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import MetaData, select
from sqlalchemy.orm import Session

from dotmac_database import EntityNotFoundError, PermissionDeniedError, Policy, QueryFilter, bind_policies
from dotmac_database.engines import Database
from tests.conftest import Face, empty
from tests.policies.cascade_models import CHILDREN, CLEARED, DELETED, PARENTS, POLICIES, Base, Parent, rows_of

NAMES = [model.__name__.lower() for model in CHILDREN]


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture
def filled(_database: Database, tables: MetaData) -> Iterator[Database]:
    """A database with the rows of both tenants."""
    with Session(_database.engine) as session:
        for row in (*rows_of("one", 0), *rows_of("two", 100)):
            session.add(row)
            session.flush()
        session.commit()
    yield _database
    empty(_database, tables)


@pytest.fixture(params=["sync", "async"])
def rows(request: pytest.FixtureRequest, filled: Database, _runner: Any) -> Face:
    return Face(request.param, filled, _runner)


def stored(database: Database) -> dict[str, dict[int, int | None]]:
    """The parents of all children, by class and key."""
    with Session(database.engine) as session:
        return {
            model.__name__: {child.id: child.parent_id for child in session.scalars(select(model))}
            for model in CHILDREN
        }


BEFORE: dict[str, Callable[[Face, Any, Any], Any]] = {
    "nothing loaded": lambda _, __, ___: None,
    "children loaded": lambda face, _, parents: face(parents.get_by_id, 1, relationships=NAMES),
    "parent loaded": lambda face, _, parents: face(parents.get_by_id, 1),
    "children held": lambda face, session, _: [list(face(session.scalars, select(model))) for model in CHILDREN],
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("policies", [POLICIES, (PARENTS,), ()], ids=["all", "parents", "none"])
def test_the_right_on_the_parent_decides_for_its_children(rows: Face, before: str, policies: Any) -> None:
    """Of each two children the actor can read one, and may change none. Other rows stay as they are."""
    face, known = rows, stored(rows.database)
    with face.session() as session:
        bind_policies(session, policies, actor="ann")
        parents = face.repository(session, Parent, "one")
        kept = BEFORE[before](face, session, parents)
        assert face(parents.delete, 1) is True
        assert kept is None or kept
    for model in DELETED:
        known[model.__name__] = {key: parent for key, parent in known[model.__name__].items() if parent != 1}
    for model in CLEARED:
        known[model.__name__] = {key: None if of == 1 else of for key, of in known[model.__name__].items()}
    assert stored(face.database) == known


def test_a_row_that_may_not_be_deleted_takes_nothing_with_it(rows: Face) -> None:
    known = stored(rows.database)
    readable = Policy(Parent, read=lambda actor: actor == "bob", update=True)
    for actor, error in (("bob", PermissionDeniedError), ("cat", EntityNotFoundError)):
        with rows.session() as session:
            bind_policies(session, [readable, *POLICIES[1:]], actor=actor)
            parents = rows.repository(session, Parent, "one")
            if error is PermissionDeniedError:
                with pytest.raises(PermissionDeniedError):
                    rows(parents.delete, 1)
            else:
                assert rows(parents.delete, 1) is False
            assert rows(parents.delete_where, [QueryFilter("id", "eq", 1)]) == 0
    assert stored(rows.database) == known


def test_a_child_itself_is_deleted_by_who_may_delete_it(rows: Face) -> None:
    known = stored(rows.database)
    with rows.session() as session:
        bind_policies(session, POLICIES, actor="ann")
        for model in CHILDREN:
            children = rows.repository(session, model, "one")
            with pytest.raises(PermissionDeniedError):
                rows(children.delete, 10)
            assert rows(children.delete, 11) is False
    assert stored(rows.database) == known
