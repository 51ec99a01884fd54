"""`crud_router`: list, create, read, update, delete and restore the rows of a class."""

from __future__ import annotations

from typing import Unpack

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel

from dotmac_database import Traits, traits_of

from ..answers import plural
from ..bodies import router_of
from ..heads import add_options, refuse_other_methods
from ..hooks import Hooks
from ..idempotency import Replays
from ..keys import PathKey
from ..nested import Nested
from ..options import CrudKeywords, CrudOptions, showing, with_keywords
from ..references import References
from ..schemas import create_schema_of, update_schema_of
from .bulk import BULK, add_bulk_create, add_bulk_update, methods_of_bulk
from .items import add_create, add_delete, add_read, add_restore, add_update
from .links import add_links
from .lists import Listing, add_list
from .resource import Resource


@showing(CrudOptions)
def crud_router(
    model: type,
    prefix: str = "",
    create_schema: type[BaseModel] | None = None,
    update_schema: type[BaseModel] | None = None,
    read_schema: type | None = None,
    *,
    options: CrudOptions | None = None,
    **keywords: Unpack[CrudKeywords],
) -> APIRouter:
    """A router for the rows of ``model`` of the request's tenant.

    It has the list of `list_router`, ``POST`` (201 with ``Location``), and ``GET``, ``PATCH`` and ``DELETE`` (204) of
    ``/{id}``, and, if the class is soft-deleted, ``POST /{id}/restore``. Schemas that are not given are derived. If the
    class has a version, it is the ``ETag``, and with ``If-Match`` a PATCH or DELETE of another version is a 412. A
    foreign key to a row of another tenant is a 409.

    With ``idempotency``, a POST that is repeated with the same ``Idempotency-Key`` gets the first response and writes
    nothing (see `once`). The repeated request must have the same tenant, actor, method, path, query string and body,
    else it is a 422. Keys are kept for ``idempotency_ttl`` (seconds or a timedelta; None: the plugin's).

    ``operations`` are those that the router has. By default these are ``list``, ``read``, ``create``, ``update``,
    ``delete`` and ``restore``. Three more must be named: ``bulk_create`` and ``bulk_update`` are ``POST`` and ``PATCH``
    of ``/bulk``, with a JSON array of 1 to 1,000 rows, of which all are written or none. ``link`` is ``PUT`` and
    ``DELETE`` of ``/{id}/tags/{tag_id}`` for each of the to-many relationships ``links``. ``nested`` are one-to-many
    relationships whose rows the body of a POST may contain, at most 1,000 of each; they are created with their parent.
    ``hooks`` is an object whose methods are called before and after each row that is written (see `Hooks`).

    ``permissions`` has a dependency for each operation, or is one for all; it refuses a request by an exception, before
    anything is read or written. The request's own session and repositories are at its hand. The bulk operations need
    the permissions of ``create`` and ``update`` unless they have their own, and ``link`` that of ``update``.
    ``update_method="PUT"`` keeps the method of an API that exists; it changes what a PATCH would. So do
    ``status_codes`` (``{"create": 200}``) and ``delete_body``, the body of the response to a DELETE, whose status is
    then 200. ``read_only_fields="ignore"`` lets an update contain the whole row. `REACT_ADMIN` has the options for
    React Admin's ``ra-data-simple-rest``.

    The options are given as arguments, or as ``options``; an argument replaces the field of ``options``. The other
    arguments are those of `list_router`. Raises `ValidationError` for an unknown operation, relationship or hook, and
    for a status that is no success, or that contradicts ``delete_body``.
    """
    schemas = {"create_schema": create_schema, "update_schema": update_schema, "read_schema": read_schema}
    named = {name: schema for name, schema in schemas.items() if schema is not None}
    chosen, of_router = with_keywords(options or CrudOptions(), {**keywords, **named})
    router = router_of(prefix, of_router, tag=plural(model.__name__))
    listing = Listing(model, chosen)
    if "list" in chosen.operations:
        add_list(router, listing, chosen.dependencies_of("list"))
    traits: Traits[object] = traits_of(model)
    resource = Resource(
        router,
        chosen,
        traits,
        listing.get_rows,
        listing.view.renderer,
        PathKey(traits, reserved=[BULK] if methods_of_bulk(chosen.operations) else ()),
        References(traits),
        Hooks(chosen.hooks),
        wrapped=of_router.get("route_class", APIRoute) is not APIRoute,
        view_of=listing.view_of,
        selects=listing.view.selects,
    )
    _add_operations(resource, model)
    add_options(router)
    return router


def _add_operations(resource: Resource, model: type) -> None:
    """Add the chosen operations, except the list. The paths of the bulk operations come before those with a key."""
    chosen, operations = resource.options, resource.options.operations
    source = None if chosen.plugin is None else chosen.plugin.source
    replays = Replays(source, chosen.idempotency_ttl) if chosen.idempotency else None
    nested = Nested(resource.traits, chosen.names("nested"), chosen.policy)
    if "create" in operations:
        add_create(resource, chosen.create_schema or create_schema_of(model), nested, replays)
    if "bulk_create" in operations:
        add_bulk_create(resource, chosen.create_schema or create_schema_of(model), replays)
    if "bulk_update" in operations:
        add_bulk_update(resource, chosen.update_schema or update_schema_of(model))
    methods = methods_of_bulk(operations)
    if methods:
        refuse_other_methods(resource.router, f"/{BULK}", methods)
    if "read" in operations:
        add_read(resource)
    if "update" in operations:
        add_update(resource, chosen.update_schema or update_schema_of(model))
    if "delete" in operations:
        add_delete(resource)
    if "restore" in operations and resource.traits.soft_deletes:
        add_restore(resource)
    for relationship in chosen.names("links"):
        add_links(resource, relationship)
