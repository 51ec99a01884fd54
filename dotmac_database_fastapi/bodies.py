"""A request's body that nests too deep to be read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException


@lru_cache(maxsize=64)
def bounded(route_class: type[APIRoute]) -> type[APIRoute]:
    """``route_class``, whose answer to a body that Python's JSON parser gives up on is a 422 like that to others.

    Python reads some hundred levels, of which repositories store 64; FastAPI answers 400 to more.
    """

    class Bounded(route_class):  # type: ignore[misc,valid-type]  # a base that is known at run time only
        """Answers a body that nests too deep."""

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
                    raise RequestValidationError([fault]) from None

            return handle

    return Bounded
