"""Models of every relationship and of both inheritances, and the rows of three tenants, for random statements."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ForeignKey, Table, func, insert, select
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    column_property,
    mapped_column,
    query_expression,
    relationship,
)

from dotmac_database.models import TenantMixin


class PeopleBase(DeclarativeBase):
    """The tables of the random statements."""


person_tags = Table(
    "rnd_person_tags",
    PeopleBase.metadata,
    Column("person_id", ForeignKey("rnd_people.id"), primary_key=True),
    Column("tag_id", ForeignKey("rnd_tags.id"), primary_key=True),
)


class Country(PeopleBase):
    """Belongs to no tenant."""

    __tablename__ = "rnd_countries"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    people: Mapped[list[Person]] = relationship(back_populates="country")


class Doc(TenantMixin, PeopleBase):
    __tablename__ = "rnd_docs"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    size: Mapped[int]
    person_id: Mapped[int | None] = mapped_column(ForeignKey("rnd_people.id"))
    person: Mapped[Person | None] = relationship(back_populates="docs")


class Tag(TenantMixin, PeopleBase):
    __tablename__ = "rnd_tags"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str]
    people: Mapped[list[Person]] = relationship(secondary=person_tags, back_populates="tags")


class Person(TenantMixin, PeopleBase):
    __tablename__ = "rnd_people"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    age: Mapped[int | None]
    boss_id: Mapped[int | None] = mapped_column(ForeignKey("rnd_people.id"))
    country_id: Mapped[int | None] = mapped_column(ForeignKey("rnd_countries.id"))
    boss: Mapped[Person | None] = relationship(remote_side=id, back_populates="staff")
    staff: Mapped[list[Person]] = relationship(back_populates="boss")
    country: Mapped[Country | None] = relationship(back_populates="people")
    docs: Mapped[list[Doc]] = relationship(back_populates="person")
    tags: Mapped[list[Tag]] = relationship(secondary=person_tags, back_populates="people")
    extra: Mapped[int | None] = query_expression()


Person.doc_count = column_property(  # type: ignore[attr-defined]
    select(func.count(Doc.id)).where(Doc.person_id == Person.id).correlate_except(Doc).scalar_subquery()
)


class Asset(TenantMixin, PeopleBase):
    """The root of a joined inheritance over two levels."""

    __tablename__ = "rnd_assets"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "asset"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("rnd_people.id"))
    owner: Mapped[Person | None] = relationship()


class Router(Asset):
    __tablename__ = "rnd_routers"
    __mapper_args__ = {"polymorphic_identity": "router"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("rnd_assets.id"), primary_key=True)
    ports: Mapped[int]


class CoreRouter(Router):
    __tablename__ = "rnd_core_routers"
    __mapper_args__ = {"polymorphic_identity": "core"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("rnd_routers.id"), primary_key=True)
    level: Mapped[int]


class Event(PeopleBase):
    """A parent that no tenant owns, below which a child is a tenant's."""

    __tablename__ = "rnd_events"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "event"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    what: Mapped[str]


class Visit(TenantMixin, Event):
    __tablename__ = "rnd_visits"
    __mapper_args__ = {"polymorphic_identity": "visit"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("rnd_events.id"), primary_key=True)
    guest: Mapped[str]


TENANTS = ("a", "b", "c")


def rows_of(tenant: str) -> list[tuple[Any, list[dict[str, Any]]]]:
    """The rows of one tenant: keys in a range of its own, and its name in every text."""
    start = 100 * (TENANTS.index(tenant) + 1)
    keys = range(start, start + 6)

    def text(what: str, key: int) -> str:
        return f"{tenant}!{what} {key}"

    people = [
        {
            "id": key,
            "tenant_id": tenant,
            "name": text("person", key),
            "age": None if key % 3 == 0 else key % 100 + 20,
            "boss_id": None if key == start else start,
            "country_id": 1 + key % 2,
        }
        for key in keys
    ]
    docs = [
        {
            "id": key,
            "tenant_id": tenant,
            "title": text("doc", key),
            "size": key,
            "person_id": None if key % 4 == 0 else start + key % 3,
        }
        for key in keys
    ]
    tags = [{"id": key, "tenant_id": tenant, "label": text("tag", key)} for key in keys[:3]]
    tagged = [{"person_id": person, "tag_id": tag} for person in keys[:4] for tag in keys[:3] if (person + tag) % 2]
    kinds = ("asset", "router", "core")
    assets = [
        {
            "id": key,
            "tenant_id": tenant,
            "kind": kinds[key % 3],
            "name": text("asset", key),
            "owner_id": start + key % 2,
        }
        for key in keys
    ]
    routers = [{"id": each["id"], "ports": each["id"]} for each in assets if each["kind"] != "asset"]
    cores = [{"id": each["id"], "level": each["id"]} for each in assets if each["kind"] == "core"]
    events = [{"id": key, "kind": "visit", "what": text("visit", key)} for key in keys[:2]]
    visits = [{"id": key, "tenant_id": tenant, "guest": text("guest", key)} for key in keys[:2]]
    return [
        (Person.__table__, people),
        (Doc.__table__, docs),
        (Tag.__table__, tags),
        (person_tags, tagged),
        (Asset.__table__, assets),
        (Router.__table__, routers),
        (CoreRouter.__table__, cores),
        (Event.__table__, events),
        (Visit.__table__, visits),
    ]


def fill(connection: Any, *tenants: str) -> None:
    """The rows of these tenants, and those that belong to all."""
    shared = [{"id": key, "name": f"country {key}"} for key in (1, 2, 3)]
    connection.execute(insert(Country), shared)
    connection.execute(insert(Event.__table__), [{"id": 1, "kind": "event", "what": "shared"}])
    for tenant in tenants:
        for table, rows in rows_of(tenant):
            connection.execute(insert(table), rows)


def contents(connection: Any) -> dict[str, list[Any]]:
    """Every row of every table."""
    return {
        table.name: sorted(map(tuple, connection.execute(select(table))), key=repr)
        for table in PeopleBase.metadata.sorted_tables
    }
