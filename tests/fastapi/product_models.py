"""The models, schemas and hooks with which the options of the routers are tested together."""

from __future__ import annotations

from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, computed_field, field_validator
from sqlalchemy import Column, ForeignKey, Table, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import AsyncTenantRepository, Database, SoftDeleteMixin, TenantMixin, VersionMixin

T = TypeVar("T")


class Base(DeclarativeBase):
    """The tables of people."""


class Team(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "product_teams"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    code: Mapped[str | None] = mapped_column(info={"private": True})


class Tag(TenantMixin, SoftDeleteMixin, Base):
    """The client makes the key, a text."""

    __tablename__ = "product_tags"

    slug: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]


person_tags = Table(
    "product_person_tags",
    Base.metadata,
    Column("person_id", ForeignKey("product_people.id"), primary_key=True),
    Column("tag_slug", ForeignKey("product_tags.slug"), primary_key=True),
)


class Person(TenantMixin, SoftDeleteMixin, VersionMixin, Base):
    __tablename__ = "product_people"
    __table_args__ = (UniqueConstraint("email"), UniqueConstraint("secret"))

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str]
    kind: Mapped[str | None]
    email: Mapped[str | None]
    secret: Mapped[str | None] = mapped_column(info={"private": True})
    bio: Mapped[str | None] = mapped_column(deferred=True, deferred_raiseload=True)
    team_id: Mapped[int | None] = mapped_column(ForeignKey("product_teams.id"))

    team: Mapped[Team | None] = relationship()
    posts: Mapped[list[Post]] = relationship(order_by="Post.id", back_populates="person")
    tags: Mapped[list[Tag]] = relationship(secondary=person_tags)


class Post(TenantMixin, SoftDeleteMixin, VersionMixin, Base):
    __tablename__ = "product_posts"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    text: Mapped[str | None] = mapped_column(deferred=True)
    person_id: Mapped[UUID | None] = mapped_column(ForeignKey("product_people.id"))
    team_id: Mapped[int | None] = mapped_column(ForeignKey("product_teams.id"))

    person: Mapped[Person | None] = relationship(back_populates="posts")


class Slot(Base):
    """A composite key with the tenant in it."""

    __tablename__ = "product_slots"
    __tenant_column__ = "org"

    org: Mapped[str] = mapped_column(sa.String(20), primary_key=True)
    day: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None]


class Animal(TenantMixin, SoftDeleteMixin, VersionMixin, Base):
    __tablename__ = "product_animals"
    __mapper_args__ = {"polymorphic_on": "sort_of", "polymorphic_identity": "animal"}  # noqa: RUF012 - SQLAlchemy's way

    id: Mapped[int] = mapped_column(primary_key=True)
    sort_of: Mapped[str] = mapped_column(info={"private": True})
    name: Mapped[str]
    person_id: Mapped[UUID | None] = mapped_column(ForeignKey("product_people.id"))


class Dog(Animal):
    __tablename__ = "product_dogs"
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012 - SQLAlchemy's way

    id: Mapped[int] = mapped_column(ForeignKey("product_animals.id"), primary_key=True)
    kind: Mapped[str | None]
    toys: Mapped[list[Toy]] = relationship()


class Toy(TenantMixin, Base):
    __tablename__ = "product_toys"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    dog_id: Mapped[int | None] = mapped_column(ForeignKey("product_dogs.id"))


class PersonRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    kind: str | None
    version: int


class PersonShouted(PersonRead):
    """With a validator and a computed field."""

    @field_validator("name")
    @classmethod
    def shout(cls, name: str) -> str:
        return name.upper()

    @computed_field
    def greeting(self) -> str:
        return f"Hello {self.name}"


class PersonAlias(BaseModel):
    model_config = ConfigDict(from_attributes=True, populate_by_name=True)

    id: UUID
    name: str = Field(alias="fullName")
    kind: str | None = None


class Envelope(BaseModel, Generic[T]):
    data: list[T] = Field(validation_alias="items")


class PersonEnvelope(BaseModel):
    data: list[PersonRead] = Field(validation_alias="items")


def enveloped(page: Any) -> dict[str, Any]:
    return {"rows": page.items}


class Living(AsyncTenantRepository[Person]):
    """Hides some rows everywhere."""

    def conditions(self) -> list[Any]:
        return [Person.name.not_like("hidden%")]


