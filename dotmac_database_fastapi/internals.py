"""All uses of FastAPI and Starlette beyond their documented API; no other module of the plugin has any.

The plugin of an app, and with it the dependencies that give the tenant and the actor, are known only when a request
arrives. FastAPI's own functions then solve these dependencies.
"""

from __future__ import annotations

import inspect
from collections import UserDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import update_wrapper
from types import FunctionType
from typing import Any, NamedTuple, Protocol, TypeAlias

from fastapi import FastAPI, Request, routing
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant, get_flat_params, solve_dependencies
from fastapi.exceptions import FastAPIError, RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.utils import generate_unique_id
from starlette._utils import get_route_path
from starlette.datastructures import UploadFile
from starlette.requests import HTTPConnection
from starlette.responses import Response

from .aliases import Annotation, Endpoint, JsonObject

_KNOWN: dict[int, tuple[Dependant, frozenset[str]]] = {}
_DEPENDANTS: dict[tuple[Endpoint, str], Dependant] = {}
_MOST_KEPT = 4096
_WITH_RESPONSE, _WITH_ENDPOINT = "fastapi_inner_astack", "fastapi_function_astack"
_GENERATOR = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


Overrides: TypeAlias = Mapping[Any, Endpoint]
"""An app's ``dependency_overrides``."""


SolvedDependencies: TypeAlias = dict[Any, Any]
"""The values of dependencies that FastAPI has solved."""


class OperationRoute(Protocol):
    """The route of an operation, or FastAPI's view of it with the options of the routers that include it."""

    path_format: str
    methods: set[str] | None
    dependant: Dependant
    endpoint: Endpoint


def route_of(connection: HTTPConnection) -> object:
    """The route that serves the request, with the options of the routers that include it; None outside of a route."""
    effective: object = connection.scope.get("fastapi", {}).get("effective_route_context")
    route: object = connection.scope.get("route")
    return effective if effective is not None else route


def ending_stack(connection: HTTPConnection) -> AsyncExitStack:
    """The exit stack that is unwound when the endpoint has returned.

    An endpoint that is a generator (JSON lines, server-sent events) still runs while its response is sent. Its stack is
    the one that is unwound after the response is sent.
    """
    stack: AsyncExitStack = connection.scope[_WITH_RESPONSE if is_generator(connection) else _WITH_ENDPOINT]
    return stack


def is_first_exit(connection: HTTPConnection, exit_: object) -> bool:
    """Whether ``exit_`` is the first function that is called when the endpoint has returned."""
    stack = connection.scope.get(_WITH_ENDPOINT)
    # A private attribute of the standard library, as in Python 3.11 to 3.14: pairs whose second part is the function.
    exits: Sequence[tuple[bool, object]] = getattr(stack, "_exit_callbacks", ())
    return len(exits) > 0 and exits[-1][1] == exit_


def is_generator(connection: HTTPConnection) -> bool:
    """Whether the endpoint is a generator, which runs while its response is sent."""
    dependant: Dependant | None = getattr(route_of(connection), "dependant", None)
    call = None if dependant is None else dependant.call
    if isinstance(call, FunctionType):
        return bool(call.__code__.co_flags & _GENERATOR)
    return inspect.isasyncgenfunction(call) or inspect.isgeneratorfunction(call)


def fail_endpoint(connection: HTTPConnection, failure: BaseException) -> None:
    """Raise ``failure`` again after all function-scoped dependencies have exited, if one of them has suppressed it.

    Without this, FastAPI would send the response, which it has already made.
    """
    stack: AsyncExitStack | None = connection.scope.get(_WITH_ENDPOINT)
    if stack is None:
        return
    later = stack.pop_all()

    async def fail(_kind: object, raised: BaseException | None, _trace: object) -> bool:
        if raised is None:
            raise failure
        return False

    stack.push_async_exit(fail)
    stack.push_async_exit(later)


