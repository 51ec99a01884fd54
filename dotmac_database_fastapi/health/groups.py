"""Groups of databases that must all respond, such as those without which an app is not ready."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence

from fastapi import Response

from dotmac_database import DatabaseHealthChecker, ValidationError

from ..source import Plugin, Source
from .results import content_of, json_response, worst

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_RESERVED = "live"

Checks = Callable[[Source], DatabaseHealthChecker]
"""The checker for a source."""


def sources_of_groups(groups: Mapping[str, Sequence[Plugin]]) -> dict[str, tuple[Source, ...]]:
    """The sources of each group's plugins.

    Raises `ValidationError` for a name that can't be a path, a group that is empty or no sequence of plugins, and for
    plugins of one group that have the same name.
    """
    if not isinstance(groups, Mapping):
        raise _refused("must be a mapping of names to sequences of plugins")
    return {name: _sources(name, plugins) for name, plugins in groups.items()}


def _sources(name: object, plugins: object) -> tuple[Source, ...]:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _refused(f"{name!r} can't be a path; use letters, digits, '-' and '_'")
    if name == _RESERVED:
        raise _refused(f"{name!r} is the path that asks no database; choose another name")
    if not isinstance(plugins, (tuple, list)):
        raise _refused(f"{name!r} must be a tuple or list of plugins, not {type(plugins).__name__}")
    if not plugins:
        raise _refused(f"{name!r} has no plugins, so it could never fail; name at least one")
    sources = tuple(_source(name, plugin) for plugin in plugins)
    names = [source.name for source in sources]
    for each in names:
        if names.count(each) > 1:
            raise _refused(f"{name!r} has two plugins named {each!r}; give one of them another name=")
    return sources


def _source(group: str, plugin: object) -> Source:
    source = getattr(plugin, "source", None)
    if not isinstance(source, Source):
        raise _refused(f"{group!r} contains {plugin!r}, which is no DatabasePlugin")
    return source


def _refused(what: str) -> ValidationError:
    return ValidationError(f"groups: {what}.", field="groups")


async def check_group(sources: Sequence[Source], checks: Checks) -> Response:
    """Check the databases concurrently; 200 if all of them respond, else 503. Never raises.

    Each check ends within the timeouts of its checker, so all together do, too.
    """
    results = await asyncio.gather(*(checks(source).async_check_connectivity(source.database) for source in sources))
    content: dict[str, object] = {
        "status": worst(result.status for result in results).value,
        "databases": {
            source.name: content_of(result, details=False) for source, result in zip(sources, results, strict=True)
        },
    }
    return json_response(content, works=all(result.works for result in results))
