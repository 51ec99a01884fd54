"""`get_entity`: the row that a path names, as a dependency."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, overload

from fastapi import Depends

from dotmac_database import AsyncRepository, traits_of

from .aliases import Endpoint, JsonObject, Repository
from .dependencies import get_repository
from .keys import PathKey

M = TypeVar("M")

_ENTITIES = "dotmac_database_entities"
"""The attribute of a repository's dependency that has the dependencies of its rows, which live as long as it does."""


@overload
def get_entity(
    target: type[AsyncRepository[M, Any]],
    param: str | Sequence[str] = "id",
    *,
    lock: bool = False,
    relationships: Sequence[str] = (),
) -> Callable[..., Awaitable[M]]: ...
@overload
def get_entity(
    target: type[M], param: str | Sequence[str] = "id", *, lock: bool = False, relationships: Sequence[str] = ()
) -> Callable[..., Awaitable[M]]: ...
def get_entity(
    target: type, param: str | Sequence[str] = "id", *, lock: bool = False, relationships: Sequence[str] = ()
) -> Endpoint:
    """A dependency that gives the row whose primary key is in the path: ``user: User = Depends(get_entity(User))``.

    ``target`` is a mapped class, or a repository class of the user's. ``param`` is the path's parameter, or one for
    each column of a composite key, in its order and without the tenant. A row that does not exist, that is deleted, or
    that belongs to another tenant is a 404; a value that can't be a key is a 422. ``lock`` reads it with FOR UPDATE, so
    that nobody changes it before the request ends; on SQLite the transaction that begins with the request's first write
    does that. ``relationships`` are loaded with it. One statement, and one more for each relationship.

    The row is on the request's session. The same arguments give the same dependency, which
    ``app.dependency_overrides`` can replace. Raises `ValidationError` if the key has another number of columns.
    """
    return entity_of(get_repository(target), target, param, lock=lock, relationships=relationships)


def entity_of(
    get_rows: Endpoint, target: type, param: str | Sequence[str], *, lock: bool, relationships: Sequence[str]
) -> Endpoint:
    """The dependency of `get_entity` that reads the row by the repository of the dependency ``get_rows``."""
    names, loaded = ((param,) if isinstance(param, str) else tuple(param)), tuple(relationships)
    cache: dict[object, Endpoint] = vars(get_rows).setdefault(_ENTITIES, {})
    cached = cache.get((names, lock, loaded))
    if cached is not None:
        return cached
    model: type = getattr(target, "declared_model", None) or target
    key = PathKey(traits_of(model), names)
    get_key = key.dependency()

    async def entity(parts: JsonObject = Depends(get_key), repository: Repository = Depends(get_rows)) -> object:
        rows = repository.for_update() if lock else repository
        return await rows.get_by_id_or_raise(key.of(parts, repository.tenant_id), relationships=loaded or None)

    entity.__name__ = f"{model.__name__}_entity"
    cache[names, lock, loaded] = entity
    return entity
