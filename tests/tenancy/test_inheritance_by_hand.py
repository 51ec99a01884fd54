"""Hand-written statements on guarded sessions and every inheritance: the whole database before and after.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import MetaData, delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from dotmac_database import Database, TenantIsolationError
from dotmac_database.tenancy import bind_tenant
from tests.conftest import Face

from .inherited import SHAPES, Base
from .test_inheritance import Cell, Dump, State

SYNCHRONISATIONS = (False, "evaluate", "fetch", "auto")


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture(scope="module")
def state(_database: Database) -> State:
    return State(_database)


@pytest.fixture
def database(_database: Database) -> Database:
    return _database


REFUSALS = re.compile("TenantIsolationError|foreign key|additional tables in the SET clause", re.IGNORECASE)
"""The guard's; the database's; and SQLAlchemy's, which sets no parent's column through the child."""


def refused(face: Face, session: Any, statement: Any) -> str | None:
    """Send a statement and commit; gives why it was refused, if it was. (`Face` would read the rows of a result.)"""
    try:
        if face.is_async:
            face(session.execute, statement)
        else:
            session.execute(statement)
        face(session.commit)
    except (TenantIsolationError, SQLAlchemyError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def of_the_statement(cell: Cell, kind: str, field: str, value: Any) -> Dump:
    """What SQLAlchemy means: DELETE is of the class's own table alone, UPDATE of the table of the column."""
    for key in cell.ids(deleted=True, **{field: value}):
        if kind == "delete":
            del cell.expected[cell.shape.model.__mapper__.local_table.name][key]
        else:
            cell.put(key, kind, 70 if kind == "size" else "new")
    return cell.expected


@pytest.mark.parametrize("field", ["name", "size"])
@pytest.mark.parametrize("kind", ["delete", "name", "size"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_change_is_the_tenants_or_refused(kind: str, field: str, shape: str, face: Face, state: State) -> None:
    """Each way to synchronise; the database may refuse what would leave a child's row without a parent."""
    found = SHAPES[shape]
    if not found.sized and "size" in (kind, field):
        pytest.skip("The class has no such column.")
    model, value = found.model, "n1" if field == "name" else 1
    for way in SYNCHRONISATIONS if not face.is_async else ("auto",):
        before = state.fill()
        with face.guarded() as session:
            bind_tenant(session, "a")
            condition = getattr(model, field) == value
            change = {"name": {"name": "new"}, "size": {"size": 70}}.get(kind)
            statement: Any = delete(model) if change is None else update(model).values(change)
            expected = of_the_statement(Cell(face, None, found, before, "a"), kind, field, value)
            sent = statement.where(condition).execution_options(synchronize_session=way)
            refusal = refused(face, session, sent)
            if refusal is not None:
                face(session.rollback)
                expected = before
            assert refusal is None or REFUSALS.search(refusal), f"{way}: {refusal}"
        assert state.dump() == expected, way


@pytest.mark.parametrize("field", ["name", "size"])
@pytest.mark.parametrize("shape", SHAPES)
def test_locked_rows_are_the_tenants(field: str, shape: str, face: Face, state: State) -> None:
    found = SHAPES[shape]
    if not found.sized and field == "size":
        pytest.skip("The class has no such column.")
    value = "n1" if field == "name" else 1
    before = state.fill()
    with face.guarded() as session:
        bind_tenant(session, "a")
        statement = select(found.model).where(getattr(found.model, field) == value)
        locked = statement.with_for_update(of=list(found.model.__mapper__.tables))
        keys = sorted(row.id for row in face(session.scalars, locked))
        assert keys == Cell(face, None, found, before, "a").ids(deleted=True, **{field: value})
        face(session.rollback)
    assert state.dump() == before
