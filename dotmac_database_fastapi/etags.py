"""The ``ETag`` of a row, which is its version, and the tags in ``If-Match`` and ``If-None-Match`` (RFC 9110)."""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from pydantic import TypeAdapter
from starlette.requests import Request

from dotmac_database import StaleEntityError, Traits

from .aliases import ColumnType
from .fields import text_type

_TAG = re.compile(r'\s*(?:(?P<any>\*)|(?P<weak>W/)?"(?P<tag>[^"]*)")\s*(?:,|\Z)')


def etag_of(traits: Traits[object], entity: object) -> str | None:
    """The ``ETag`` of an entity, or of a row that is a dict, in quotes; None if the class has no version column."""
    if traits.version is None:
        return None
    version: object = entity[traits.version] if type(entity) is dict else getattr(entity, traits.version)
    return f'"{_written(version)}"'


def etag_of_body(body: bytes) -> str:
    """The weak ``ETag`` of a response with this body. Equal bodies have equal tags."""
    return f'W/"{blake2b(body, digest_size=16).hexdigest()}"'


def matched_versions(request: Request) -> frozenset[str] | None:
    """The versions that ``If-Match`` names; None if the header is missing or ``*``.

    Weak tags never match (RFC 9110, section 13.1.1), and neither does malformed text.
    """
    tags = _tags(request, "if-match")
    if tags is None or any(tag is _ANY for tag in tags):
        return None
    return frozenset(tag.value for tag in tags if not tag.is_weak)


def is_unchanged(request: Request, tag: str | None) -> bool:
    """Whether ``If-None-Match`` names this ``ETag``, so that a GET is a 304 (RFC 9110, section 13.1.2).

    Weak tags match, too. ``*`` matches each row that has an ``ETag``. Malformed text matches none.
    """
    if tag is None or "if-none-match" not in request.headers:
        return False
    return any(
        each is _ANY or each.value == tag.removeprefix("W/").strip('"')
        for each in _tags(request, "if-none-match") or ()
    )


class _Tag(NamedTuple):
    """A tag in a header, without its quotes."""

    value: str
    is_weak: bool = False


_ANY = _Tag("any row")
"""The ``*`` in a header, which stands for any tag. It is recognised by its identity."""


def _tags(request: Request, header: str) -> list[_Tag] | None:
    """The tags in a header; with ``*`` only `_ANY`. None: there is no header. Malformed text has no tags."""
    text = ",".join(request.headers.getlist(header)).strip()
    if not text:
        return None
    tags, position = list[_Tag](), 0
    while position < len(text):
        tag = _TAG.match(text, position)
        if tag is None:
            return []
        if tag["any"]:
            return [_ANY]
        tags.append(_Tag(tag["tag"], bool(tag["weak"])))
        position = tag.end()
    return tags


def expected_version(traits: Traits[object], versions: frozenset[str]) -> object:
    """The version that the row must have. Raises `StaleEntityError` unless ``versions`` contains one valid version."""
    current = [] if traits.version is None else _read(versions, _adapter(traits.columns[traits.version].type))
    if len(current) != 1:
        raise StaleEntityError(f"{traits.name}: If-Match does not name the version of the row.")
    return current[0]


def _read(versions: frozenset[str], adapter: TypeAdapter[object]) -> list[object]:
    """The tags that are versions in the form that `etag_of` writes, as values of the column's Python type."""
    current: list[object] = []
    for tag in versions:
        try:
            version = adapter.validate_python(tag)
        except ValueError:
            continue
        if _written(version) == tag:
            current.append(version)
    return current


@lru_cache(maxsize=1024)
def _adapter(type_: ColumnType) -> TypeAdapter[object]:
    return TypeAdapter(text_type(type_))


def _written(version: object) -> str:
    return str(version.isoformat()) if isinstance(version, datetime) else str(version)
