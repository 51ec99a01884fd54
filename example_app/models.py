"""The tables: the countries, and the airports, users and inspections of each country."""

from __future__ import annotations

import enum
from datetime import date
from uuid import UUID

from sqlalchemy import Enum, ForeignKey, ForeignKeyConstraint, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column, relationship

from dotmac_database import AuditMixin, SoftDeleteMixin, TenantMixin, VersionMixin


class Base(DeclarativeBase):
    """The base class of the example's tables."""


class Role(enum.StrEnum):
    """The job of a user at a country's aviation authority."""

    INSPECTOR = "inspector"
    LEAD = "lead"
    ANALYST = "analyst"


class Status(enum.StrEnum):
    """Whether an inspection still has to be done."""

    OPEN = "open"
    CLOSED = "closed"


class Topic(enum.StrEnum):
    """The subject of an inspection."""

    RUNWAY = "runway"
    LIGHTING = "lighting"
    FIRE_SAFETY = "fire_safety"
    WILDLIFE = "wildlife"
    SECURITY = "security"


def _enum_column_type(kind: type[enum.StrEnum]) -> Enum:
    """A column type that stores the members' values as text, on every database. The API shows the same values."""
    return Enum(
        kind, native_enum=False, length=20, values_callable=lambda members: [member.value for member in members]
    )


class Country(Base):
    """A country. The countries are the tenants; a row of this table belongs to no tenant."""

    __tablename__ = "countries"
    __table_args__ = (Index("countries_by_name", "name", "code"),)

    code: Mapped[str] = mapped_column(String(2), primary_key=True)
    name: Mapped[str] = mapped_column(String(60))
    airports: Mapped[int]


class OfCountry(TenantMixin):
    """A mixin for rows that belong to one country, which is their tenant."""

    @declared_attr
    def tenant_id(cls) -> Mapped[str]:  # noqa: N805 - SQLAlchemy calls it with the class
        return mapped_column(String(2), ForeignKey("countries.code"), nullable=False)


class Airport(OfCountry, Base):
    """A real airport. ``keywords`` has its names and codes in lower case, without accents, for search-as-you-type."""

    __tablename__ = "airports"
    __table_args__ = (
        # Foreign keys to this table contain the country, so that no row can refer to another country's airport.
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
    """An invented person at a country's aviation authority."""

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("tenant_id", "email"),
        UniqueConstraint("tenant_id", "id"),
        Index("users_by_name", "tenant_id", "name", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
    email: Mapped[str] = mapped_column(String(120))
    role: Mapped[Role] = mapped_column(_enum_column_type(Role), default=Role.INSPECTOR)


class Inspection(OfCountry, AuditMixin, SoftDeleteMixin, VersionMixin, Base):
    """An inspection of an airport by a user, with audit columns, soft deletion and a version against lost updates."""

    __tablename__ = "inspections"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "airport_icao"], ["airports.tenant_id", "airports.icao"]),
        ForeignKeyConstraint(["tenant_id", "inspector_id"], ["users.tenant_id", "users.id"]),
        Index("inspections_by_airport", "tenant_id", "airport_icao", "due_on"),
        Index("inspections_by_inspector", "tenant_id", "inspector_id"),
        Index("inspections_by_due_date", "tenant_id", "due_on", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    airport_icao: Mapped[str] = mapped_column(String(4))
    inspector_id: Mapped[UUID]
    topic: Mapped[Topic] = mapped_column(_enum_column_type(Topic))
    status: Mapped[Status] = mapped_column(_enum_column_type(Status), default=Status.OPEN)
    due_on: Mapped[date]
    note: Mapped[str | None] = mapped_column(String(500))

    inspector: Mapped[User] = relationship(viewonly=True)
