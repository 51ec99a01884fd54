"""`get_entity`: the row that a path names, as a dependency."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

from fastapi import Depends

from dotmac_database import (
    ALL_TENANTS,
    AsyncRepository,
    EntityNotFoundError,
    FieldName,
    TenantIsolationError,
    Traits,
    ValidationError,
    is_guarded,
    names_for,
    traits_of,
    unscoped,
)

from .aliases import Endpoint, JsonObject, Repository
from .dependencies import get_repository
from .keys import PathKey

M = TypeVar("M")

_ENTITIES = "dotmac_database_entities"
"""The attribute of a repository's dependency that has the dependencies of its rows, which live as long as it does."""


class EntityKeywords(TypedDict, total=False):
    """The keyword arguments of `get_entity`, and their defaults in `_EntityOptions`."""

    lock: bool
    relationships: Sequence[FieldName]
    forbidden: Literal[403] | None


@dataclass(frozen=True, kw_only=True)
class _EntityOptions:
    lock: bool = False
    relationships: Sequence[FieldName] = ()
    forbidden: Literal[403] | None = None


@overload
def get_entity(
    target: type[AsyncRepository[M, Any]], param: str | Sequence[str] = "id", **options: Unpack[EntityKeywords]
) -> Callable[..., Awaitable[M]]: ...
@overload
def get_entity(
    target: type[M], param: str | Sequence[str] = "id", **options: Unpack[EntityKeywords]
) -> Callable[..., Awaitable[M]]: ...
def get_entity(target: type, param: str | Sequence[str] = "id", **options: Unpack[EntityKeywords]) -> Endpoint:
    """A dependency that gives the row whose primary key is in the path: ``user: User = Depends(get_entity(User))``.

    ``target`` is a mapped class, or a repository class of the user's. ``param`` is the path's parameter, or one for
    each column of a composite key, in its order and without the tenant. A row that does not exist, that is deleted, or
    that belongs to another tenant is a 404; a value that can't be a key is a 422. ``lock`` reads it with FOR UPDATE, so
    that nobody changes it before the request ends; on SQLite the transaction that begins with the request's first write
    does that. ``relationships`` are loaded with it. One statement, and one more for each relationship.

    With ``forbidden=403`` another tenant's row is a 403 (`TenantIsolationError`), so that a client can tell it from a
    row that does not exist. Clients then learn which keys exist: use it where keys can't be guessed, or are no secret.
    Only a row that was not found costs a second statement, which looks for its key alone, across tenants. With
    row-level security the database hides the row from that statement too if its policies do.

    The row is on the request's session. The same arguments give the same dependency, which
    ``app.dependency_overrides`` can replace. Raises `ValidationError` if the key has another number of columns, and for
    ``forbidden`` if the class has no tenant, or if the tenant is part of the key (then another tenant's row has
    another key).
    """
    return entity_of(get_repository(target), target, param, options)


def entity_of(get_rows: Endpoint, target: type, param: str | Sequence[str], keywords: EntityKeywords) -> Endpoint:
    """The dependency of `get_entity` that reads the row by the repository of the dependency ``get_rows``."""
    names = (param,) if isinstance(param, str) else tuple(param)
    cache: dict[object, Endpoint] = vars(get_rows).setdefault(_ENTITIES, {})
    model: type = getattr(target, "declared_model", None) or target
    loaded = tuple(names_for(model, keywords.get("relationships", ()))) or None
    options = replace(_EntityOptions(**keywords), relationships=loaded or ())
    cached = cache.get((names, options))
    if cached is not None:
        return cached
    traits: Traits[object] = traits_of(model)
    key = PathKey(traits, names)
    get_key = key.dependency()
    if options.forbidden is not None:
        _check_forbidden(traits)

    async def entity(parts: JsonObject = Depends(get_key), repository: Repository = Depends(get_rows)) -> object:
        rows = repository.for_update() if options.lock else repository
        entity_id = key.of(parts, repository.tenant_id)
        if options.forbidden is None:
            return await rows.get_by_id_or_raise(entity_id, relationships=loaded)
        row = await rows.get_by_id(entity_id, relationships=loaded)
        if row is None and await _exists_elsewhere(repository, entity_id):
            raise TenantIsolationError(f"The {traits.name} belongs to another tenant.")
        if row is None:
            raise EntityNotFoundError(f"There is no such {traits.name}.", model=traits.name)
        return row

    entity.__name__ = f"{model.__name__}_entity"
    cache[names, options] = entity
    return entity


def _check_forbidden(traits: Traits[object]) -> None:
    reason = None
    if traits.tenant is None:
        reason = "its rows belong to no tenant"
    elif traits.tenant in traits.primary_key:
        reason = "the tenant is part of its key, so that another tenant's row has another key"
    if reason is not None:
        raise ValidationError(f"{traits.name}: forbidden=403 has no meaning, because {reason}.", field="forbidden")


async def _exists_elsewhere(repository: Repository, key: object) -> bool:
    """Whether another tenant has a row with this key. Nothing of the row is read."""
    if repository.tenant_id is ALL_TENANTS:
        return False
    everywhere = repository.with_tenant(ALL_TENANTS)
    if not is_guarded(repository.db):
        return await everywhere.exists(key)
    with unscoped(repository.db, reason="get_entity(forbidden=403) looks for a key", level=logging.INFO):
        return await everywhere.exists(key)
