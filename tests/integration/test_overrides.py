"""What a subclass overrides, a hook or a method, takes effect on both faces, also where another method uses it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy.sql import ColumnElement

from dotmac_database import (
    AsyncTenantRepository,
    BaseTenantRepository,
    EntityNotFoundError,
    QueryFilter,
    ValidationError,
)
from tests.conftest import Face
from tests.models import User


class Hooks:
    """The hooks are the same for both faces."""

    floor = 3

    def conditions(self) -> Sequence[ColumnElement[bool]]:
        return [User.score >= self.floor]

    def values_for_create(self, values: dict[str, Any]) -> dict[str, Any]:
        return {**values, "name": values["name"].title()}

    def values_for_update(self, values: dict[str, Any]) -> dict[str, Any]:
        return {**values, "email": "changed@x"}


class SyncUsers(Hooks, BaseTenantRepository[User]):
    def get_by_id(self, entity_id: Any, include_deleted: bool = False, relationships: Any = None) -> User | None:
        user = super().get_by_id(entity_id, include_deleted, relationships)
        return None if user is None or user.name == "Secret" else user

    def list(self, options: Any = None) -> list[User]:
        return super().list(options)[:1]


class AsyncUsers(Hooks, AsyncTenantRepository[User]):
    async def get_by_id(self, entity_id: Any, include_deleted: bool = False, relationships: Any = None) -> User | None:
        user = await super().get_by_id(entity_id, include_deleted, relationships)
        return None if user is None or user.name == "Secret" else user

    async def list(self, options: Any = None) -> list[User]:
        return (await super().list(options))[:1]


def users_of(face: Face, session: Any) -> Any:
    return (AsyncUsers if face.is_async else SyncUsers)(session, tenant_id="a")


def test_hooks_reach_every_statement(face: Face) -> None:
    with face.session() as session:
        plain = face.repository(session, User, "a")
        low, high = face(plain.bulk_create, [{"name": "low", "score": 1}, {"name": "high", "score": 5}])
        users = users_of(face, session)
        assert face(users.count) == 1
        assert face(users.get_by_id, low.id) is None
        assert not face(users.exists, low.id)
        assert face(users.get_many, [low.id, high.id]) == [high]
        assert face(users.list_paginated).total == 1
        assert face(users.cursor_paginate).items == [high]
        assert face(users.stream) == [high]
        assert face(users.create, {"name": "new one", "score": 9}).name == "New One"
        assert [u.name for u in face(users.bulk_create, [{"name": "more", "score": 9}])] == ["More"]
        assert face(users.update, high.id, {"name": "h"}).email == "changed@x"
        assert face(users.update_where, [QueryFilter("score", "lt", 9)], {"name": "x"}) == 1
        with pytest.raises(EntityNotFoundError):
            face(users.update, low.id, {"name": "x"})
        assert not face(users.delete, low.id)
        assert face(users.delete_where, [QueryFilter("score", "lt", 100)], soft_delete=False) == 3
        assert face(plain.count) == 1
        users.floor = 0
        assert face(users.count) == 1


def test_a_method_is_called_by_the_methods_that_use_it(face: Face) -> None:
    with face.session() as session:
        plain = face.repository(session, User, "a")
        secret = face(plain.create, {"name": "Secret", "score": 5, "email": "s@x"})
        face(plain.create, {"name": "Other", "score": 5})
        users = users_of(face, session)
        with pytest.raises(EntityNotFoundError):
            face(users.get_by_id_or_raise, secret.id)
        assert face(plain.get_by_id_or_raise, secret.id) is secret
        assert len(face(users.list_by_field, "score", 5)) == 1
        assert len(face(plain.list_by_field, "score", 5)) == 2


def test_a_class_knows_its_model_and_says_when_it_does_not(face: Face) -> None:
    with face.session() as session:
        users = users_of(face, session)
        assert users.model_class is User
        assert type(users.with_tenant("b")) is type(users)
        bare = AsyncTenantRepository if face.is_async else BaseTenantRepository
        with pytest.raises(ValidationError, match="model_class"):
            bare(session, tenant_id="a")
        with pytest.raises(ValidationError, match="not a mapped class"):
            bare(session, dict, "a")


class Changing:
    """Conditions that depend on the moment; there are none at first."""

    floor: int | None = None

    def conditions(self) -> Sequence[ColumnElement[bool]]:
        return [] if self.floor is None else [User.score >= self.floor]


class SyncChanging(Changing, BaseTenantRepository[User]): ...


class AsyncChanging(Changing, AsyncTenantRepository[User]): ...


@pytest.mark.parametrize("include_deleted", [False, True])
def test_conditions_are_asked_for_each_statement_even_if_there_were_none(face: Face, include_deleted: bool) -> None:
    with face.session() as session:
        users = (AsyncChanging if face.is_async else SyncChanging)(session, tenant_id="a")
        low = face(users.create, {"name": "low", "score": 1})
        face(users.create, {"name": "high", "score": 5})
        assert face(users.count, include_deleted=include_deleted) == 2
        assert face(users.get_by_id, low.id, include_deleted) is low
        users.floor = 3
        assert face(users.count, include_deleted=include_deleted) == 1
        assert face(users.get_by_id, low.id, include_deleted) is None
        assert not face(users.delete, low.id)
        with pytest.raises(EntityNotFoundError):
            face(users.update, low.id, {"name": "changed"})
        users.floor = None
        assert face(users.count, include_deleted=include_deleted) == 2
