"""Which of two representations a client prefers, by its ``Accept`` header (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Iterator

from starlette.requests import Request

JSON, HTML = "application/json", "text/html"

VARY = {"Vary": "Accept"}
"""The header of every response whose representation depends on ``Accept``."""


def prefers_html(request: Request) -> bool:
    """Whether the client prefers a page. One that has no preference, or sends no ``Accept``, gets JSON."""
    ranges = list(_ranges(",".join(request.headers.getlist("accept"))))
    return _quality(ranges, HTML) > _quality(ranges, JSON)


def _quality(ranges: list[tuple[str, float]], media_type: str) -> float:
    """The quality of a media type: that of the most specific range that contains it; 0 if no range does."""
    main = media_type.partition("/")[0]
    for wanted in (media_type, f"{main}/*", "*/*"):
        values = [quality for name, quality in ranges if name == wanted]
        if values:
            return max(values)
    return 0.0


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    """The media ranges of the header with their qualities. Parameters other than ``q`` don't matter here.

    A range whose quality is no number from 0 to 1 is ignored.
    """
    for each in accept.split(","):
        name, *parameters = (part.strip().lower() for part in each.split(";"))
        weights = [
            value.strip() for key, _, value in (part.partition("=") for part in parameters) if key.strip() == "q"
        ]
        try:
            quality = float(weights[0]) if weights else 1.0
        except ValueError:
            continue
        if name and 0 <= quality <= 1:
            yield name, quality
