"""`plugins_of`: the plugins of an app that does not run, for tools such as the command line."""

from __future__ import annotations

from fastapi import FastAPI

from .plugin import DatabasePlugin
from .registry import named_by


def plugins_of(app: FastAPI) -> list[DatabasePlugin]:
    """The plugins of an app, each once, whether it runs or not.

    They are those that its lifespan names: ``FastAPI(lifespan=plugin.lifespan)``, ``plugin.install(app)``, or a
    lifespan of the app's own that calls ``plugin.lifespan(app)``, where ``plugin`` is a variable of its module or of a
    function around it. A plugin that it gets otherwise, such as from a function, is not among them.
    """
    named = (plugin for plugin, _ in named_by(app.router.lifespan_context))
    return list(dict.fromkeys(each for each in named if isinstance(each, DatabasePlugin)))
