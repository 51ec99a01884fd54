"""Completes an app's OpenAPI document."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from ..aliases import JsonObject
from ..errors import codes_of, problems_of
from .callers import add_callers
from .operations import Operation, name_operations, read_operations
from .problems import Problems
from .sharing import share
from .values import share_values

if TYPE_CHECKING:
    from fastapi import FastAPI


def complete(app: FastAPI, document: JsonObject) -> None:
    """Add what FastAPI does not know to the document that it has generated, and keep what the user has documented."""
    operations = list(read_operations(app, document))
    are_problems, validation = problems_of(app)
    problems = Problems(document, codes_of(app), validation=validation)
    for each in operations:
        _add_merge_patch(each)
        if any(each.sources):
            add_callers(each, document.setdefault("components", {}))
        if are_problems:
            problems.add(each)
    if are_problems:
        problems.replace_validation()
    share_values(document, operations)
    name_operations(operations)
    share(document, operations)


def _add_merge_patch(operation: Operation) -> None:
    """Document that a generated PATCH is a JSON Merge Patch (RFC 7396), which has a media type of its own."""
    content = operation.document.get("requestBody", {}).get("content", {})
    body = content.get("application/json")
    is_list = body is not None and body.get("schema", {}).get("type") == "array"  # each element is a patch of its own
    if operation.answers is not None and operation.method == "patch" and body is not None and not is_list:
        content.setdefault("application/merge-patch+json", deepcopy(body))
