"""HEAD for each GET, with the same status and headers but no body (RFC 9110, 9.3.2), and OPTIONS (9.3.7)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from .internals import allowed_methods


def add_get(router: APIRouter, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
    """Add a GET to a router, and the corresponding HEAD, which is not in the OpenAPI document."""
    router.add_api_route(path, endpoint, methods=["GET"], **options)
    route_class: Any = router.route_class
    shared = {name: value for name, value in options.items() if name not in ("name", "openapi_extra", "responses")}
    router.add_api_route(
        path,
        endpoint,
        methods=["HEAD"],
        name=f"{options.get('name') or endpoint.__name__}_head",
        include_in_schema=False,
        route_class_override=_bodiless(route_class),
        **shared,
    )


def add_options(router: APIRouter) -> None:
    """Add OPTIONS to each path of a router: a 204 with the ``Allow`` header. It is not in the OpenAPI document.

    The methods are looked up at each request, since other routers of the app may add methods to a path. The routes for
    HEAD are moved to the end, because FastAPI compares a request with each route before the one that it matches.
    """
    for path in dict.fromkeys(route.path.removeprefix(router.prefix) for route in router.routes):  # type: ignore[attr-defined]  # BaseRoute has no path, and each route here has one
        router.add_api_route(path, _options, methods=["OPTIONS"], name="options", include_in_schema=False)
    router.routes.sort(key=lambda route: getattr(route, "methods", None) == {"HEAD"})


def refuse_other_methods(router: APIRouter, path: str, methods: Collection[str]) -> None:
    """Refuse all methods of a path but these by a 405. Without it, a later path with parameters would serve them."""
    allow = {"Allow": ", ".join(sorted({*methods, "OPTIONS"}))}

    async def options() -> Response:
        return Response(status_code=204, headers=allow)

    async def refuse() -> Response:
        raise HTTPException(405, headers=allow)

    others = sorted({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE"}.difference(methods))
    router.add_api_route(path, options, methods=["OPTIONS"], name="options", include_in_schema=False)
    router.add_api_route(path, refuse, methods=others, name="refuse", include_in_schema=False)


async def _options(request: Request) -> Response:
    return Response(status_code=204, headers={"Allow": allowed_methods(request)})


@lru_cache(maxsize=64)
def _bodiless(route_class: type[APIRoute]) -> type[APIRoute]:
    """A subclass of ``route_class`` whose responses have their headers, but no body."""

    class Bodiless(route_class):  # type: ignore[misc,valid-type]  # a base that is known at run time only
        """Sends responses, including problems, without a body."""

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            """Handle a request (a method of Starlette's that may be overridden)."""

            async def headers_alone(message: Message) -> None:
                await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

            await super().handle(scope, receive, headers_alone)

    return Bodiless
