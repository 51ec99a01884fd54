"""Rules that are filters alone: the driver sends their statements, and they stay in the tenant."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import MetaData, insert

from dotmac_database import Policy, QueryFilter, bind_policies
from dotmac_database.execution import routes
from tests.conftest import Face, empty
from tests.policies.models import Actor, Doc, Line, PolicyBase, Team

ACTOR = Actor("nina")


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return PolicyBase.metadata


@pytest.fixture
def crossed(face: Face) -> Iterator[Face]:
    """Documents of tenant one: the team of the first belongs to the tenant, that of the second to tenant two."""
    rows: dict[Any, list[dict[str, Any]]] = {
        Team: [{"id": 1, "tenant_id": "one"}, {"id": 2, "tenant_id": "two"}],
        Doc: [{"id": each, "tenant_id": "one", "title": f"{each}", "team_id": each} for each in (1, 2)],
        Line: [{"id": each, "tenant_id": "one", "text": "line", "doc_id": each} for each in (1, 2)],
    }
    given = {Team: {"name": "team", "lead_id": "nina"}, Doc: {"owner_id": "x", "version": 1, "is_deleted": False}}
    with face.database.engine.begin() as connection:
        for model, each in rows.items():
            connection.execute(insert(model), [{**given.get(model, {}), **row} for row in each])
    yield face
    empty(face.database, PolicyBase.metadata)


def _ids(rows: Any) -> list[int]:
    return sorted(each.id for each in rows)


READS: dict[str, Callable[[Face, Any], Any]] = {
    "get": lambda face, items: _ids(filter(None, [face(items.get_by_id, each) for each in (1, 2)])),
    "get_many": lambda face, items: _ids(face(items.get_many, [1, 2])),
    "list": lambda face, items: _ids(face(items.list)),
    "page": lambda face, items: _ids(face(items.list_paginated, {"pagination": {"page": 1}}).items),
    "cursor": lambda face, items: _ids(face(items.cursor_paginate, {"cursor_pagination": {"limit": 5}}).items),
    "stream": lambda face, items: _ids(face(items.stream)),
    "exists": lambda face, items: [each for each in (1, 2) if face(items.exists, each)],
    "count": lambda face, items: [1] * face(items.count),
}


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("is_guarded", [False, True])
def test_a_rule_through_a_relationship_ends_at_the_tenant(crossed: Face, name: str, is_guarded: bool) -> None:
    rules = [
        Policy(Doc, read=lambda actor: [QueryFilter("team.lead_id", "eq", actor.id)]),
        Policy(Line, read=lambda actor: [QueryFilter("doc.team.lead_id", "eq", actor.id)]),
    ]
    with crossed.guarded() if is_guarded else crossed.session() as session:
        bind_policies(session, rules, actor=ACTOR)
        for model in (Doc, Line):
            items = crossed.repository(session, model, "one")
            for _ in range(2):  # the second time, the statement is in the cache
                assert READS[name](crossed, items) == [1], model


@pytest.mark.fast_way("driver")
def test_the_driver_sends_a_read_whose_rules_are_filters(crossed: Face, caplog: pytest.LogCaptureFixture) -> None:
    policy = Policy(Line, read=lambda actor: [QueryFilter("text", "ne", actor.id)])
    with crossed.session() as session:
        bind_policies(session, [policy], actor=ACTOR)
        lines = crossed.repository(session, Line, "one")
        caplog.set_level(logging.DEBUG, logger=routes.__name__)
        assert crossed(lines.get_by_id, 1).id == 1
    sent = [record.getMessage() for record in caplog.records if record.name == routes.__name__]
    assert len(sent) == 1
    assert "sent by the driver" in sent[0]
