"""`rerun_route`: run an endpoint again after a transient failure, such as a serialization failure or a deadlock.

All of the endpoint is run again: its dependencies are solved anew, so that each attempt has its own session and
transaction. COMMIT is part of an attempt, and the response is sent after the last one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fastapi import Request, Response
from fastapi.routing import APIRoute

from dotmac_database import RetryBudget, RetryPolicy, RetryStrategy, is_transient, with_retry

from .identity import forget_identities
from .internals import is_generator, rewound, route_of, run_whole
from .sessions import has_committed

Handler = Callable[[Request], Awaitable[Response]]

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""The idempotent methods of RFC 9110, section 9.2.2, that FastAPI supports."""


class _NotRepeatableError(Exception):
    """An attempt has failed, and the request can't be run again."""

    def __init__(self, failure: Exception) -> None:
        super().__init__("The request can't be run again.")
        self.failure = failure


def rerun_route(
    policy: RetryPolicy | None = None, *, methods: Collection[str] = IDEMPOTENT_METHODS, idempotent: bool = False
) -> type[APIRoute]:
    """A route class whose endpoints are run again after a transient failure (see `is_transient`).

    ``APIRouter(route_class=rerun_route())``. An attempt is all of the endpoint: the body is validated, the dependencies
    are solved, the handler runs, and the transaction is committed. No connection is held between two attempts. Requests
    of ``methods`` are run again, and others if they have an ``Idempotency-Key``. ``idempotent`` declares that the
    endpoints may be run again whatever the method, even if the connection was lost during COMMIT, so that the first
    attempt may have taken effect. ``policy`` None: 4 attempts within 5 seconds, at least 0.05 s apart, with full jitter
    and a budget that the endpoints share.

    Not run again: an endpoint that raises the user's own exception or `HTTPException`; one that is a generator; one
    that has read its body as a stream or closed an uploaded file; one with two sessions of which one has committed,
    unless it is ``idempotent``. What an endpoint commits by hand, or does outside of the database, is not undone before
    the next attempt: it must be safe to do twice. Only the background tasks of the successful attempt run. The last
    failure is raised unchanged: `register_exception_handlers` makes it a 503 with ``Retry-After``.
    """
    chosen = policy or RetryPolicy(
        max_attempts=4,
        base_delay=0.05,
        max_delay=1.0,
        strategy=RetryStrategy.JITTERED,
        deadline=5.0,
        budget=RetryBudget(),
    )
    rules = _Rules(chosen, frozenset(method.upper() for method in methods), idempotent)
    return type("RerunRoute", (_RerunRoute,), {"rules": rules})


@dataclass(frozen=True, slots=True)
class _Rules:
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    methods: frozenset[str] = IDEMPOTENT_METHODS
    idempotent: bool = False

    def allow(self, request: Request) -> bool:
        """Whether this request may be run more than once."""
        if is_generator(request):
            return False  # a generator runs, and commits, while its response is sent
        is_idempotent = self.idempotent or request.method in self.methods
        return is_idempotent or bool(request.headers.get("idempotency-key", "").strip())

    def wrap(self, handler: Handler) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """A handler that runs ``handler`` until an attempt succeeds or none is left."""

        async def attempt(request: Request) -> Response:
            try:
                return await run_whole(handler, request)
            except Exception as error:
                torn = has_committed(request) and not self.idempotent
                if is_transient(error, idempotent=self.idempotent) and (torn or not await rewound(request)):
                    raise _NotRepeatableError(error) from error
                forget_identities(request)
                raise

        named: dict[str, Handler] = {}

        async def rerunning(request: Request) -> Response:
            if not self.allow(request):
                return await handler(request)
            retried = named.get(request.method)
            if retried is None:
                path = getattr(route_of(request), "path_format", request.url.path)
                retried = named[request.method] = self._retrying(attempt, f"{request.method} {path}")
            try:
                return await retried(request)
            except _NotRepeatableError as last:
                failure = last.failure
            raise failure

        return rerunning

    def _retrying(self, attempt: Handler, name: str) -> Handler:
        async def named(request: Request) -> Response:
            return await attempt(request)

        named.__qualname__ = name  # the name in hooks and logs
        return with_retry(self.policy, idempotent=self.idempotent)(named)


class _RerunRoute(APIRoute):
    rules: ClassVar[_Rules] = _Rules()

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.rules.wrap(super().get_route_handler())
