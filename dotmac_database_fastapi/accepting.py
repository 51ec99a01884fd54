"""Which media type a request prefers, by its ``Accept`` header (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from starlette.requests import HTTPConnection

JSON, HTML = "application/json", "text/html"

VARY = {"Vary": "Accept"}
"""The header of each response that depends on ``Accept``."""

_MAX_CACHED = 512
"""The longest header whose result is cached, in bytes."""

_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
_PARAMETER = re.compile(r';\s*([^\s;="]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;"]*)\s*')
_QUALITY = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


def preferred_type(connection: HTTPConnection, offered: tuple[str, ...]) -> str:
    """The media type that a request prefers of JSON and the ``offered`` ones.

    Without the header it is JSON. It is JSON too if the client accepts neither JSON nor an offered format: instead of a
    406, a server may disregard the header (section 12.5.1), as the other endpoints of an app do. Of types with the same
    quality, the one that the header names most specifically is preferred, and JSON before others. So ``*/*`` and the
    header of a browser mean JSON, and ``text/csv, */*`` means CSV.
    """
    header = b""
    for name, value in connection.scope["headers"]:
        if name == b"accept":
            header = header + b"," + value if header else value
    if not header:
        return JSON
    return _preferred(header, offered) if len(header) <= _MAX_CACHED else _preferred.__wrapped__(header, offered)


@lru_cache(maxsize=256)
def _preferred(header: bytes, offered: tuple[str, ...]) -> str:
    ranges = list(_ranges(header.decode("latin-1")))
    best, choice = _match(JSON, ranges), JSON
    for each in offered:
        match = _match(each, ranges)
        if match > best:
            best, choice = match, each
    return choice


def _ranges(header: str) -> Iterator[tuple[str, float]]:
    """The media ranges of the header with their qualities. Malformed ones are omitted, and other parameters too."""
    for element in _ELEMENT.findall(header):
        media_range, _, _ = element.partition(";")
        quality = 1.0
        for name, value in _PARAMETER.findall(element[len(media_range) :]):
            if name.lower() == "q":
                quality = float(value) if _QUALITY.fullmatch(value) else -1.0
                break
        if quality >= 0:
            yield media_range.strip().lower(), quality


def _match(media_type: str, ranges: list[tuple[str, float]]) -> tuple[float, int]:
    """The quality of a media type, by the most specific range that matches it, and how specific that range is.

    (0, 0) if no range matches it, or if its quality is 0.
    """
    kind = media_type.partition("/")[0]
    for specificity, name in ((3, media_type), (2, f"{kind}/*"), (1, "*/*")):
        qualities = [quality for each, quality in ranges if each == name]
        if qualities:
            quality = max(qualities)
            return (quality, specificity) if quality else (0.0, 0)
    return (0.0, 0)
