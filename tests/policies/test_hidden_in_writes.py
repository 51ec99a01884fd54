"""No write returns a column that is hidden from the actor, by whatever way it is sent.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import MetaData
from sqlalchemy.orm import Session

from dotmac_database import DatabaseTransaction, PermissionDeniedError, QueryFilter, ValidationError, bind_policies
from dotmac_database.engines import Database
from tests.conftest import Face
from tests.policies.models import OTHER, OWNER, POLICIES, Doc, PolicyBase

NEW = {"id": 50, "title": "new", "owner_id": "bob"}


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return PolicyBase.metadata


@pytest.fixture
def filled(database: Database) -> None:
    with Session(database.engine) as session:
        rows = [("ann", False), ("bob", False), ("bob", True)]
        for n, (owner, deleted) in enumerate(rows, 1):
            title = f"doc {n}"
            session.add(
                Doc(id=n, title=title, owner_id=owner, salary=n, tenant_id="one", version=1, is_deleted=deleted)
            )
        session.commit()


WRITES: dict[str, Callable[[Face, Any], Any]] = {
    "create": lambda face, docs: [face(docs.create, NEW)],
    "create by an object": lambda face, docs: [face(docs.create, Doc(**NEW))],
    "bulk_create": lambda face, docs: face(docs.bulk_create, [NEW, {**NEW, "id": 51, "title": "newer"}]),
    "bulk_create of many": lambda face, docs: face(
        docs.bulk_create, [{**NEW, "id": n, "title": f"new {n}"} for n in range(50, 90)]
    ),
    "upsert of a new row": lambda face, docs: [face(docs.upsert, NEW, ["id"])],
    "upsert": lambda face, docs: [face(docs.upsert, {**NEW, "id": 2, "title": "doc 2"}, ["id"])],
    "bulk_upsert": lambda face, docs: face(docs.bulk_upsert, [{**NEW, "id": 2, "title": "doc 2"}, NEW], ["id"]),
    "get_or_create": lambda face, docs: [face(docs.get_or_create, NEW, ["title"])[0]],
    "get_or_create of a row": lambda face, docs: [face(docs.get_or_create, {**NEW, "title": "doc 2"}, ["title"])[0]],
    "update": lambda face, docs: [face(docs.update, 2, {"title": "changed"})],
    "update without values": lambda face, docs: [face(docs.update, 2, {})],
    "restore": lambda face, docs: [face(docs.restore, 3)],
    "read for update": lambda face, docs: [face(docs.for_update().get_by_id, 2)],
}


@pytest.mark.parametrize("way", ["by itself", "in a transaction", "guarded"])
@pytest.mark.parametrize("name", WRITES)
@pytest.mark.usefixtures("filled")
def test_a_write_returns_no_hidden_column(face: Face, name: str, way: str) -> None:
    with face.guarded() if way == "guarded" else face.session() as session:
        bind_policies(session, POLICIES, actor=OTHER)
        docs = face.repository(session, Doc, "one")
        if way == "in a transaction" or name == "read for update":
            block = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
            with face.entered(block(session)):
                entities = WRITES[name](face, docs)
        else:
            entities = WRITES[name](face, docs)
        assert entities
        for each in entities:
            assert each.owner_id == "bob"
            assert "salary" not in vars(each)
            with pytest.raises(PermissionDeniedError):
                _ = each.salary


@pytest.mark.usefixtures("filled")
def test_a_hidden_column_cannot_be_written(face: Face) -> None:
    with face.session() as session:
        bind_policies(session, POLICIES, actor=OTHER)
        docs = face.repository(session, Doc, "one")
        for method, arguments in {
            docs.create: ({**NEW, "salary": 1},),
            docs.update: (2, {"salary": 1}),
            docs.update_where: ([QueryFilter("id", "eq", 2)], {"salary": 1}),
            docs.bulk_update: ([{"id": 2, "salary": 1}],),
            docs.bulk_create: ([{**NEW, "salary": 1}],),
            docs.upsert: ({**NEW, "salary": 1}, ["id"]),
        }.items():
            with pytest.raises(ValidationError) as hidden:
                face(method, *arguments)
            renamed = [_renamed(each) for each in arguments]
            with pytest.raises(ValidationError) as unknown:
                face(method, *renamed)
            assert str(hidden.value).replace("salary", "surely") == str(unknown.value)
    with face.session() as session:
        bind_policies(session, POLICIES, actor=OWNER)
        docs = face.repository(session, Doc, "one")
        assert face(docs.update, 1, {"salary": 7}).salary == 7
        with pytest.raises(PermissionDeniedError, match="status"):
            face(docs.update, 1, {"status": "done"})


def _renamed(value: Any) -> Any:
    """The data with another name for the hidden column."""
    if isinstance(value, dict):
        return {"surely" if key == "salary" else key: each for key, each in value.items()}
    return [_renamed(each) for each in value] if isinstance(value, list) and isinstance(value[0], dict) else value
