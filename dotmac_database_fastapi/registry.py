"""The plugins of an app, each known by its source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from types import FunctionType, MethodType

from fastapi import FastAPI
from starlette.requests import HTTPConnection

from .source import Source

_STATE = "dotmac_database_sources"
_SEARCHED = "dotmac_database_searched"
_ONLY = "dotmac_database_only_source"


class PluginError(RuntimeError):
    """The app uses a plugin in a way for which the app or the plugin is not configured."""


def register(app: FastAPI | None, source: Source) -> None:
    """Add the source of a plugin to an app. Raises `PluginError` if another plugin has the same name."""
    sources = _registered(app)
    if app is not None:
        vars(app).pop(_ONLY, None)
    if sources.setdefault(source.name, source) is not source:
        raise PluginError(f"The app has a plugin {source.name!r} already; give this one another name=.")


def source_of(connection: HTTPConnection) -> Source:
    """The source of the only plugin of the request's app. Raises `PluginError` if there is none, or more than one."""
    app: FastAPI | None = connection.scope.get("app")
    only: Source | None = None if app is None else vars(app).get(_ONLY)
    if only is None:
        only = only_source(connection)
        if only is not None:
            vars(app)[_ONLY] = only
    if only is not None:
        return only
    sources = sources_of(app)
    if not sources:
        raise PluginError(
            "The app has no DatabasePlugin: give it one, FastAPI(lifespan=plugin.lifespan) or plugin.install(app). "
            "An app that is mounted in another app needs the plugin, too."
        )
    named = ", ".join(repr(name) for name in sources)
    raise PluginError(
        f"The app has {len(sources)} DatabasePlugins ({named}), so the module's functions can't tell which is meant: "
        "use plugin.get_repository(…), plugin.get_session and plugin=… of the routers."
    )


def only_source(connection: HTTPConnection) -> Source | None:
    """The source of the only plugin of the request's app; None if there is none, or more than one."""
    sources = sources_of(connection.scope.get("app"))
    return next(iter(sources.values())) if len(sources) == 1 else None


def sources_of(app: FastAPI | None) -> dict[str, Source]:
    """The sources of an app's plugins by name, including one whose lifespan the app has but has not started."""
    sources = _registered(app)
    if app is not None and not getattr(app.state, _SEARCHED, False):
        setattr(app.state, _SEARCHED, True)
        for source in _in_lifespan(app.router.lifespan_context):
            sources.setdefault(source.name, source)
    return sources


def described_sources(app: FastAPI) -> tuple[Source, ...]:
    """The sources of an app's plugins for its document, which may be needed before the app runs.

    A lifespan of the user's, ``async with plugin.lifespan(app): …``, registers the plugin only when it runs. Until then
    these are the sources of all plugins that it names.
    """
    registered = tuple(sources_of(app).values())
    return registered or tuple(dict.fromkeys(source for _, source in named_by(app.router.lifespan_context)))


def named_by(lifespan: object) -> Iterator[tuple[object, Source]]:
    """The plugins among the variables of a lifespan, with their sources.

    These are the variables of its closure, at any depth, and globals. The lifespan can be the plugin's own method.
    """
    for each in _closed_over(lifespan):
        named = [each, getattr(each, "__self__", None)]
        if isinstance(each, FunctionType):
            named += [each.__globals__.get(name) for name in each.__code__.co_names]
        for one in named:
            source = getattr(one, "source", None)
            if isinstance(source, Source):
                yield one, source


def _registered(app: FastAPI | None) -> dict[str, Source]:
    if app is None:
        return {}
    sources: dict[str, Source] | None = getattr(app.state, _STATE, None)
    if sources is None:
        sources = {}
        setattr(app.state, _STATE, sources)
    return sources


def _in_lifespan(lifespan: object) -> Iterator[Source]:
    """The sources of the plugins whose lifespans are in an app's lifespan."""
    for each in _closed_over(lifespan):
        # The lifespan of a plugin is its bound method.
        source = getattr(getattr(each, "__self__", None), "source", None)
        if isinstance(source, Source):
            yield source


def _closed_over(function: object) -> Iterator[object]:
    """A function and the variables of its closure, at any depth.

    FastAPI wraps an app's lifespan in a closure for each included router, so the depth may be large.
    """
    waiting, seen = [function], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, (FunctionType, MethodType)):
            for cell in reversed(each.__closure__ or ()):
                with suppress(ValueError):  # a closure's cell can be empty: its variable has no value yet
                    waiting.append(cell.cell_contents)
