"""A row's primary key in a path: ``/users/{id}``, or one segment for each part of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Path
from pydantic_core import to_jsonable_python

from dotmac_database import Traits

from .binary import in_url
from .fields import text_type


class PathKey:
    """How the rows of a class are named in a path. The tenant's part is the request's, not the path's."""

    def __init__(self, traits: Traits[Any]) -> None:
        self.traits = traits
        self.parts = [key for key in traits.primary_key if key != traits.tenant] or list(traits.primary_key)
        self.names = ["id"] if len(self.parts) == 1 else self.parts

    @property
    def path(self) -> str:
        """The path's template after the collection's."""
        return "".join(f"/{{{name}}}" for name in self.names)

    def location(self, collection: str, entity: Any) -> str:
        """The path of a row."""
        parts = (quote(_written(getattr(entity, part)), safe="") for part in self.parts)
        return "/".join([collection.rstrip("/"), *parts])

    def dependency(self) -> Callable[..., Any]:
        """A dependency that gives the path's parts by their attributes."""
        named = dict(zip(self.names, self.parts, strict=True))

        async def key(**given: Any) -> dict[str, Any]:
            return {named[name]: value for name, value in given.items()}

        parameters = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=Annotated[text_type(self.traits.columns[part].type), Path()],
            )
            for name, part in named.items()
        ]
        key.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect.signature
        return key

    def of(self, given: dict[str, Any], tenant: Any) -> Any:
        """The primary key as repositories take it."""
        key = tuple(given.get(part, tenant) for part in self.traits.primary_key)
        return key[0] if len(key) == 1 else key


def _written(value: Any) -> str:
    """A part of a key as a path has it: bytes as base64, times and durations as in JSON."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return in_url(value)
    return str(to_jsonable_python(value, fallback=str))
