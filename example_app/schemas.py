"""The schemas of the API that are not derived from the tables."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, StringConstraints

from .models import Role, Status, Topic

_READ = ConfigDict(from_attributes=True)
_WRITE = ConfigDict(extra="forbid")

Icao = Annotated[str, StringConstraints(min_length=1, max_length=4, to_upper=True)]
Note = Annotated[str, StringConstraints(strip_whitespace=True, max_length=500)]


class AirportRead(BaseModel):
    """An airport. Its elevation is in feet, and its coordinates are in degrees."""

    model_config = _READ

    icao: str
    iata: str | None
    name: str
    city: str | None
    region: str | None
    elevation_ft: int
    latitude: float
    longitude: float
    timezone: str


class Inspector(BaseModel):
    """The user who makes an inspection."""

    model_config = _READ

    id: UUID
    name: str
    role: Role


class InspectionRead(BaseModel):
    """An inspection. ``version`` is the value for ``If-Match``."""

    model_config = _READ

    id: UUID
    airport_icao: str
    topic: Topic
    status: Status
    due_on: date
    note: str | None
    inspector: Inspector
    version: int
    created_by: str | None
    updated_at: datetime
    updated_by: str | None


class InspectionCreate(BaseModel):
    """A new inspection."""

    model_config = _WRITE

    airport_icao: Icao
    inspector_id: UUID
    topic: Topic
    due_on: date
    note: Note | None = None


class InspectionUpdate(BaseModel):
    """The fields of an inspection that can be changed. A field that is not set stays as it is."""

    model_config = _WRITE

    inspector_id: UUID = None  # type: ignore[assignment]  # not set: unchanged; null is refused
    topic: Topic = None  # type: ignore[assignment]  # as above
    status: Status = None  # type: ignore[assignment]  # as above
    due_on: date = None  # type: ignore[assignment]  # as above
    note: Note | None = None


class Summary(BaseModel):
    """Some numbers of a country."""

    airports: int
    staff: int
    open_inspections: int


class MapPoints(BaseModel):
    """The code, latitude and longitude of airports, for a map."""

    points: list[tuple[str, float, float]]
