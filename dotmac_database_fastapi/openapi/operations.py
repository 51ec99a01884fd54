"""The operations of an OpenAPI document that the toolkit has a part in, and their ids."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..aliases import Endpoint, JsonObject
from ..answers import EndpointDescription, answers_of
from ..dependencies import served_by
from ..identity import tenant_of
from ..internals import OperationRoute, calls_of, default_operation_id, operations, own_query
from ..registry import described_sources
from ..source import Source
from ..tenant_directory import directory_of, named_by

if TYPE_CHECKING:
    from fastapi import FastAPI


_PACKAGE = __name__.partition(".")[0]


def _module_of(call: Endpoint) -> str:
    """The module of a function, or of the class of an object that is called."""
    return str(getattr(call, "__module__", None) or type(call).__module__)


@dataclass(frozen=True)
class Operation:
    """One operation of the document, with its route, sources and models.

    ``answers`` None: an endpoint of the user's own. A source that is None is not known: the app has several plugins.
    ``query`` are the query parameters that the toolkit reads, and ``callers`` the place and the name, in lower case, of
    each parameter that names the tenant or the actor.
    """

    path: str
    method: str
    document: JsonObject
    route: OperationRoute
    answers: EndpointDescription | None
    sources: tuple[Source | None, ...]
    models: tuple[type, ...]
    query: frozenset[str]
    callers: set[tuple[str, str]] = field(default_factory=set)

    @property
    def is_ours(self) -> bool:
        """Whether the toolkit has a part in the operation: it is generated, or uses a session or a repository."""
        return self.answers is not None or bool(self.sources)

    @property
    def calls_others(self) -> bool:
        """Whether code that is not the toolkit's takes part: the endpoint, a hook, or a dependency (a permission)."""
        if self.answers is None or self.answers.has_hooks or self.document.get("security"):
            return True
        return any(_module_of(each).partition(".")[0] != _PACKAGE for each in calls_of(self.route.dependant))

    def caller_of(self, source: Source) -> tuple[Endpoint | None, Endpoint | None]:
        """The dependencies of a source that name the operation's tenant and its actor."""
        return named_by(self._tenant_of(source)), source.actor

    def has_directory(self, source: Source) -> bool:
        """Whether a directory refuses tenants that are not active."""
        return directory_of(self._tenant_of(source)) is not None

    def _tenant_of(self, source: Source) -> Endpoint | None:
        return tenant_of(source, calls_of(self.route.dependant))


def read_operations(app: FastAPI, document: JsonObject) -> Iterator[Operation]:
    """All operations of the document, in the order of the app's routes."""
    own = described_sources(app)
    for path, method, route in operations(app):
        described = document.get("paths", {}).get(path, {}).get(method)
        if described is not None:
            sources, models = served_by(route)
            # The functions of the module, such as get_session, belong to the app's only plugin.
            named: dict[Source | None, None] = dict.fromkeys(
                each for source in sources for each in ((source,) if source else own[:1])
            )
            if sources and not named:
                named = {None: None}
            answers, query = answers_of(route.endpoint), own_query(route.dependant)
            yield Operation(path, method, described, route, answers, tuple(named), tuple(models), query)


def name_operations(all_operations: Sequence[Operation]) -> None:
    """Give generated operations readable ids, unless the user's ``generate_unique_id_function`` has named them."""
    ours = [
        each
        for each in all_operations
        if each.answers is not None and each.document.get("operationId") == default_operation_id(each.route)
    ]
    counts = Counter(each.answers.operation_id for each in ours if each.answers is not None)
    others = {each.document.get("operationId") for each in all_operations if each not in ours}
    for each in ours:
        assert each.answers is not None
        name = each.answers.operation_id
        if counts[name] > 1 or name in others:
            # The name is used by two classes, or a router is included twice: the path distinguishes them.
            name = re.sub(r"\W+", "_", f"{name}_{each.path.strip('/')}").rstrip("_")
        each.document["operationId"] = name


def resolved(value: JsonObject, components: JsonObject) -> JsonObject:
    """The component that a value refers to; the value itself if it is no reference, or one to something else."""
    *_, kind, name = ("", "", *str(value.get("$ref", "")).split("/"))
    component: JsonObject = components.get(kind, {}).get(name, value)
    return component
