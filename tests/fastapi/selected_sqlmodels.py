"""The classes of `selected_models`, as SQLModel's."""

from uuid import UUID

from sqlalchemy import JSON
from sqlmodel import Field, Relationship, SQLModel

from dotmac_database.sqlmodel import SoftDeleteMixin, TenantMixin, VersionMixin

from .selected_models import Base


class SqlTeam(TenantMixin, SoftDeleteMixin, SQLModel, table=True):
    __tablename__ = "selectedsql_teams"
    metadata = Base.metadata

    id: int | None = Field(default=None, primary_key=True)
    name: str
    token: UUID


class SqlAuthor(TenantMixin, SoftDeleteMixin, SQLModel, table=True):
    __tablename__ = "selectedsql_authors"
    metadata = Base.metadata

    id: int | None = Field(default=None, primary_key=True)
    name: str
    motto: str | None = None
    team_id: int | None = Field(default=None, foreign_key="selectedsql_teams.id")
    team: SqlTeam | None = Relationship()


class SqlPostTag(SQLModel, table=True):
    __tablename__ = "selectedsql_post_tags"
    metadata = Base.metadata

    post_id: int = Field(primary_key=True, foreign_key="selectedsql_posts.id")
    tag_id: int = Field(primary_key=True, foreign_key="selectedsql_tags.id")


class SqlTag(TenantMixin, SoftDeleteMixin, SQLModel, table=True):
    __tablename__ = "selectedsql_tags"
    metadata = Base.metadata

    id: int | None = Field(default=None, primary_key=True)
    name: str
    labels: set[str] = Field(sa_type=JSON)
    """The values are lists, which must be converted before they are serialized as sets."""


class SqlPost(TenantMixin, SoftDeleteMixin, VersionMixin, SQLModel, table=True):
    __tablename__ = "selectedsql_posts"
    metadata = Base.metadata

    id: int | None = Field(default=None, primary_key=True)
    title: str
    words: int | None = None
    body: str | None = None
    author_id: int | None = Field(default=None, foreign_key="selectedsql_authors.id")
    editor_id: int | None = Field(default=None, foreign_key="selectedsql_authors.id")
    author: SqlAuthor | None = Relationship(sa_relationship_kwargs={"foreign_keys": "SqlPost.author_id"})
    tags: list[SqlTag] = Relationship(link_model=SqlPostTag, sa_relationship_kwargs={"order_by": "SqlTag.id"})
