"""The first ring alone: a tenant repository on a session that nobody guards, with classes that load eagerly."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import MetaData, insert

from tests.conftest import Face

from .test_eager_models import Base, Counted, Owner, Thing


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture
def rows(face: Face) -> None:
    with face.database.engine.begin() as connection:
        for tenant, key in (("a", 1), ("b", 2)):
            connection.execute(insert(Owner.__table__).values(tenant_id=tenant, id=key, name=f"{tenant} owner"))
        stray = {"tenant_id": "a", "id": 1, "joined_id": 2, "selected_id": 2}
        connection.execute(insert(Thing.__table__), [stray, {**stray, "id": 2, "joined_id": 1, "selected_id": 1}])
        connection.execute(insert(Counted.__table__).values(tenant_id="a", id=1))


def seen(thing: Any) -> list[str | None]:
    return [each and each.name for each in (thing.joined, thing.selected)]


@pytest.mark.usefixtures("rows")
def test_what_a_class_loads_of_its_own_accord_is_confined(face: Face) -> None:
    with face.session() as session:
        things = face.repository(session, Thing, "a")
        assert seen(face(things.get_by_id, 1)) == [None, None]
        assert seen(face(things.get_by_id, 2)) == ["a owner", "a owner"]
        assert [seen(thing) for thing in face(things.list)] == [[None, None], ["a owner", "a owner"]]
        assert [seen(thing) for thing in face(things.stream, {}, 1)] == [[None, None], ["a owner", "a owner"]]
        assert [seen(thing) for thing in face(things.list_paginated).items] == [[None, None], ["a owner", "a owner"]]
        assert face(things.list_paginated).total == 2


@pytest.mark.usefixtures("rows")
def test_a_computed_attribute_counts_the_tenants_own_rows(face: Face) -> None:
    with face.session() as session:
        counted = face.repository(session, Counted, "a")
        assert face(counted.get_by_id, 1).owners == 1
        assert [each.owners for each in face(counted.list)] == [1]
        assert face(counted.create, {"id": 7}).owners == 1
        assert [each.owners for each in face(counted.bulk_create, [{"id": 8}, {"id": 9}])] == [1, 1]
        assert face(counted.upsert, {"id": 8}, ["id"]).owners == 1
        assert face(counted.update, 8, {"id": 8}).owners == 1
