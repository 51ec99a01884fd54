"""The formats of an export."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, TypeAlias, get_args

from starlette.requests import HTTPConnection

from dotmac_database import ValidationError

from .accepting import preferred_type

ExportFormat: TypeAlias = Literal["csv", "ndjson"]
"""The name of a format in which all rows of a list can be read."""

FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

MEDIA_TYPES: dict[ExportFormat, str] = {"csv": "text/csv", "ndjson": "application/x-ndjson"}

_OF_TYPES: dict[str, ExportFormat] = {name: each for each, name in MEDIA_TYPES.items()}


def checked_formats(formats: Collection[ExportFormat]) -> frozenset[ExportFormat]:
    """The formats as a set. Raises `ValidationError` for an unknown one."""
    for name in formats:
        if name not in FORMATS:
            raise ValidationError(
                f"exports: there is no format {name!r}. There are: {', '.join(FORMATS)}.", field="exports"
            )
    return frozenset(formats)


def preferred_format(connection: HTTPConnection, offered: tuple[ExportFormat, ...]) -> ExportFormat | None:
    """The offered format that the request prefers; None: JSON."""
    return _OF_TYPES.get(preferred_type(connection, tuple(MEDIA_TYPES[each] for each in offered)))
