"""What the toolkit adds to an app's OpenAPI document: tenants, problems and the names of generated operations.

None of it is known before the app is whole: which plugin serves an operation, who names its tenant, and whether
problems are registered. So the document is completed when it is asked for.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from sqlalchemy import types as sa

from dotmac_database import Traits, traits_of

from .answers import DESCRIPTIONS, PROBLEM, PROBLEM_JSON, RETRY_AFTER, Answers, answers_of
from .declared import plain_type
from .fields import text_type
from .internals import caller_document, default_operation_id, operations, own_query
from .tenants import TenantSource

if TYPE_CHECKING:
    from fastapi import FastAPI

_FEW_VALUES = 10
"""How many allowed values stand in each parameter, for the reader's sake."""

_COMPLETES = "dotmac_database_completes"
_OF_FASTAPI = "#/components/schemas/HTTPValidationError"


def describe(app: FastAPI) -> None:
    """Complete the app's document whenever it is asked for; once is enough."""
    if getattr(app.openapi, _COMPLETES, False):
        return
    original = app.openapi
    last: list[Any] = [None, None]

    def openapi() -> dict[str, Any]:
        from .registry import plugins_of

        document = original()
        state = (*plugins_of(app), *app.exception_handlers.values())
        if last[0] is not document or last[1] != state:
            _Document(app, document).complete()
            last[:] = document, state
        return document

    setattr(openapi, _COMPLETES, True)
    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


@dataclass(frozen=True)
class _Operation:
    """One operation of the document, and what serves it."""

    path: str
    method: str
    document: dict[str, Any]
    route: Any
    answers: Answers | None
    plugins: tuple[Any, ...]
    models: tuple[type, ...]


class _Document:
    """An app's document, as FastAPI has made it."""

    def __init__(self, app: FastAPI, document: dict[str, Any]) -> None:
        from .errors import problems_of

        self.app = app
        self.document = document
        self.problems, self.validation = problems_of(app)
        self.operations = list(self._found())

    def complete(self) -> None:
        """Add what is missing; what the user has said stays."""
        for each in self.operations:
            tenants = [self._add_caller(each, plugin) for plugin in each.plugins]
            if self.problems:
                self._add_problems(each, any(tenants))
        if self.problems and self.validation:
            self._replace_validation()
        self._share_values()
        self._name_operations()

    def _found(self) -> Iterator[_Operation]:
        from .dependencies import served_by
        from .registry import plugins_of

        own = tuple(plugins_of(self.app).values())
        for path, method, route in operations(self.app):
            told = self.document.get("paths", {}).get(path, {}).get(method)
            if told is not None:
                plugins, models = served_by(route.dependant)
                # The module's functions serve the app's only plugin.
                named: dict[Any, None] = dict.fromkeys(
                    each for plugin in plugins for each in ((plugin,) if plugin else own[:1])
                )
                if plugins and not named:
                    named = {None: None}
                yield _Operation(path, method, told, route, answers_of(route.endpoint), tuple(named), tuple(models))

    def _add_caller(self, operation: _Operation, plugin: Any) -> bool:
        """Show what the plugin's tenant and actor read; gives whether a tenant is read at all."""
        if plugin is None:
            return False
        parameters = operation.document.setdefault("parameters", [])
        for source in (plugin.tenant, plugin.actor):
            if isinstance(source, TenantSource):
                parameter = source.openapi_parameter()
                if parameter is not None:
                    kinds = list(_tenant_types(operation.models))
                    schema = _tenant_schema(kinds) or parameter["schema"]
                    _add(parameters, {**parameter, "schema": schema, "required": bool(kinds)})
            elif source is not None:
                self._add_dependency(operation, source)
        if not parameters:
            del operation.document["parameters"]
        return plugin.tenant is not None

    def _add_dependency(self, operation: _Operation, source: Any) -> None:
        """Show what a dependency of the user's reads, which FastAPI solves when the request is there."""
        told, components = caller_document(source, operation.path)
        for parameter in told.get("parameters", ()):
            if parameter["in"] != "path":
                _add(operation.document["parameters"], parameter)
        for requirement in told.get("security", ()):
            held = operation.document.setdefault("security", [])
            if requirement not in held:
                held.append(requirement)
        for kind, named in components.items():
            ours = self.document.setdefault("components", {}).setdefault(kind, {})
            for name, component in named.items():
                if name not in ("HTTPValidationError", "ValidationError"):
                    ours.setdefault(name, component)

    def _add_problems(self, operation: _Operation, has_tenant: bool) -> None:
        if operation.answers is None and not operation.plugins:
            return
        statuses = set() if operation.answers is None else set(operation.answers.problems)
        foreign = operation.answers is None
        if operation.plugins:
            statuses |= {503, *((400,) if has_tenant else ())}
            named = [source for each in operation.plugins if each for source in (each.tenant, each.actor)]
            foreign |= any(source is not None and not isinstance(source, TenantSource) for source in named)
        foreign |= bool(operation.document.get("security"))
        responses = operation.document.setdefault("responses", {})
        for status in sorted(statuses):
            told = responses.setdefault(str(status), {})
            if status == 422 and _is_fastapis(told):
                told.clear()
            if "content" not in told:
                told.update({"description": told.get("description") or DESCRIPTIONS[status], **self._problem()})
                if status == 503:
                    told.setdefault("headers", {})["Retry-After"] = RETRY_AFTER
        if foreign:
            # What the user's own code raises, and what a repository that it uses may refuse.
            responses.setdefault("default", {"description": "Any other problem.", **self._problem()})
            told = responses.get("422", {})
            if operation.answers is None and _is_fastapis(told) and not self.validation:
                told["content"].update(self._problem()["content"])

    def _replace_validation(self) -> None:
        """Every 422 of FastAPI's is a problem."""
        for path in self.document.get("paths", {}).values():
            for operation in path.values():
                told = operation.get("responses", {}).get("422", {}) if isinstance(operation, dict) else {}
                if _is_fastapis(told):
                    told.update({"description": DESCRIPTIONS[422], **self._problem()})
        schemas = self.document.get("components", {}).get("schemas", {})
        for name in ("HTTPValidationError", "ValidationError"):
            if f'"#/components/schemas/{name}"' not in json.dumps(self.document):
                schemas.pop(name, None)

    def _problem(self) -> dict[str, Any]:
        """A problem as a response's content."""
        schemas = self.document.setdefault("components", {}).setdefault("schemas", {})
        # A class of the user's may have the name.
        name = next(name for name in ("Problem", "DatabaseProblem") if schemas.get(name, PROBLEM) == PROBLEM)
        schemas.setdefault(name, deepcopy(PROBLEM))
        return {"content": {PROBLEM_JSON: {"schema": {"$ref": f"#/components/schemas/{name}"}}}}

    def _share_values(self) -> None:
        """Write a long list of allowed values once: each filter of a field repeats it, and each schema of the row."""
        found = [each for operation in self.operations for each in _long_values(operation)]
        if not found:
            return
        schemas = self.document.setdefault("components", {}).setdefault("schemas", {})
        names = {_values(schema): name for name, schema in schemas.items() if "enum" in schema}
        rows = [each for schema in schemas.values() for value in schema.values() for each in _inside(value)]
        for parameter, schema in found:
            if _values(schema) not in names:
                name = names[_values(schema)] = _free_name(parameter, schemas)
                schemas[name] = {key: schema[key] for key in ("type", "enum") if key in schema}
        for schema in (*(schema for _, schema in found), *rows):
            shared = names.get(_values(schema)) if _is_long(schema) else None
            if shared is not None:
                schema.pop("type", None)
                del schema["enum"]
                schema["$ref"] = f"#/components/schemas/{shared}"

    def _name_operations(self) -> None:
        """Give generated operations names that read like code, unless the user's own function has named them."""
        ours = [
            each
            for each in self.operations
            if each.answers is not None and each.document.get("operationId") == default_operation_id(each.route)
        ]
        wanted = Counter(each.answers.operation_id for each in ours if each.answers is not None)
        others = {each.document.get("operationId") for each in self.operations if each not in ours}
        for each in ours:
            assert each.answers is not None
            name = each.answers.operation_id
            if wanted[name] > 1 or name in others:
                # Two classes of one name, or one router twice: the path tells them apart.
                name = re.sub(r"\W+", "_", f"{name}_{each.path.strip('/')}").rstrip("_")
            each.document["operationId"] = name


