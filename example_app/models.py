"""The tables. A country's authority sees its own airports, staff and inspections, and no other's."""

from __future__ import annotations

import enum
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import AuditMixin, SoftDeleteMixin, VersionMixin


class Base(DeclarativeBase):
    """All tables of the application."""


class Owned:
    """Rows of one country: the tenant's column, under the name that it has here."""

    __tenant_column__ = "country"

    country: Mapped[str] = mapped_column(String(2), ForeignKey("countries.code"))


class Country(Base):
    """A tenant, and so no tenant's row itself."""

    __tablename__ = "countries"

    code: Mapped[str] = mapped_column(String(2), primary_key=True)
    airports: Mapped[int]


class Airport(Owned, Base):
    """An airport, as ``airportsdata`` knows it. The elevation is in feet, the coordinates in degrees."""

    __tablename__ = "airports"
    __table_args__ = (Index("airports_by_name", "country", "name", "icao"), Index("airports_by_city", "country", "city"))

    icao: Mapped[str] = mapped_column(String(8), primary_key=True)
    iata: Mapped[str | None] = mapped_column(String(3))
    name: Mapped[str] = mapped_column(String(120))
    city: Mapped[str] = mapped_column(String(120))
    subdivision: Mapped[str] = mapped_column(String(120))
    elevation: Mapped[int]
    latitude: Mapped[float]
    longitude: Mapped[float]
    timezone: Mapped[str] = mapped_column(String(64))

    inspections: Mapped[list[Inspection]] = relationship(back_populates="airport", viewonly=True)


class Role(enum.Enum):
    """What a member of staff does."""

    INSPECTOR = "inspector"
    CHIEF = "chief"


class User(Owned, AuditMixin, Base):
    """Staff of a country's authority."""

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("country", "email"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
    email: Mapped[str] = mapped_column(String(120))
    role: Mapped[Role] = mapped_column(default=Role.INSPECTOR)


class Outcome(enum.Enum):
    """How an inspection stands."""

    OPEN = "open"
    PASSED = "passed"
    FAILED = "failed"


class Inspection(Owned, AuditMixin, SoftDeleteMixin, VersionMixin, Base):
    """One inspection of an airport, by a member of staff."""

    __tablename__ = "inspections"
    __table_args__ = (Index("inspections_by_airport", "country", "airport_icao"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    airport_icao: Mapped[str] = mapped_column(ForeignKey("airports.icao"))
    inspector_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    outcome: Mapped[Outcome] = mapped_column(default=Outcome.OPEN)
    notes: Mapped[str] = mapped_column(String(500), default="")

    airport: Mapped[Airport] = relationship(back_populates="inspections", viewonly=True)
    inspector: Mapped[User] = relationship(viewonly=True)
