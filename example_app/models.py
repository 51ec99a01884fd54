"""The tables: countries, and what belongs to one of them."""

from __future__ import annotations

import enum
from datetime import date
from uuid import UUID

from sqlalchemy import Enum, ForeignKey, ForeignKeyConstraint, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column, relationship

from dotmac_database import AuditMixin, SoftDeleteMixin, TenantMixin, VersionMixin


class Base(DeclarativeBase):
    """The example's tables."""


class Role(enum.StrEnum):
    """What somebody of a country's authority does."""

    INSPECTOR = "inspector"
    LEAD = "lead"
    ANALYST = "analyst"


class Status(enum.StrEnum):
    """Whether an inspection still has something to do."""

    OPEN = "open"
    CLOSED = "closed"


class Topic(enum.StrEnum):
    """What an inspection looks at."""

    RUNWAY = "runway"
    LIGHTING = "lighting"
    FIRE_SAFETY = "fire_safety"
    WILDLIFE = "wildlife"
    SECURITY = "security"


def _named(kind: type[enum.StrEnum]) -> Enum:
    """Stored as the text that the API shows, on every database."""
    return Enum(kind, native_enum=False, length=20, values_callable=lambda found: [each.value for each in found])


class Country(Base):
    """The tenants themselves; belongs to none of them."""

    __tablename__ = "countries"

    code: Mapped[str] = mapped_column(String(2), primary_key=True)
    name: Mapped[str] = mapped_column(String(60))
    airports: Mapped[int]


class OfCountry(TenantMixin):
    """Belongs to one country, which is its tenant."""

    @declared_attr
    def tenant_id(cls) -> Mapped[str]:  # noqa: N805 - SQLAlchemy calls it with the class
        return mapped_column(String(2), ForeignKey("countries.code"), nullable=False)


class Airport(OfCountry, Base):
    """A real airport. ``keywords`` is its names and codes in plain small letters, for a search as one types."""

    __tablename__ = "airports"
    __table_args__ = (
        # The keys of others name the country too, so that none can refer to another country's airport.
        UniqueConstraint("tenant_id", "icao"),
        Index("airports_by_name", "tenant_id", "name", "icao"),
        Index("airports_by_elevation", "tenant_id", "elevation_ft", "icao"),
    )

    icao: Mapped[str] = mapped_column(String(4), primary_key=True)
    iata: Mapped[str | None] = mapped_column(String(3))
    name: Mapped[str] = mapped_column(String(120))
    city: Mapped[str | None] = mapped_column(String(80))
    region: Mapped[str | None] = mapped_column(String(80))
    elevation_ft: Mapped[int]
    latitude: Mapped[float]
    longitude: Mapped[float]
    timezone: Mapped[str] = mapped_column(String(40))
    keywords: Mapped[str] = mapped_column(Text)

    inspections: Mapped[list[Inspection]] = relationship(viewonly=True)


class User(OfCountry, AuditMixin, Base):
    """Somebody of a country's aviation authority; made up."""

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("tenant_id", "email"), UniqueConstraint("tenant_id", "id"))

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
    email: Mapped[str] = mapped_column(String(120))
    role: Mapped[Role] = mapped_column(_named(Role), default=Role.INSPECTOR)


class Inspection(OfCountry, AuditMixin, SoftDeleteMixin, VersionMixin, Base):
    """An inspection of an airport by a user: audited, deleted softly, and not to be changed from a stale view."""

    __tablename__ = "inspections"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "airport_icao"], ["airports.tenant_id", "airports.icao"]),
        ForeignKeyConstraint(["tenant_id", "inspector_id"], ["users.tenant_id", "users.id"]),
        Index("inspections_by_airport", "tenant_id", "airport_icao", "due_on"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    airport_icao: Mapped[str] = mapped_column(String(4))
    inspector_id: Mapped[UUID]
    topic: Mapped[Topic] = mapped_column(_named(Topic))
    status: Mapped[Status] = mapped_column(_named(Status), default=Status.OPEN)
    due_on: Mapped[date]
    note: Mapped[str | None] = mapped_column(String(500))

    inspector: Mapped[User] = relationship(viewonly=True)
