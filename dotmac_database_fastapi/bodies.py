"""The route class of the generated endpoints: what they refuse is the toolkit's, whatever FastAPI would answer."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from .bounds import RefusedRequestError
from .internals import allowed_methods


@lru_cache(maxsize=64)
def bounded(route_class: type[APIRoute]) -> type[APIRoute]:
    """``route_class``, which refuses a request in the toolkit's way.

    A body that Python's JSON parser gives up on is a 422 like others: Python reads some hundred levels, of which
    repositories store 64; FastAPI answers 400 to more. A method that the path does not have is a 405 whose ``Allow``
    names those that it has, as OPTIONS does; Starlette names those of one route.
    """

    class Bounded(route_class):  # type: ignore[misc,valid-type]  # a base that is known at run time only
        """Refuses in the toolkit's way."""

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            """Starlette's hook: what answers a request."""
            if self.methods and scope["method"] not in self.methods:
                raise HTTPException(405, headers={"Allow": allowed_methods(HTTPConnection(scope))})
            await super().handle(scope, receive, send)

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            """FastAPI's hook: what serves the requests of the route."""
            handler: Callable[[Request], Coroutine[Any, Any, Response]] = super().get_route_handler()

            async def handle(request: Request) -> Response:
                try:
                    return await handler(request)
                except HTTPException as refused:
                    if not isinstance(refused.__cause__, RecursionError):
                        raise
                    fault = {"type": "recursion", "loc": ("body",), "msg": "The JSON nests too deep.", "input": None}
                    raise RefusedRequestError([fault]) from None
                except RefusedRequestError:
                    raise
                except RequestValidationError as refused:
                    raise RefusedRequestError(refused.errors(), body=refused.body) from None

            return handle

    return Bounded
