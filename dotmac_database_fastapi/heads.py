"""HEAD where GET is answered: the same status and headers, and no body (RFC 9110, 9.3.2); and OPTIONS (9.3.7)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Message, Receive, Scope, Send

from .internals import allowed_methods


def add_get(router: APIRouter, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
    """Add a GET to a router, and the HEAD that goes with it, which OpenAPI does not show."""
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
    """Let each path of a router answer OPTIONS with 204 and what it allows, which OpenAPI does not show.

    What the app has for the path is looked up when it is asked for: other routers may add to it.
    """
    for path in dict.fromkeys(route.path.removeprefix(router.prefix) for route in router.routes):  # type: ignore[attr-defined]
        router.add_api_route(path, _options, methods=["OPTIONS"], name="options", include_in_schema=False)


async def _options(request: Request) -> Response:
    return Response(status_code=204, headers={"Allow": allowed_methods(request)})


@lru_cache(maxsize=64)
def _bodiless(route_class: type[APIRoute]) -> type[APIRoute]:
    """``route_class``, whose answers have the headers of what they would say, and say nothing."""

    class Bodiless(route_class):  # type: ignore[misc,valid-type]  # a base that is known at run time only
        """Answers without a body, be it a problem's."""

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            """Starlette's hook: what answers a request."""

            async def headers_alone(message: Message) -> None:
                await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

            await super().handle(scope, receive, headers_alone)

    return Bodiless
