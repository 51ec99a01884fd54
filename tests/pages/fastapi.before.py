from typing import Any
from uuid import UUID

from fastapi import HTTPException
from fastapi.security import APIKeyHeader
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Relationship

from dotmac_database import PaginationResult, QueryFilter, QueryOptions, SortField, create_async_repository
from dotmac_database.testing import AsyncMockRepository
from dotmac_database_fastapi import ListOptions

scheme = APIKeyHeader(name="X-Token", auto_error=False)
my_session = None


class Member(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str
    token: str
    organisation_id: UUID


class Country(SQLModel, table=True):
    code: str = Field(primary_key=True)
    name: str


class City(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str


class Team(TenantMixin, SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)


class Author(TenantMixin, SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    team_id: int | None = Field(default=None, foreign_key="team.id")
    team: Team | None = Relationship()


class PostTag(TenantMixin, SQLModel, table=True):
    post_id: int = Field(foreign_key="post.id", primary_key=True)
    tag_id: int = Field(foreign_key="tag.id", primary_key=True)


class Tag(TenantMixin, SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)


class Post(TenantMixin, SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    title: str
    author_id: int = Field(foreign_key="author.id")
    author: Author | None = Relationship()
    tags: list[Tag] = Relationship(link_model=PostTag)


class Label(TenantMixin, SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)


class OrderLabel(TenantMixin, SQLModel, table=True):
    order_id: int = Field(foreign_key="order.id", primary_key=True)
    label_id: int = Field(foreign_key="label.id", primary_key=True)


class Line(TenantMixin, SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    order_id: int = Field(foreign_key="order.id")


class Order(TenantMixin, SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    total: int = 0
    labels: list[Label] = Relationship(link_model=OrderLabel)
    lines: list[Line] = Relationship()


class UserRead(SQLModel):
    id: UUID
    name: str
