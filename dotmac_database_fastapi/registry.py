"""The plugins of an app."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection

from .openapi import describe

if TYPE_CHECKING:
    from .plugin import DatabasePlugin

_STATE = "dotmac_database_plugins"
_SEARCHED = "dotmac_database_searched"


class PluginError(RuntimeError):
    """The app is not configured for the use it makes of a plugin."""


def register(app: Any, plugin: DatabasePlugin) -> None:
    """Add a plugin to an app. Raises `PluginError` if another plugin has the same name."""
    plugins = _registered(app)
    if plugins.setdefault(plugin.name, plugin) is not plugin:
        raise PluginError(f"The app has a plugin {plugin.name!r} already; give this one another name=.")
    describe(app)


def plugin_of(connection: HTTPConnection) -> DatabasePlugin:
    """The only plugin of the request's app. Raises `PluginError` if there is none, or more than one."""
    only = only_plugin(connection)
    if only is not None:
        return only
    plugins = plugins_of(connection.scope.get("app"))
    if not plugins:
        raise PluginError(
            "The app has no DatabasePlugin: give it one, FastAPI(lifespan=plugin.lifespan) or plugin.install(app). "
            "A mounted app needs it, too."
        )
    named = ", ".join(repr(name) for name in plugins)
    raise PluginError(
        f"The app has {len(plugins)} DatabasePlugins ({named}), so the module's functions can't tell which is meant: "
        "use plugin.get_repository(…), plugin.get_session and plugin=… of the routers."
    )


def only_plugin(connection: HTTPConnection) -> DatabasePlugin | None:
    """The only plugin of the request's app; None if there is none, or more than one."""
    plugins = plugins_of(connection.scope.get("app"))
    return next(iter(plugins.values())) if len(plugins) == 1 else None


def plugins_of(app: Any) -> dict[str, DatabasePlugin]:
    """An app's plugins by name, including one whose lifespan the app has but has not started."""
    plugins = _registered(app)
    if app is not None and not getattr(app.state, _SEARCHED, False):
        setattr(app.state, _SEARCHED, True)
        for plugin in _in_lifespan(app.router.lifespan_context):
            plugins.setdefault(plugin.name, plugin)
    return plugins


def _registered(app: Any) -> dict[str, DatabasePlugin]:
    if app is None:
        return {}
    plugins: dict[str, DatabasePlugin] | None = getattr(app.state, _STATE, None)
    if plugins is None:
        plugins = {}
        setattr(app.state, _STATE, plugins)
    return plugins


def _in_lifespan(context: Any, depth: int = 64) -> Iterator[DatabasePlugin]:
    """The plugins whose lifespans are in an app's lifespan. FastAPI wraps it in a closure for each included router."""
    from .plugin import DatabasePlugin

    owner = getattr(context, "__self__", None)
    if isinstance(owner, DatabasePlugin):
        yield owner
    elif depth and callable(context):
        for cell in getattr(context, "__closure__", None) or ():
            with suppress(ValueError):  # a cell that is still empty
                yield from _in_lifespan(cell.cell_contents, depth - 1)
