"""Primary keys in URL paths: ``/users/{id}``, with one segment for each column of a composite key."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Annotated
from urllib.parse import quote
from uuid import UUID

from fastapi import Path
from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from sqlalchemy import types as sa
from starlette.requests import Request

from dotmac_database import DatabaseError, Traits, ValidationError

from .aliases import Annotation, JsonObject
from .binary import in_url
from .declared import value_type
from .fields import Text, text_type

MAX_LENGTH = 4_000
"""The most octets of a percent-encoded key. RFC 9112, section 3, recommends request lines of 8,000 octets at least."""

SEGMENT: JsonObject = {
    "minLength": 1,
    "pattern": r"^([^/.\u0000][^/\u0000]*|\.[^/.\u0000][^/\u0000]*|\.\.[^/\u0000]+)$",
}
"""The JSON Schema of a text that can be one path segment: not ``.`` or ``..``, and without a slash."""

_REACHABLE = frozenset((sa.Integer, sa.BigInteger, sa.SmallInteger, sa.Uuid, sa.UUID))
"""The types whose values can all be in a path."""

_IN_PATHS = "/:@!$&'()*+,;=~"
"""The characters that are not percent-encoded in a path of several segments."""


class PathKey:
    """The primary key of a class in a path. The tenant column is not in the path: its value is the request's tenant."""

    def __init__(
        self, traits: Traits[object], names: Sequence[str] | None = None, *, reserved: Collection[str] = ()
    ) -> None:
        """``names`` are the path's parameters. None: ``id``, or those of the columns of a composite key.

        ``reserved`` are segments after the path of the collection that are no keys.
        """
        self.traits = traits
        self.reserved = frozenset(reserved)
        self.parts = [key for key in traits.primary_key if key != traits.tenant] or list(traits.primary_key)
        self.names = list(names) if names is not None else ["id"] if len(self.parts) == 1 else self.parts
        if len(self.names) != len(self.parts):
            raise ValidationError(
                f"{traits.name}: the key in the path has the columns {', '.join(self.parts)}, so that it needs as many "
                f"parameters, and not {', '.join(self.names)}.",
                field="param",
            )

    @property
    def path(self) -> str:
        """The template of the key's segments, after the path of the collection."""
        return "".join(f"/{{{name}}}" for name in self.names)

    @cached_property
    def always_reachable(self) -> bool:
        """Whether every value of the key can be in a path."""
        return all(type(self.traits.columns[part].type) in _REACHABLE for part in self.parts)

    def location(self, request: Request, entity: object, data: BaseModel) -> str:
        """The absolute path of a row in the collection at this request's path, with the app's root path.

        A key that can't be in a path raises `ValidationError` if the client sent it in ``data``; if the app made the
        key, it raises `DatabaseError`.
        """
        path, root = request.scope["path"], request.scope.get("root_path", "").rstrip("/")
        # Servers include the root path in the path. A proxy may strip it; then only the app's own setting names it.
        if path != root and not path.startswith(f"{root}/"):
            path = root + path
        try:
            segments = self._segments({part: getattr(entity, part) for part in self.parts})
        except ValidationError as refused:
            if refused.field in self._sent(data):
                raise
            raise DatabaseError(
                f"{self.traits.name}.{refused.field}: the app made a key that no URL can lead to."
            ) from refused
        return "/".join([quote(path.rstrip("/"), safe=_IN_PATHS), *segments])

    def refuse_unreachable(self, data: BaseModel) -> None:
        """Raise `ValidationError` if the client sent a key, or a column of one, that can't be in a path."""
        sent = self._sent(data)
        if sent:
            self._segments(sent)

    def _segments(self, key: Mapping[str, object]) -> list[str]:
        """The columns of a key as path segments. Raises `ValidationError` for a key that can't be in a path."""
        segments = _segments(key)
        if len(self.parts) == 1 and segments[0] in self.reserved:
            raise ValidationError(
                f"The path {segments[0]!r} is not that of a row; choose another key.", field=self.parts[0]
            )
        return segments

    def _sent(self, data: BaseModel) -> dict[str, object]:
        """The key columns that the client sent, under their own names even if it used synonyms."""
        sent = data.model_fields_set
        values = {part: getattr(data, name) for name, part in self._spellings.items() if name in sent}
        return {part: value for part, value in values.items() if value is not None}

    @cached_property
    def _spellings(self) -> dict[str, str]:
        """The key columns by their own names and by their synonyms."""
        synonyms = ((name, synonym.name) for name, synonym in self.traits.mapper.synonyms.items())
        return {part: part for part in self.parts} | {name: part for name, part in synonyms if part in self.parts}

    def dependency(self) -> Callable[..., Awaitable[dict[str, object]]]:
        """A dependency that gives the key's values in the path, by attribute name."""
        named = dict(zip(self.names, self.parts, strict=True))

        async def key(**values: object) -> dict[str, object]:
            return {named[name]: value for name, value in values.items()}

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

    def _type(self, part: str) -> Annotation:
        return text_type(self.traits.columns[part].type, value_type(self.traits, part))

    def _schema(self, part: str) -> JsonObject | None:
        return SEGMENT if self._type(part) is Text else None

    def of(self, values: Mapping[str, object], tenant: object) -> object:
        """The primary key in the form that repositories accept: a value, or a tuple for a composite key."""
        key = tuple(values.get(part, tenant) for part in self.traits.primary_key)
        return key[0] if len(key) == 1 else key


def _segments(key: Mapping[str, object]) -> list[str]:
    """The columns of a key as path segments. Raises `ValidationError` for a key that can't be in a path."""
    segments = {part: _segment(part, value) for part, value in key.items()}
    if sum(map(len, segments.values())) > MAX_LENGTH:
        raise ValidationError(
            f"The key is too long for a URL: it can have at most {MAX_LENGTH:,} octets after percent-encoding.",
            field=max(segments, key=lambda part: len(segments[part])),
        )
    return list(segments.values())


def _segment(part: str, value: object) -> str:
    """A key column's value as one path segment.

    Percent-encoding does not help with a slash, because servers decode ``%2F`` before routing, nor with the segments
    ``.`` and ``..``, because clients treat ``%2e`` as a dot (https://url.spec.whatwg.org/#double-dot-path-segment).
    """
    written = _written(value)
    if written in ("", ".", ".."):
        raise ValidationError(f"A URL can't contain the key {written!r}; choose another value.", field=part)
    if "/" in written or "\x00" in written:
        raise ValidationError("The key is part of the row's URL, and can't contain '/' or NUL.", field=part)
    return quote(written, safe="")


def _written(value: object) -> str:
    """A key column's value as text: bytes as base64, times and durations as in JSON."""
    if type(value) is int or isinstance(value, UUID):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return in_url(value)
    return str(to_jsonable_python(value, fallback=str))
