"""A row's version as its ``ETag``, and ``If-Match`` (RFC 9110) against it."""

from __future__ import annotations

import re
from typing import Any

from starlette.requests import Request

from dotmac_database import StaleEntityError, Traits

_TAG = re.compile(r'\s*(?:(?P<any>\*)|(?P<weak>W/)?"(?P<tag>[^"]*)")\s*(?:,|\Z)')


def etag_of(traits: Traits[Any], entity: Any) -> str | None:
    """The entity's tag; None: its class has no version."""
    return None if traits.version is None else f'"{getattr(entity, traits.version)}"'


def matched_versions(request: Request) -> frozenset[str] | None:
    """The versions that ``If-Match`` names; None: it is not given, or any will do.

    Weak tags never match, nor does what is no tag.
    """
    given = ",".join(request.headers.getlist("if-match")).strip()
    if not given:
        return None
    versions, position = set[str](), 0
    while position < len(given):
        found = _TAG.match(given, position)
        if found is None:
            return frozenset()
        if found["any"]:
            return None
        if not found["weak"]:
            versions.add(found["tag"])
        position = found.end()
    return frozenset(versions)


def expected_version(traits: Traits[Any], versions: frozenset[str]) -> int:
    """The one version that a write may find. Raises `StaleEntityError` where there can be none."""
    numbers = [int(version) for version in versions if version.isascii() and version.isdecimal() and len(version) < 19]
    if traits.version is None or len(numbers) != 1:
        raise StaleEntityError(f"{traits.name}: If-Match names no version of it.")
    return numbers[0]
