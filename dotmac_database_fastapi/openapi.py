"""The tenant in an app's OpenAPI document: which plugin an operation is for is not known before the app is whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .internals import operations
from .tenants import TenantSource

if TYPE_CHECKING:
    from fastapi import FastAPI


def describe_tenant(app: FastAPI, source: object, units: frozenset[Callable[..., Any]]) -> None:
    """Let the operations that depend on one of ``units`` show the parameter that names the tenant."""
    parameter = source.openapi_parameter() if isinstance(source, TenantSource) else None
    if parameter is None:
        return
    original = app.openapi

    def openapi() -> dict[str, Any]:
        document = original()
        for path, method in operations(app, units):
            operation = document.get("paths", {}).get(path, {}).get(method)
            if operation is not None:
                _add(operation.setdefault("parameters", []), parameter)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _add(parameters: list[dict[str, Any]], parameter: dict[str, Any]) -> None:
    place = parameter["in"], parameter["name"].lower()
    if place not in [(each.get("in"), str(each.get("name")).lower()) for each in parameters]:
        parameters.append(parameter)
