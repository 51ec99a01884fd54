"""The routers and route classes of generated endpoints, which report every refused request as the toolkit does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from .bounds import RefusedRequestError
from .internals import allowed_methods


def router_of(prefix: str, options: Mapping[str, Any], *, tag: str) -> APIRouter:
    """A router for generated endpoints, with these options of `APIRouter`. ``tag`` is the default of ``tags``."""
    tags = options.get("tags") or [tag]
    route_class = refusing_route_class(options.get("route_class", APIRoute))
    return APIRouter(prefix=prefix, **{**options, "tags": tags, "route_class": route_class})


def collection_path(router: APIRouter, trailing_slash: bool) -> str:
    """The path of the collection below the router's prefix. Without a prefix, it is a slash."""
    return "/" if trailing_slash or not router.prefix else ""


@lru_cache(maxsize=64)
def refusing_route_class(route_class: type[APIRoute]) -> type[APIRoute]:
    """A subclass of ``route_class`` in which two kinds of refused requests get a better response.

    A JSON body that is nested too deep for Python's parser is a 422, like one that is too deep for a repository (64
    levels); FastAPI would respond with a 400. An unsupported method is a 405 whose ``Allow`` header names all methods
    of the path, as OPTIONS does; Starlette would name only those of one route.
    """

    class RefusingRoute(route_class):  # type: ignore[misc,valid-type]  # a base that is known at run time only
        """Refuses bodies that are nested too deep, and unsupported methods, as described above."""

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            """Handle a request (a method of Starlette's that may be overridden)."""
            if self.methods and scope["method"] not in self.methods:
                raise HTTPException(405, headers={"Allow": allowed_methods(HTTPConnection(scope))})
            await super().handle(scope, receive, send)

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            """The handler of the route's requests (a method of FastAPI's that may be overridden)."""
            handler: Callable[[Request], Coroutine[Any, Any, Response]] = super().get_route_handler()

            async def handle(request: Request) -> Response:
                try:
                    return await handler(request)
                except HTTPException as refused:
                    if not isinstance(refused.__cause__, RecursionError):
                        raise
                    message = "The JSON is nested too deep."
                    fault = {"type": "recursion", "loc": ("body",), "msg": message, "input": None}
                    raise RefusedRequestError([fault]) from None
                except RefusedRequestError:
                    raise
                except RequestValidationError as refused:
                    raise RefusedRequestError(refused.errors(), body=refused.body) from None

            return handle

    return RefusingRoute
