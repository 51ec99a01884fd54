"""The driver sends reads from which a column is hidden, by a statement that is cached for each set of columns."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import MetaData, insert

from dotmac_database import PermissionDeniedError, Policy, QueryFilter, bind_policies
from dotmac_database.execution import routes
from tests.conftest import Face, counted
from tests.policies.attack_models import Base, Paper

HIDDEN: dict[str, tuple[str, ...]] = {"ann": ("secret",), "bob": ("code", "secret"), "cat": ()}
VALUES = {"owner": "x", "level": 1, "label": "shared", "code": "c1", "secret": 7}
POLICY = Policy(Paper, read=lambda actor: [QueryFilter("label", "ne", actor)], hidden=lambda actor: HIDDEN[actor])


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture
def papers(face: Face) -> Face:
    """One paper of each tenant; they look alike."""
    with face.database.engine.begin() as connection:
        for number, tenant in enumerate(("one", "two"), 1):
            connection.execute(insert(Paper), {"id": number, **VALUES, "code": f"c{number}", "tenant_id": tenant})
    return face


READS: dict[str, Callable[[Face, Any], Any]] = {
    "get": lambda face, items: [face(items.get_by_id, 1)],
    "get_many": lambda face, items: face(items.get_many, [1, 2]),
    "list": lambda face, items: face(items.list),
    "page": lambda face, items: face(items.list_paginated, {"pagination": {"page": 1}}).items,
    "cursor": lambda face, items: (
        face(items.cursor_paginate, {"sorts": ["-level", "id"], "cursor_pagination": {"limit": 5}}).items
    ),
}


def _check(row: Any, actor: str) -> None:
    """A row has the values that the actor sees, and no others."""
    assert row.id == 1
    for key, value in VALUES.items():
        if key in HIDDEN[actor]:
            assert key not in vars(row)
            with pytest.raises(PermissionDeniedError):
                getattr(row, key)
        else:
            assert getattr(row, key) == value


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("way", ["by itself", "in a transaction", "guarded"])
def test_actors_in_turns_see_their_own_columns(papers: Face, name: str, way: str) -> None:
    for actor in ("ann", "bob", "cat", "ann", "bob"):  # the second time, the statement is in the cache
        with papers.guarded() if way == "guarded" else papers.session() as session:
            bind_policies(session, [POLICY], actor=actor)
            items = papers.repository(session, Paper, "one")
            if way == "in a transaction":
                papers(items.count)
                papers(session.connection)
            with counted(papers.database.engine) as statements:
                rows = READS[name](papers, items)
            assert len(rows) == 1
            _check(rows[0], actor)
            for key in HIDDEN[actor]:
                assert all(f"attacked_papers.{key}" not in each for each in statements)


@pytest.mark.fast_way("driver")
@pytest.mark.parametrize("name", READS)
def test_the_driver_sends_them(papers: Face, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger=routes.__name__)
    with papers.session() as session:
        bind_policies(session, [POLICY], actor="ann")
        _check(READS[name](papers, papers.repository(session, Paper, "one"))[0], "ann")
    sent = [record.getMessage() for record in caplog.records if record.name == routes.__name__]
    assert sent
    assert all("sent by the driver" in each for each in sent)


def test_an_object_that_the_session_holds_loses_what_is_hidden(papers: Face) -> None:
    with papers.session() as session:
        trusted = papers(papers.repository(session, Paper, "one").get_by_id, 1)
        assert trusted.secret == 7
        bind_policies(session, [POLICY], actor="ann")
        row = papers(papers.repository(session, Paper, "one").get_by_id, 1)
        assert row is trusted
        _check(row, "ann")
