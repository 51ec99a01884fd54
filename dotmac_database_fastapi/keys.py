"""A row's primary key in a path: ``/users/{id}``, or one segment for each part of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Path
from pydantic_core import to_jsonable_python
from starlette.requests import Request

from dotmac_database import DatabaseError, Traits, ValidationError

from .binary import in_url
from .declared import value_type
from .fields import Text, text_type

MAX_LENGTH = 4_000
"""Octets of a row's key in a path, percent-encoded: servers need take no more than 8,000 for a whole request line."""

SEGMENT: dict[str, Any] = {
    "minLength": 1,
    "pattern": r"^([^/.\u0000][^/\u0000]*|\.[^/.\u0000][^/\u0000]*|\.\.[^/\u0000]+)$",
}
"""A text that can be one segment of a path, in JSON Schema's words: neither ``.`` nor ``..``, and no slash in it."""

_IN_PATHS = "/:@!$&'()*+,;=~"
"""What stays as it is in a path of several segments."""


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

    def location(self, request: Request, entity: Any, data: Any) -> str:
        """The absolute path of a row that the collection at this request's path has; with the app's root path.

        Raises for a key that no path can lead to: `ValidationError` where it is of ``data``, which the client sent,
        else `DatabaseError`, as the app made it.
        """
        path, root = request.scope["path"], request.scope.get("root_path", "").rstrip("/")
        # Servers give the path with the root path; behind a proxy that strips it, FastAPI knows it alone.
        if path != root and not path.startswith(f"{root}/"):
            path = root + path
        try:
            segments = _segments({part: getattr(entity, part) for part in self.parts})
        except ValidationError as refused:
            if refused.field in self._sent(data):
                raise
            raise DatabaseError(
                f"{self.traits.name}.{refused.field}: the app made a key that no URL can lead to."
            ) from refused
        return "/".join([quote(path.rstrip("/"), safe=_IN_PATHS), *segments])

    def refuse_unreachable(self, data: Any) -> None:
        """Raise `ValidationError` where what a client sent has a key, or a part of one, that no path can lead to."""
        _segments(self._sent(data))

    def _sent(self, data: Any) -> dict[str, Any]:
        """The parts of the key that the client's own data has, by their own names where it uses synonyms."""
        synonyms = self.traits.mapper.synonyms
        sent = {synonyms[name].name if name in synonyms else name: name for name in data.model_fields_set}
        given = {part: getattr(data, sent[part]) for part in self.parts if part in sent}
        return {part: value for part, value in given.items() if value is not None}

    def dependency(self) -> Callable[..., Any]:
        """A dependency that gives the path's parts by their attributes."""
        named = dict(zip(self.names, self.parts, strict=True))

        async def key(**given: Any) -> dict[str, Any]:
            return {named[name]: value for name, value in given.items()}

        parameters = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=Annotated[self._type(part), Path(json_schema_extra=self._schema(part))],
            )
            for name, part in named.items()
        ]
        key.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect.signature
        return key

    def _type(self, part: str) -> Any:
        return text_type(self.traits.columns[part].type, value_type(self.traits, part))

    def _schema(self, part: str) -> dict[str, Any] | None:
        return SEGMENT if self._type(part) is Text else None

    def of(self, given: dict[str, Any], tenant: Any) -> Any:
        """The primary key as repositories take it."""
        key = tuple(given.get(part, tenant) for part in self.traits.primary_key)
        return key[0] if len(key) == 1 else key


def _segments(key: Mapping[str, Any]) -> list[str]:
    """The parts of a key as segments of a path. Raises `ValidationError` for one that no path can lead to."""
    segments = {part: _segment(part, value) for part, value in key.items()}
    if sum(map(len, segments.values())) > MAX_LENGTH:
        raise ValidationError(
            f"It is too long for a URL: a key may take {MAX_LENGTH:,} octets there, percent-encoded.",
            field=max(segments, key=lambda part: len(segments[part])),
        )
    return list(segments.values())


def _segment(part: str, value: Any) -> str:
    """A part of a key as one segment of a path.

    Servers decode ``%2F`` before they look for the route, and clients take ``%2e`` for the dot that it is: neither a
    slash nor a segment of dots can be escaped.
    """
    written = _written(value)
    if written in ("", ".", ".."):
        raise ValidationError(f"A row cannot be found in a URL by {written!r}; give another value.", field=part)
    if "/" in written or "\x00" in written:
        raise ValidationError("It is part of the row's URL and may have neither '/' nor NUL.", field=part)
    return quote(written, safe="")


def _written(value: Any) -> str:
    """A part of a key as a path has it: bytes as base64, times and durations as in JSON."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return in_url(value)
    return str(to_jsonable_python(value, fallback=str))
