"""Posts with authors, teams and tags of two tenants, as declarative classes and as SQLModel's, and schemas of them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, computed_field, field_validator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import SoftDeleteMixin, TenantMixin, VersionMixin


class Base(DeclarativeBase):
    """The tables of the tests of selections."""


class Team(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "selected_teams"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    token: Mapped[UUID]


class Author(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "selected_authors"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    motto: Mapped[str | None] = mapped_column(deferred=True, deferred_raiseload=True)
    secret: Mapped[str | None] = mapped_column(info={"private": True})
    team_id: Mapped[int | None] = mapped_column(sa.ForeignKey("selected_teams.id"))
    team: Mapped[Team | None] = relationship()
    posts: Mapped[list[Post]] = relationship(foreign_keys="Post.author_id", viewonly=True)


post_tags = sa.Table(
    "selected_post_tags",
    Base.metadata,
    sa.Column("post_id", sa.ForeignKey("selected_posts.id"), primary_key=True),
    sa.Column("tag_id", sa.ForeignKey("selected_tags.id"), primary_key=True),
)


class Tag(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "selected_tags"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    labels: Mapped[list[str]] = mapped_column(sa.JSON)


class Post(TenantMixin, SoftDeleteMixin, VersionMixin, Base):
    __tablename__ = "selected_posts"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    words: Mapped[int | None]
    body: Mapped[str | None] = mapped_column(deferred=True, deferred_raiseload=True)
    secret: Mapped[str | None] = mapped_column(info={"private": True})
    author_id: Mapped[int | None] = mapped_column(sa.ForeignKey("selected_authors.id"))
    editor_id: Mapped[int | None] = mapped_column(sa.ForeignKey("selected_authors.id"))
    author: Mapped[Author | None] = relationship(foreign_keys=[author_id])
    editor: Mapped[Author | None] = relationship(foreign_keys=[editor_id])
    tags: Mapped[list[Tag]] = relationship(secondary=post_tags, order_by=Tag.id)


class TeamOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str


class AuthorOut(BaseModel):
    model_config = ConfigDict(from_attributes=True, populate_by_name=True)

    id: int
    name: str = Field(serialization_alias="fullName")
    team: TeamOut | None


class EditorOut(BaseModel):
    """A schema with a relationship that no request asks for."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    motto: str | None
    team: TeamOut | None


class PostOut(BaseModel):
    """A schema without code, which has one relationship of the option ``include``, under another name."""

    model_config = ConfigDict(from_attributes=True, populate_by_name=True)

    id: int
    heading: str = Field(validation_alias="title", description="What the post is about.")
    words: int | None
    writer: AuthorOut | None = Field(validation_alias="author", serialization_alias="writtenBy")


class ComputedOut(PostOut):
    """A schema whose code needs columns that a request may not select."""

    editor: EditorOut | None
    body: str | None

    @field_validator("heading")
    @classmethod
    def trimmed(cls, heading: str) -> str:
        return heading.strip()

    @computed_field  # type: ignore[prop-decorator]  # as Pydantic documents it
    @property
    def loud(self) -> str:
        return f"{self.heading}!{self.body}"


TENANTS = {"a": 0, "b": 100}
AUTHORS = {"live": 1, "deleted": 2, "of a deleted team": 3, "foreign": 4, "nobody": None}
"""The kinds of authors that the posts of each tenant have, with their ids: those of tenant b are 100 more."""

TOKEN = UUID(int=7)


def author_id(tenant: str, kind: str) -> int | None:
    own = AUTHORS[kind]
    other = "b" if tenant == "a" else "a"
    return None if own is None else TENANTS[other] + 1 if kind == "foreign" else TENANTS[tenant] + own


def rows() -> dict[str, list[dict[str, Any]]]:
    """The rows of each table. Some belong to one tenant, and refer to rows of the other one, as after a mistake."""
    made: dict[str, list[dict[str, Any]]] = {name: [] for name in ("teams", "authors", "tags", "posts", "post_tags")}
    for tenant, first in TENANTS.items():
        other = TENANTS["b" if tenant == "a" else "a"]
        common = {"tenant_id": tenant, "is_deleted": False}
        marked = {n: {**common, "id": first + n, "is_deleted": n == 2} for n in (1, 2, 3)}
        made["teams"] += [{**marked[n], "name": f"team {n}", "token": TOKEN} for n in (1, 2)]
        teams = {1: first + 1, 2: first + 1, 3: first + 2}
        made["authors"] += [
            {**common, "id": first + n, "name": f"author {n}", "motto": f"m{n}", "team_id": team, "is_deleted": n == 2}
            for n, team in teams.items()
        ]
        made["tags"] += [{**marked[n], "name": f"t{n}", "labels": ["x"]} for n in (1, 2, 3)]
        for place, kind in enumerate(AUTHORS):
            refers = {"author_id": author_id(tenant, kind), "editor_id": author_id(tenant, kind)}
            number, own = first + 1 + place, {"version": 1, "body": f"b{place}", "words": (place * 3) % 4}
            made["posts"].append({**common, **refers, **own, "id": number, "title": f"post {place}"})
            linked = (first + 1, first + 2, other + 1) if place % 2 == 0 else ()
            made["post_tags"] += [{"post_id": number, "tag_id": tag} for tag in linked]
        hidden = {**common, "id": first + 50, "title": "gone", "is_deleted": True, "version": 1, "words": 1}
        made["posts"].append({**hidden, "body": None, "author_id": first + 1, "editor_id": None})
    return made


def fill(connection: sa.Connection, prefix: str = "selected", metadata: sa.MetaData = Base.metadata) -> None:
    for name, members in rows().items():
        connection.execute(sa.insert(metadata.tables[f"{prefix}_{name}"]), members)
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(f"SELECT setval('{prefix}_posts_id_seq', 1000)"))
