"""The endpoints that link a row to another one by a to-many relationship, and remove the link."""

from __future__ import annotations

from fastapi import Depends, Response

from dotmac_database import Traits, ValidationError, check_link, traits_of

from ..aliases import Endpoint, JsonObject, Repository
from ..answers import singular
from ..keys import PathKey
from .resource import Resource


def add_links(resource: Resource, relationship: str) -> None:
    """Add ``PUT`` and ``DELETE /{id}/tags/{tag_id}``. Both are a 204, also if the link exists already, or no more.

    Raises `ValidationError` for a relationship by which no rows can be linked and unlinked, and for one to a class
    whose key has several columns.
    """
    target: Traits[object] = traits_of(check_link(resource.traits.model, relationship))
    parts = PathKey(target).parts
    if len(parts) != 1:
        raise ValidationError(
            f"links: the key of {target.name} has the columns {', '.join(parts)}, and a link's path has one.",
            field="links",
        )
    name = singular(relationship)
    parameter = f"{name}_id" if f"{name}_id" not in resource.key.names else f"{name}_target_id"
    target_key = PathKey(target, [parameter])
    get_key, get_target = resource.key.dependency(), target_key.dependency()

    async def link(
        parts: JsonObject = Depends(get_key),
        other: JsonObject = Depends(get_target),
        repository: Repository = Depends(resource.get_rows),
    ) -> Response:
        tenant = repository.tenant_id
        await repository.link(resource.key.of(parts, tenant), relationship, [target_key.of(other, tenant)])
        return Response(status_code=204)

    async def unlink(
        parts: JsonObject = Depends(get_key),
        other: JsonObject = Depends(get_target),
        repository: Repository = Depends(resource.get_rows),
    ) -> Response:
        tenant = repository.tenant_id
        await repository.unlink(resource.key.of(parts, tenant), relationship, [target_key.of(other, tenant)])
        return Response(status_code=204)

    path = f"{resource.key.path}/{relationship}{target_key.path}"
    words = "".join(word[:1].upper() + word[1:] for word in name.split("_"))
    endpoints: tuple[tuple[str, str, Endpoint], ...] = (("PUT", "link", link), ("DELETE", "unlink", unlink))
    for method, verb, endpoint in endpoints:
        endpoint.__name__ = f"{verb}_{name}"
        resource.add(
            "link",
            method,
            path,
            endpoint,
            204,
            {404, 409, 422},
            operation_id=f"{verb}{resource.traits.name}{words}",
            summary=f"{verb.title()} {resource.traits.name} {words}",
            responses={204: {"description": f"The rows are {'linked' if verb == 'link' else 'not linked'}."}},
            parameters=[],
        )
