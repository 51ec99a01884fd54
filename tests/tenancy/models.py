"""Tenants' models of every shape: declarative and SQLModel, string, UUID and integer tenants, both inheritances."""

from __future__ import annotations

from typing import Any, Optional
from uuid import UUID, uuid4

from sqlalchemy import Column, ForeignKey, String, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlmodel import Field, SQLModel

from dotmac_database.models import SoftDeleteMixin, TenantMixin
from dotmac_database.sqlmodel import TenantMixin as SQLModelTenantMixin


class Base(DeclarativeBase):
    """The tables of the attacks."""


class Account(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    email: Mapped[str | None] = mapped_column(String(50), unique=True)

    notes: Mapped[list[Note]] = relationship(back_populates="account")


note_labels = Table(
    "note_labels",
    Base.metadata,
    Column("note_id", ForeignKey("notes.id"), primary_key=True),
    Column("label_id", ForeignKey("labels.id"), primary_key=True),
)


class Note(TenantMixin, Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id"))

    account: Mapped[Account | None] = relationship(back_populates="notes")
    labels: Mapped[list[Label]] = relationship(secondary=note_labels, back_populates="notes")


class Label(TenantMixin, Base):
    __tablename__ = "labels"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

    notes: Mapped[list[Note]] = relationship(secondary=note_labels, back_populates="labels")


class Animal(TenantMixin, Base):
    """The root of a joined inheritance."""

    __tablename__ = "animals"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]


class Dog(Animal):
    """Its own table has no tenant."""

    __tablename__ = "dogs"
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
    tricks: Mapped[str]


class Vehicle(TenantMixin, Base):
    """The root of a single-table inheritance."""

    __tablename__ = "vehicles"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]


class Truck(Vehicle):
    __mapper_args__ = {"polymorphic_identity": "truck"}  # noqa: RUF012


class Catalogue(Base):
    """Belongs to no tenant, and reaches tenants' rows through a relationship alone."""

    __tablename__ = "catalogues"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    offers: Mapped[list[Offer]] = relationship(back_populates="catalogue")


class Offer(TenantMixin, Base):
    __tablename__ = "offers"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    catalogue_id: Mapped[int] = mapped_column(ForeignKey("catalogues.id"))
    catalogue: Mapped[Catalogue] = relationship(back_populates="offers")


class Seat(Base):
    """An integer tenant in a column of another name, within the key."""

    __tablename__ = "org_seats"
    __tenant_column__ = "org"

    org: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    holder: Mapped[str | None]


class Device(TenantMixin, Base):
    """A UUID tenant."""

    __tablename__ = "devices"

    tenant_id: Mapped[UUID] = mapped_column(index=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str]


class Gadget(SQLModelTenantMixin, SQLModel, table=True):
    """SQLModel's own."""

    __tablename__ = "gadgets"
    metadata = Base.metadata

    id: Optional[int] = Field(default=None, primary_key=True)  # noqa: UP045 - as SQLModel's users write it
    name: str


ROWS: dict[type, list[dict[str, Any]]] = {
    Account: [
        {"id": 1, "tenant_id": "a", "name": "a one", "email": "one@a"},
        {"id": 2, "tenant_id": "b", "name": "b secret", "email": "two@b"},
        {"id": 3, "tenant_id": "a", "name": "a three", "email": None},
    ],
    Note: [
        {"id": 1, "tenant_id": "a", "title": "a note", "account_id": 1},
        {"id": 2, "tenant_id": "b", "title": "b secret", "account_id": 2},
        {"id": 3, "tenant_id": "a", "title": "a stray", "account_id": 2},
        {"id": 4, "tenant_id": "b", "title": "b secret stray", "account_id": 1},
    ],
    Label: [{"id": 1, "tenant_id": "a", "name": "a label"}, {"id": 2, "tenant_id": "b", "name": "b secret"}],
    Animal: [
        {"id": 1, "tenant_id": "a", "kind": "animal", "name": "a cat"},
        {"id": 2, "tenant_id": "b", "kind": "animal", "name": "b secret cat"},
    ],
    Vehicle: [
        {"id": 1, "tenant_id": "a", "kind": "truck", "name": "a truck"},
        {"id": 2, "tenant_id": "b", "kind": "truck", "name": "b secret truck"},
    ],
    Catalogue: [{"id": 1, "name": "shared"}],
    Offer: [
        {"id": 1, "tenant_id": "a", "title": "a offer", "catalogue_id": 1},
        {"id": 2, "tenant_id": "b", "title": "b secret", "catalogue_id": 1},
    ],
    Seat: [{"org": 1, "number": 1, "holder": "one"}, {"org": 2, "number": 1, "holder": "two secret"}],
    Device: [
        {"id": UUID(int=1), "tenant_id": UUID(int=10), "name": "ten"},
        {"id": UUID(int=2), "tenant_id": UUID(int=20), "name": "twenty secret"},
    ],
    Gadget: [{"id": 1, "tenant_id": "a", "name": "a gadget"}, {"id": 2, "tenant_id": "b", "name": "b secret"}],
}
"""What the attacks find: tenant a attacks, whatever says "secret" is another's."""

DOGS = [
    {"id": 11, "tenant_id": "a", "kind": "dog", "name": "a dog", "tricks": "sit"},
    {"id": 12, "tenant_id": "b", "kind": "dog", "name": "b secret dog", "tricks": "secret"},
]
LABELLED = [
    {"note_id": 1, "label_id": 1},
    {"note_id": 2, "label_id": 2},
    {"note_id": 1, "label_id": 2},
    {"note_id": 2, "label_id": 1},
]
