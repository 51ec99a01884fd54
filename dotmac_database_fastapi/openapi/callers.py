"""The parameters and the security of an operation's tenant and actor, whose dependencies are solved at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy

from pydantic import TypeAdapter
from sqlalchemy import types as sa

from dotmac_database import Traits, traits_of

from ..aliases import ColumnType, JsonObject
from ..declared import plain_type
from ..fields import text_type
from ..internals import caller_document
from ..source import Source
from ..tenants import TenantSource
from .operations import Operation, resolved

_OF_VALIDATION = ("HTTPValidationError", "ValidationError")


def add_callers(operation: Operation, components: JsonObject) -> None:
    """Add the parameters and the security requirements of the tenant and the actor of each of the operation's sources.

    ``components`` are those of the document, to which those of the dependencies are added.
    """
    for source in operation.sources:
        if source is not None:
            _add_caller(operation, source, components)


def _add_caller(operation: Operation, source: Source, components: JsonObject) -> None:
    parameters = operation.document.setdefault("parameters", [])
    tenant, actor = operation.caller_of(source)
    for dependency in (tenant, actor):
        if isinstance(dependency, TenantSource):
            parameter = dependency.openapi_parameter()
            if parameter is not None:
                # An actor that is named like a tenant has no column whose type is known, and is always needed.
                kinds = list(_tenant_types(operation.models)) if dependency is tenant else []
                schema = _tenant_schema(kinds) or deepcopy(parameter["schema"])
                if dependency is not tenant:
                    schema["title"] = "Actor"
                required = bool(kinds) or dependency is actor
                _add(operation, {**parameter, "schema": schema, "required": required}, components)
        elif dependency is not None:
            _add_dependency(operation, dependency, components)
    if not parameters:
        del operation.document["parameters"]


def _add_dependency(operation: Operation, dependency: Callable[..., object], components: JsonObject) -> None:
    """Add the parameters, security requirements and components of a dependency that is solved at run time."""
    own, of_dependency = caller_document(dependency, operation.path)
    for parameter in own.get("parameters", ()):
        if parameter["in"] != "path":
            _add(operation, parameter, components)
    for requirement in own.get("security", ()):
        requirements = operation.document.setdefault("security", [])
        if requirement not in requirements:
            requirements.append(requirement)
    for kind, named in of_dependency.items():
        ours = components.setdefault(kind, {})
        for name, component in named.items():
            if name not in _OF_VALIDATION:
                ours.setdefault(name, component)


def _add(operation: Operation, parameter: JsonObject, components: JsonObject) -> None:
    parameters = [resolved(each, components) for each in operation.document["parameters"]]
    place = parameter["in"], parameter["name"].lower()
    operation.callers.add(place)
    if place not in [(each.get("in"), str(each.get("name")).lower()) for each in parameters]:
        operation.document["parameters"].append(parameter)


def _tenant_types(models: tuple[type, ...]) -> Iterator[ColumnType]:
    """The types of the models' tenant columns."""
    for model in models:
        traits: Traits[object] = traits_of(model)
        if traits.tenant is not None:
            yield traits.columns[traits.tenant].type


def _tenant_schema(types: list[ColumnType]) -> JsonObject | None:
    """The schema of the tenant's name if all tenant columns have one type that is no text; None: any name."""
    kinds = {repr(plain_type(each)): each for each in types}
    if len(kinds) != 1 or isinstance(plain_type(types[0]), sa.String):
        return None
    return {**TypeAdapter(text_type(types[0])).json_schema(), "title": "Tenant"}