class Counting(AsyncTenantRepository[Person]):
    """Overrides methods, as users do."""

    async def list_paginated(self, *arguments: Any, **options: Any) -> Any:
        return await super().list_paginated(*arguments, **options)

    async def create(self, data: Any) -> Any:
        return await super().create(data)

    async def update(self, entity_id: Any, data: Any, **options: Any) -> Any:
        return await super().update(entity_id, data, **options)


class Passing:
    """Hooks that change nothing."""

    def before_create(self, data: Any, repository: Any) -> Any:
        return data

    async def after_create(self, entity: Any, repository: Any) -> None:
        assert entity.tenant_id

    async def before_update(self, key: Any, data: Any, repository: Any) -> Any:
        return data

    def after_update(self, entity: Any, repository: Any) -> None:
        entity.kind = entity.kind

    def before_delete(self, key: Any, repository: Any) -> None:
        assert key

    async def after_delete(self, key: Any, repository: Any) -> None:
        assert key


class Dicts:
    """Hooks that return dicts, and change the row afterwards."""

    def before_create(self, data: Any, repository: Any) -> Any:
        return data.model_dump(exclude_unset=True)

    async def after_create(self, entity: Any, repository: Any) -> None:
        entity.kind = "hooked"

    async def before_update(self, key: Any, data: Any, repository: Any) -> Any:
        return data.model_dump(exclude_unset=True)

    async def after_update(self, entity: Any, repository: Any) -> None:
        entity.kind = "hooked"


TENANTS = ("a", "b")
KINDS = ("own", "other", "gone", "hidden")
FORGED = 50


def marked(tenant: str, kind: str) -> str:
    """A text of a tenant's row, which no other tenant may see: the rows' marks are looked for in the responses."""
    return f"{kind} of-{tenant}"


def key_of(tenant: str, kind: str) -> int:
    return 10 * TENANTS.index(tenant) + KINDS.index(kind) + 1


def uuid_of(tenant: str, kind: str) -> str:
    return str(UUID(int=key_of(tenant, kind)))


def fill(database: Database) -> None:
    """The same rows for each tenant, and rows whose foreign keys are forged: they refer to rows of the other tenant."""
    tables: dict[str, Any] = {name.removeprefix("product_"): table for name, table in Base.metadata.tables.items()}
    with database.engine.begin() as connection:

        def insert(table: str, **values: Any) -> None:
            connection.execute(tables[table].insert(), values)

        for tenant in TENANTS:
            for kind in KINDS:
                key, name = key_of(tenant, kind), marked(tenant, kind)
                row = {"tenant_id": tenant, "is_deleted": kind == "gone"}
                insert("teams", id=key, name=name, code=f"{name} code", **row)
                insert("tags", slug=f"{kind}-of-{tenant}", name=name, **row)
                own = {"id": UUID(int=key), "version": 1, "kind": kind if kind != "other" else None}
                person = {"email": f"{name}@x", "secret": f"{name} secret", "bio": f"{name} bio", "team_id": key}
                insert("people", name=name, **own, **person, **row)
                post = {"id": key, "title": name, "person_id": UUID(int=key_of(tenant, "own")), "version": 1}
                insert("posts", **post, **row)
                animal = {"id": key, "name": name, "sort_of": "dog", "version": 1}
                insert("animals", **animal, **row)
                insert("dogs", id=key, kind=name)
                insert("toys", id=key, name=name, dog_id=key, tenant_id=tenant)
                insert("slots", org=tenant, day=KINDS.index(kind), name=name)
                insert("person_tags", person_id=UUID(int=key_of(tenant, "own")), tag_slug=f"{kind}-of-{tenant}")
        for tenant, other in zip(TENANTS, reversed(TENANTS), strict=True):
            row = {"tenant_id": tenant, "is_deleted": False, "version": 1}
            post = {"title": marked(tenant, "forged"), "person_id": UUID(int=key_of(other, "own"))}
            insert("posts", id=FORGED + key_of(tenant, "own"), **post, team_id=key_of(other, "own"), **row)
            person = {"id": UUID(int=FORGED + key_of(tenant, "own")), "team_id": key_of(other, "own")}
            insert("people", name=marked(tenant, "forged"), kind="forged", **person, **row)
            insert("person_tags", person_id=UUID(int=key_of(tenant, "own")), tag_slug=f"own-of-{other}")
        if connection.dialect.name == "postgresql":
            for table in ("teams", "posts", "animals", "toys"):
                connection.exec_driver_sql(f"SELECT setval('product_{table}_id_seq', 1000)")