async def run_whole(handler: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
    """Run a route's handler, and exit its function-scoped dependencies (COMMIT is one such exit) before returning.

    Request-scoped dependencies exit after the response is sent as usual, or here if the handler or an exit fails.
    """
    scope = request.scope
    outer: AsyncExitStack = scope[_WITH_RESPONSE]
    outside = {name: scope[name] for name in (_WITH_RESPONSE, _WITH_ENDPOINT)}
    response: Response | None = None
    try:
        async with AsyncExitStack() as with_response:
            scope[_WITH_RESPONSE] = with_response
            async with AsyncExitStack() as with_endpoint:
                scope[_WITH_ENDPOINT] = with_endpoint
                response = await handler(request)
            outer.push_async_exit(with_response.pop_all())
    finally:
        scope.update(outside)
    if response is None:
        raise FastAPIError("A dependency with yield has caught an exception, and not raised it again.")
    return response


def body_read(request: Request) -> bytes:
    """The request's body, if the endpoint has read it as a whole; else nothing."""
    body: bytes = getattr(request, "_body", b"")
    return body


def body_of(connection: HTTPConnection) -> Annotation | None:
    """The type of the body of the request's route. None: it has none.

    If several parameters are read from the body, it is a class with a field for each.
    """
    info = getattr(getattr(route_of(connection), "body_field", None), "field_info", None)
    return None if info is None else info.annotation


async def rewound(request: Request) -> bool:
    """Rewind the request's body, so that it can be read again; False if that is impossible.

    It is impossible after the body was read as a stream, or when one of its uploaded files is closed.
    """
    # The parsed JSON is dropped, because the endpoint may have changed it.
    vars(request).pop("_json", None)
    form = request._form
    if form is None:
        return not request._stream_consumed or hasattr(request, "_body")
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if any(file.file.closed for file in files):
        return False
    for file in files:
        await file.seek(0)
    return True


def query_parameters(connection: HTTPConnection) -> frozenset[str]:
    """The query parameters of the request's route and all its dependencies, with the app's overrides applied."""
    dependant: Dependant | None = getattr(route_of(connection), "dependant", None)
    return frozenset() if dependant is None else accepted_query(dependant, connection.scope.get("app"))


def accepted_query(dependant: Dependant, app: FastAPI | None) -> frozenset[str]:
    """The query parameters of a dependency and all its dependencies, and those of the app's overrides of them."""
    cached = _KNOWN.get(id(dependant))
    if cached is None or cached[0] is not dependant:
        if len(_KNOWN) >= _MOST_KEPT:
            _KNOWN.clear()
        cached = _KNOWN[id(dependant)] = dependant, declared_query(dependant)
    overrides = getattr(app, "dependency_overrides", None)
    if not overrides:
        return cached[1]
    return cached[1].union(*map(declared_query, _replacements(dependant, overrides)))


def _replacements(dependant: Dependant, overrides: Overrides) -> Iterator[Dependant]:
    """The app's overrides of the dependencies of ``dependant``, at every depth."""
    waiting, seen = list(dependant.dependencies), set()
    while waiting:
        each = waiting.pop()
        waiting += each.dependencies
        replacement: Any = overrides.get(each.call, each.call)
        if replacement is not each.call and id(replacement) not in seen:
            seen.add(id(replacement))
            override = get_dependant(path=each.path or "", call=replacement)
            waiting += override.dependencies
            yield override


def declared_query(dependant: Dependant) -> frozenset[str]:
    """The names of the query parameters that a dependency and its dependencies declare to FastAPI or to the toolkit."""
    fields = get_flat_params(dependant)
    names = (field.alias for field in fields if getattr(field.field_info, "in_", None) is _in_query())
    return own_query(dependant).union(names)


def own_query(dependant: Dependant) -> frozenset[str]:
    """The names of the query parameters that the toolkit reads from the query string itself (see `accept_query`)."""
    accepted = (getattr(call, _ACCEPTED, None) for call in calls_of(dependant))
    # An object of a mocking library has every attribute.
    return frozenset().union(*(each for each in accepted if isinstance(each, frozenset)))


def accept_query(dependency: Endpoint, names: frozenset[str]) -> None:
    """Register the query parameters that a dependency reads itself, without declaring them to FastAPI."""
    setattr(dependency, _ACCEPTED, names)


_ACCEPTED = "dotmac_database_accepted"


def dependant_of(dependency: Endpoint, path: str) -> Dependant:
    """FastAPI's analysis of a dependency, for a route with this path."""
    dependant = _DEPENDANTS.get((dependency, path))
    if dependant is None:
        dependant = get_dependant(path=path, call=_asking(dependency))
        if len(_DEPENDANTS) >= _MOST_KEPT:
            _DEPENDANTS.clear()
        _DEPENDANTS[dependency, path] = dependant
    return dependant


async def solve(
    dependency: Endpoint,
    connection: HTTPConnection,
    response: Response | None = None,
    cache: SolvedDependencies | None = None,
) -> object:
    """The value of a dependency for this request, as if the endpoint depended on it; the app's overrides apply.

    Dependencies that are solved with the same ``cache`` share what both depend on, as those of one endpoint do.

    Raises what the dependency raises, and `RequestValidationError` if its parameters are invalid.
    """
    path = getattr(route_of(connection), "path_format", "") or ""
    solved = await solve_dependencies(
        request=connection,  # type: ignore[arg-type]  # a Request or a WebSocket; HTTPConnection is their base
        dependant=dependant_of(dependency, path),
        response=response,
        dependency_overrides_provider=connection.scope.get("app"),
        dependency_cache=cache,
        async_exit_stack=connection.scope.get(_WITH_RESPONSE) or AsyncExitStack(),
        embed_body_fields=False,
    )
    if solved.errors:
        raise RequestValidationError(solved.errors)
    return solved.values["value"]


def solve_after(connection: HTTPConnection, call: Endpoint) -> Iterator[Awaitable[object]]:
    """The dependencies of the request's route that FastAPI solves after ``call``, in FastAPI's order.

    Each is solved when it is awaited, with the request's exit stacks and the app's overrides. The body is not read, so
    dependencies that need it are skipped.
    """
    dependant: Dependant | None = getattr(route_of(connection), "dependant", None)
    cache: SolvedDependencies = {}
    for waiting in () if dependant is None else _after(dependant, call, connection.scope.get("app")) or ():
        yield solve_dependencies(
            request=connection,  # type: ignore[arg-type]  # a Request or a WebSocket; HTTPConnection is their base
            dependant=Dependant(dependencies=[waiting], path=waiting.path),
            dependency_overrides_provider=connection.scope.get("app"),
            dependency_cache=cache,
            async_exit_stack=connection.scope.get(_WITH_RESPONSE) or AsyncExitStack(),
            embed_body_fields=False,
        )


def _after(dependant: Dependant, call: Endpoint, app: FastAPI | None) -> list[Dependant] | None:
    """The dependencies that follow ``call``, the nearest first; None if ``dependant`` does not depend on ``call``."""
    overrides = getattr(app, "dependency_overrides", None) or {}
    for index, each in enumerate(dependant.dependencies):
        later = dependant.dependencies[index + 1 :]
        replacement: Any = overrides.get(each.call, each.call)
        if replacement is call:
            return later
        used = each if replacement is each.call else get_dependant(path=each.path or "", call=replacement)
        rest = _after(used, call, app)
        if rest is not None:
            return rest + later
    return None


def operations(app: FastAPI) -> Iterator[tuple[str, str, OperationRoute]]:
    """The path, the method and the route of each of the app's operations, in the order of the routes."""
    for route in _routes(app):
        if getattr(route, "dependant", None) is not None:
            for method in sorted(route.methods or ()):
                yield route.path_format, method.lower(), route


def calls_of_route(connection: HTTPConnection) -> Iterator[Endpoint]:
    """The callables of all dependencies of the request's route, with the app's overrides and their dependencies."""
    dependant: Dependant | None = getattr(route_of(connection), "dependant", None)
    if dependant is None:
        return
    yield from calls_of(dependant)
    overrides = getattr(connection.scope.get("app"), "dependency_overrides", None)
    for replacement in _replacements(dependant, overrides) if overrides else ():
        yield from calls_of(replacement)


def default_operation_id(route: Any) -> str:
    """The operation id that FastAPI generates for a route that names none."""
    return generate_unique_id(route)


def caller_document(dependency: Endpoint, path: str) -> tuple[JsonObject, JsonObject]:
    """FastAPI's OpenAPI document of an operation with this one dependency: the operation, and its components."""
    route = routing.APIRoute(path, _asking(dependency), methods=["GET"])
    document = get_openapi(title="", version="", routes=[route])
    return document["paths"][route.path_format]["get"], document.get("components", {})


def after_openapi(complete: Callable[[FastAPI, JsonObject], None]) -> None:
    """Have ``complete`` called with each document that an app generates, before it is returned.

    FastAPI's documented way is to replace ``app.openapi``. But a plugin may see its app only when the app starts, and
    a client is often generated from an app that never starts.
    """
    original = FastAPI.openapi

    def openapi(self: FastAPI) -> JsonObject:
        document = original(self)
        complete(self, document)
        return document

    update_wrapper(openapi, original)
    FastAPI.openapi = openapi  # type: ignore[method-assign]  # every app's documents, see above


def replaced_openapi(app: FastAPI, complete: Callable[[FastAPI, JsonObject], None]) -> None:
    """As `after_openapi`, for an app with an ``openapi`` function of its own. Calling this again has no effect."""
    original = app.openapi
    if hasattr(original, _COMPLETES) or ("openapi" not in vars(app) and type(app).openapi is FastAPI.openapi):
        return

    def openapi() -> JsonObject:
        document = original()
        complete(app, document)
        return document

    setattr(openapi, _COMPLETES, True)
    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


_COMPLETES = "dotmac_database_completes"


def calls_of(dependant: Dependant) -> Iterator[Endpoint]:
    """The callables of all dependencies of a route, direct and indirect."""
    waiting = [dependant]
    while waiting:
        each = waiting.pop()
        waiting += each.dependencies
        if each.call is not None:
            yield each.call


def allowed_methods(connection: HTTPConnection) -> str:
    """The methods that the app's routes have for the request's path, as the value of the ``Allow`` header."""
    path = get_route_path(connection.scope)
    methods = {
        method
        for route in _routes(connection.scope["app"])
        if getattr(route, "path_regex", None) is not None and route.path_regex.match(path)
        for method in getattr(route, "methods", None) or ()
    }
    return ", ".join(sorted(methods | {"OPTIONS"}))


def dependencies_of(app: FastAPI) -> Iterator[Endpoint]:
    """The callables of all dependencies of the app's operations, direct and indirect."""
    for route in _routes(app):
        if getattr(route, "dependant", None) is not None:
            yield from calls_of(route.dependant)


def endpoints_of(app: FastAPI) -> Iterator[Endpoint]:
    """The endpoints of all operations of the app."""
    for route in _routes(app):
        if getattr(route, "endpoint", None) is not None:
            yield route.endpoint


def _routes(app: FastAPI) -> Iterator[Any]:
    flattened = getattr(routing, "iter_route_contexts", None)  # FastAPI had plain lists of routes before
    return iter(app.routes if flattened is None else flattened(app.routes))


class _Overrides:
    """The descriptor of ``FastAPI.dependency_overrides``: it gives FastAPI a mapping whose overrides are wrapped.

    It is set on the class, since a test may assign a new mapping to the attribute, and may override the session of an
    app before the plugin has seen that app.
    """

    def __get__(self, app: FastAPI | None, owner: object = None) -> object:
        if app is None:
            return self
        held = vars(app)
        try:
            overrides = held[_GIVEN]
        except KeyError:
            raise AttributeError(_GIVEN) from None
        return _Surrounding(overrides, held.setdefault(_SURROUNDED, {})) if overrides else overrides

    def __set__(self, app: FastAPI, overrides: object) -> None:
        vars(app)[_GIVEN] = overrides.data if isinstance(overrides, _Surrounding) else overrides


class _Surrounding(UserDict[Endpoint, Endpoint]):
    """The user's own mapping, except that `get`, which FastAPI calls, returns wrapped overrides."""

    def __init__(
        self, overrides: dict[Endpoint, Endpoint], wrapped: dict[Endpoint, tuple[Any, Endpoint]] | None = None
    ) -> None:
        self.data = overrides
        self._wrapped = {} if wrapped is None else wrapped

    def get(self, call: Any, default: Any = None) -> Any:
        """The override of a dependency, wrapped if the dependency was registered with `surround_overrides`.

        A dependency that has no override of its own may follow that of another: see `follow_override`.
        """
        replacement = self.data.get(call, default)
        if replacement is call:
            follows = getattr(call, _FOLLOWS, None)
            return follows.instead if isinstance(follows, _Follows) and follows.dependency in self.data else call
        surround = getattr(call, _SURROUND, None)
        if surround is None or hasattr(replacement, _SURROUND):
            return replacement
        cached = self._wrapped.get(call)
        if cached is None or cached[0] is not replacement:
            cached = self._wrapped[call] = replacement, surround(replacement)
        return cached[1]


_GIVEN, _SURROUNDED, _SURROUND = "dependency_overrides", "dotmac_database_surrounded", "dotmac_database_surround"
FastAPI.dependency_overrides = _Overrides()  # type: ignore[assignment]  # an instance's own attribute, for FastAPI


def surround_overrides(dependency: Endpoint, surround: Callable[[Endpoint], Endpoint]) -> None:
    """Have every override of a dependency in ``app.dependency_overrides`` replaced by ``surround(override)``.

    ``surround`` returns a dependency that depends on the override. An override that is itself registered here is used
    as it is.
    """
    setattr(dependency, _SURROUND, surround)


class _Follows(NamedTuple):
    dependency: Endpoint
    instead: Endpoint


_FOLLOWS = "dotmac_database_follows"


def follow_override(call: Endpoint, dependency: Endpoint, instead: Endpoint) -> None:
    """Have FastAPI solve ``instead`` in place of ``call`` in an app that overrides ``dependency``.

    ``instead`` depends on ``dependency``, and so gets the override. ``call`` needs no dependencies of its own, which
    FastAPI would have to solve in each request.
    """
    setattr(call, _FOLLOWS, _Follows(dependency, instead))


def overridden(connection: HTTPConnection, dependency: Endpoint) -> bool:
    """Whether the app overrides a dependency, as tests do."""
    overrides = getattr(connection.scope.get("app"), "dependency_overrides", None)
    return dependency in overrides if overrides else False


def _asking(dependency: Endpoint) -> Endpoint:
    from fastapi import Depends

    def endpoint(value: Any = Depends(dependency)) -> Any:  # FastAPI documents the response by this annotation
        return value

    return endpoint


def _in_query() -> object:
    from fastapi.params import ParamTypes

    return ParamTypes.query