def _tenant_types(models: tuple[type, ...]) -> Iterator[sa.TypeEngine[Any]]:
    """The types of the models' tenant columns."""
    for model in models:
        traits: Traits[Any] = traits_of(model)
        if traits.tenant is not None:
            yield traits.columns[traits.tenant].type


def _tenant_schema(types: list[sa.TypeEngine[Any]]) -> dict[str, Any] | None:
    """What a tenant's name must be where the columns are all of one type that is no text; None: any name."""
    kinds = {repr(plain_type(each)): each for each in types}
    if len(kinds) != 1 or isinstance(plain_type(types[0]), sa.String):
        return None
    return {**TypeAdapter(text_type(types[0])).json_schema(), "title": "Tenant"}


def _is_fastapis(told: dict[str, Any]) -> bool:
    """Whether a response is the one that FastAPI adds by itself."""
    schema: dict[str, Any] = told.get("content", {}).get("application/json", {}).get("schema", {})
    return schema.get("$ref") == _OF_FASTAPI


def _long_values(operation: _Operation) -> Iterator[tuple[str, dict[str, Any]]]:
    """The toolkit's query parameters of an operation that allow of many values, and the schema that lists them."""
    ours = own_query(operation.route.dependant) - {"sort"}
    for parameter in operation.document.get("parameters", ()):
        if parameter.get("in") == "query" and parameter["name"] in ours:
            schema = parameter["schema"].get("items", parameter["schema"])
            if _is_long(schema):
                yield parameter["name"], schema


def _inside(value: Any) -> Iterator[dict[str, Any]]:
    """All the objects in a part of the document."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _inside(each)


def _is_long(schema: dict[str, Any]) -> bool:
    values = schema.get("enum")
    return isinstance(values, list) and len(values) > _FEW_VALUES


def _values(schema: dict[str, Any]) -> str:
    return json.dumps([schema.get("type"), schema["enum"]])


def _free_name(parameter: str, schemas: dict[str, Any]) -> str:
    """What the values of ``home.country__in`` are called: ``HomeCountryValue``, or ``HomeCountryValue2``."""
    words = re.split(r"[\W_]+", parameter.split("__")[0])
    name = "".join(word[:1].upper() + word[1:] for word in words) + "Value"
    return next(each for number in count(1) if (each := name if number == 1 else f"{name}{number}") not in schemas)


def _add(parameters: list[dict[str, Any]], parameter: dict[str, Any]) -> None:
    place = parameter["in"], parameter["name"].lower()
    if place not in [(each.get("in"), str(each.get("name")).lower()) for each in parameters]:
        parameters.append(parameter)
