"""Bytes as text: base64 in JSON, in query strings and in paths.

Pydantic's own ``base64`` mode is not used, for two reasons. It is a setting of the surrounding model, and the rows of a
derived schema are serialized as dicts, without a model. And it uses the URL-safe alphabet, but ``contentEncoding:
base64`` in OpenAPI means the standard one. Here the encoding is a part of the value's type.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Iterable
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BeforeValidator, EncodedBytes, PlainSerializer, WithJsonSchema
from pydantic_core import to_jsonable_python
from typing_extensions import Buffer

from .aliases import Annotation

_PLAIN_ALPHABET = str.maketrans("-_", "+/")
"""Translates the URL-safe alphabet to the standard one."""


_ANY = "[A-Za-z0-9+/_-]"
_PATTERN = f"({_ANY}{{4}})*({_ANY}{{2}}(==)?|{_ANY}{{3}}=?)?"
"""Base64 in either alphabet, with or without padding."""

_BASE64 = re.compile(_PATTERN)


def in_base64(value: Buffer) -> str:
    """Bytes as base64 in the standard alphabet (RFC 4648, section 4)."""
    return b64encode(value).decode("ascii")


def in_url(value: Buffer) -> str:
    """Bytes as base64 in the URL-safe alphabet (RFC 4648, section 5), without padding."""
    return urlsafe_b64encode(value).decode("ascii").rstrip("=")


def from_base64(value: object) -> bytes:
    """Decode a base64 text in either alphabet, with or without padding; bytes are returned unchanged.

    Raises `ValueError` for anything else.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if not isinstance(value, str):
        raise ValueError("Input should be a text in base64")
    if _BASE64.fullmatch(value) is None:
        raise ValueError("Input should be a text in base64")
    text = value.translate(_PLAIN_ALPHABET).rstrip("=")
    return b64decode(text + "=" * (-len(text) % 4), validate=True)


Base64 = Annotated[
    bytes,
    BeforeValidator(from_base64),
    PlainSerializer(in_base64, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "pattern": f"^{_PATTERN}$"}),
]
"""Bytes, represented as base64 in JSON."""

_BYTES = (bytes, bytearray, memoryview)


def _blanks(value: object) -> object:
    # An unescaped "+" in a query string is decoded as a space.
    return value.replace(" ", "+") if isinstance(value, str) else value


Base64InUrl = Annotated[Base64, BeforeValidator(_blanks)]
"""Bytes in a query string or a path."""


def with_base64(annotation: Annotation) -> Annotation:
    """The annotation with its bytes, at any depth, replaced by `Base64`. Models inside it are not changed."""
    if annotation in _BYTES:
        return Base64
    origin: Annotation = get_origin(annotation)
    inside = get_args(annotation)
    if origin is Annotated:
        plain, *notes = inside
        converted = with_base64(plain)
        # Pydantic's Base64Bytes would encode the bytes a second time.
        rest = without_encoding(notes)
        return annotation if converted is plain else Annotated[(converted, *rest)] if rest else converted
    parts = tuple(map(with_base64, inside))
    if origin is None or all(new is old for new, old in zip(parts, inside, strict=True)):
        return annotation
    return Union[parts] if not hasattr(origin, "__class_getitem__") else origin[parts]  # noqa: UP007 - any number


def without_encoding(notes: Iterable[object]) -> list[object]:
    """The metadata of a type without Pydantic's own encodings of bytes."""
    return [note for note in notes if not isinstance(note, EncodedBytes)]


AnyJsonValue = Annotated[
    Any, PlainSerializer(lambda value: to_jsonable_python(_plain(value), fallback=str), when_used="json")
]
"""A value of an unknown type for JSON: bytes as base64, a value without a JSON representation as its text."""


def _plain(value: object) -> object:
    return in_base64(value) if isinstance(value, _BYTES) else value
