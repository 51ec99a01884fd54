"""The ``ETag`` of a row, which is its version, and the versions in an ``If-Match`` header (RFC 9110)."""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache

from pydantic import TypeAdapter
from starlette.requests import Request

from dotmac_database import StaleEntityError, Traits

from .aliases import ColumnType
from .fields import text_type

_TAG = re.compile(r'\s*(?:(?P<any>\*)|(?P<weak>W/)?"(?P<tag>[^"]*)")\s*(?:,|\Z)')


def etag_of(traits: Traits[object], entity: object) -> str | None:
    """The entity's ``ETag``, in quotes; None if the class has no version column."""
    return None if traits.version is None else f'"{_written(getattr(entity, traits.version))}"'


def matched_versions(request: Request) -> frozenset[str] | None:
    """The versions that ``If-Match`` names; None if the header is missing or ``*``.

    Weak tags never match (RFC 9110, section 13.1.1), and neither does malformed text.
    """
    tags = ",".join(request.headers.getlist("if-match")).strip()
    if not tags:
        return None
    versions, position = set[str](), 0
    while position < len(tags):
        tag = _TAG.match(tags, position)
        if tag is None:
            return frozenset()
        if tag["any"]:
            return None
        if not tag["weak"]:
            versions.add(tag["tag"])
        position = tag.end()
    return frozenset(versions)


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
