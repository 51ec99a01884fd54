"""The problems with which an operation may respond."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from types import NoneType

from ..aliases import JsonObject
from ..answers import DESCRIPTIONS, OTHER_PROBLEM, PROBLEM, PROBLEM_JSON, RETRY_AFTER
from ..tenants import TenantSource
from .operations import Operation

_OF_FASTAPI = "#/components/schemas/HTTPValidationError"


class Problems:
    """Adds problems to the operations of a document.

    ``validation``: FastAPI's own validation error is a problem, too. ``codes`` are all codes that a problem may have.
    """

    def __init__(self, document: JsonObject, codes: Sequence[str], *, validation: bool) -> None:
        self._document = document
        self._codes = list(codes)
        self._validation = validation

    def add(self, operation: Operation) -> None:
        """Add the problems of an operation, and keep those that the user has documented."""
        if not operation.is_ours:
            return
        statuses = set() if operation.answers is None else set(operation.answers.problems)
        if any(each is not None and each.policies is not None for each in operation.sources):
            statuses.add(403)
        foreign = operation.calls_others
        callers = [operation.caller_of(each) for each in operation.sources if each is not None]
        if operation.sources:
            refused = any(tenant is not None or isinstance(actor, TenantSource) for tenant, actor in callers)
            statuses |= {503, 400} if refused else {503}
            if any(each is not None and operation.has_directory(each) for each in operation.sources):
                statuses |= {403, 404}
            foreign |= any(not isinstance(each, (TenantSource, NoneType)) for caller in callers for each in caller)
        responses = operation.document.setdefault("responses", {})
        for status in sorted(statuses):
            response = responses.setdefault(str(status), {})
            if status == 422 and _is_fastapis(response):
                response.clear()
            if "content" not in response and "$ref" not in response:
                response.update({"description": response.get("description") or DESCRIPTIONS[status], **self._problem()})
                if status == 503:
                    response.setdefault("headers", {})["Retry-After"] = RETRY_AFTER
        if foreign:
            # For what the user's own code raises, and for errors of the repositories that it uses.
            responses.setdefault("default", {"description": OTHER_PROBLEM, **self._problem()})
            response = responses.get("422", {})
            if operation.answers is None and _is_fastapis(response) and not self._validation:
                response["content"].update(self._problem()["content"])

    def replace_validation(self) -> None:
        """Document each of FastAPI's 422 responses as a problem, if it is one."""
        if not self._validation:
            return
        for path in self._document.get("paths", {}).values():
            for operation in path.values():
                response = operation.get("responses", {}).get("422", {}) if isinstance(operation, dict) else {}
                if _is_fastapis(response):
                    response.update({"description": DESCRIPTIONS[422], **self._problem()})
        schemas = self._document.get("components", {}).get("schemas", {})
        for name in ("HTTPValidationError", "ValidationError"):
            if f'"#/components/schemas/{name}"' not in json.dumps(self._document):
                schemas.pop(name, None)

    def _problem(self) -> JsonObject:
        """The content of a response that is a problem."""
        codes = {
            "title": "ProblemCode",
            "description": "The kind of a problem, for programs.",
            "type": "string",
            "enum": self._codes,
        }
        schema = deepcopy(PROBLEM)
        properties = schema["properties"]
        properties["code"] = self._component("ProblemCode", codes)
        properties["errors"]["items"] = self._component("ProblemError", properties["errors"]["items"])
        return {"content": {PROBLEM_JSON: {"schema": self._component("Problem", schema)}}}

    def _component(self, name: str, schema: JsonObject) -> JsonObject:
        """Add a schema to the components, under another name if a class of the user's has it. Returns a reference."""
        schemas = self._document.setdefault("components", {}).setdefault("schemas", {})
        free = next(each for each in (name, f"Database{name}") if schemas.get(each, schema) == schema)
        schemas.setdefault(free, schema)
        return {"$ref": f"#/components/schemas/{free}"}


def _is_fastapis(response: JsonObject) -> bool:
    """Whether a response is the 422 that FastAPI adds."""
    schema: JsonObject = response.get("content", {}).get("application/json", {}).get("schema", {})
    return schema.get("$ref") == _OF_FASTAPI
