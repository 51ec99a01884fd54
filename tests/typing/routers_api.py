"""What type checkers must accept of the plugin's routers and dependencies, and what they must refuse."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import assert_type

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from dotmac_database import (
    AsyncRepository,
    AsyncTenantRepository,
    BaseTenantRepository,
    PaginationResult,
    QueryFilter,
    QueryOptions,
    SortField,
    field,
)
from dotmac_database_fastapi import (
    OPERATIONS,
    REACT_ADMIN,
    CrudOptions,
    DatabasePlugin,
    DeleteBody,
    ListOptions,
    crud_router,
    filter_query,
    get_entity,
    get_repository,
    get_sync_repository,
    health_router,
    list_router,
    options_query,
    sort_query,
)

from ..models import Country, Post, User


class Users(AsyncTenantRepository[User]):
    """A repository class of the user's."""


class UserRead(BaseModel):
    """A read schema."""

    name: str


class UsersPublic(BaseModel):
    """An envelope."""

    data: list[UserRead] = Field(validation_alias="items")


def enveloped(page: PaginationResult[UserRead]) -> dict[str, object]:
    """An envelope as a function."""
    return {"data": page.items, "count": page.total}


async def guard() -> None:
    """A dependency."""


def routers(plugin: DatabasePlugin) -> None:
    """Routers by keyword arguments, by options, and by both."""
    short = list_router(User, prefix="/users", filters=["name"], totals={"exact"}, tags=["people"], plugin=plugin)
    assert_type(short, APIRouter)
    list_router(User, "/users", options=ListOptions(read_schema=UserRead, max_page_size=50), page_size=10)
    list_router(User, "/users", read_schema=UserRead, repository=Users, dependencies=[Depends(guard)])
    crud_router(User, "/users", UserRead, read_schema=UserRead, idempotency=True, idempotency_ttl=60)
    crud_router(User, options=CrudOptions(sorts=("name",), plugin=plugin), include_in_schema=False)
    crud_router(User, operations=[*OPERATIONS, "bulk_create", "link"], links=["posts"], hooks=Users)
    crud_router(User, nested=("posts",), permissions={"bulk_update": Depends(guard)})
    list_router(User, "/users", paging="offset", envelope=UsersPublic, page_size=None)
    list_router(User, "/users", paging="page", envelope=enveloped, trailing_slash=True)
    crud_router(User, "/users", status_codes={"create": 200}, delete_body=UserRead(name="x"), read_only_fields="ignore")
    crud_router(User, "/users", delete_body={"deleted": [1, None]})
    crud_router(User, "/users", options=REACT_ADMIN, delete_body=DeleteBody.ROW)
    health_router(plugin=plugin, tags=["health"])

    list_router(User, fliters=["name"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    list_router(User, page_size="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    crud_router(User, operations=["bulk_craete"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    list_router(User, idempotency=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    list_router(User, totals={"exakt"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    list_router(User, paging="number")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    list_router(User, envelope="items")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    crud_router(User, status_codes={"list": 200})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    list_router(User, filters=[User.name], sorts=[User.name], search=[User.name], default_sort=[User.created_at, "-id"])
    list_router(User, fields=[User.name], include=[User.posts, field(Post.author, User.name)], facets=[User.status])
    list_router(User, default_sort=SortField(User.created_at, "desc"))
    crud_router(User, operations=["create", "link"], links=[User.posts], nested=[User.posts])
    list_router(User, filters=[User.nmae])  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    crud_router(User, links=[User.psots])  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    ListOptions(fliters=["name"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def dependencies(plugin: DatabasePlugin) -> None:
    """The dependencies name the repository that they give."""
    assert_type(plugin.get_repository(User), Callable[..., Awaitable[AsyncTenantRepository[User]]])
    assert_type(plugin.get_repository(Users), Callable[..., Awaitable[Users]])
    assert_type(plugin.get_sync_repository(User), Callable[..., Awaitable[BaseTenantRepository[User]]])
    assert_type(get_repository(Users), Callable[..., Awaitable[Users]])
    assert_type(get_repository(User), Callable[..., Awaitable[AsyncTenantRepository[User]]])
    assert_type(get_sync_repository(User), Callable[..., Awaitable[BaseTenantRepository[User]]])
    assert_type(get_repository(Country), Callable[..., Awaitable[AsyncRepository[Country]]])
    assert_type(get_entity(User, relationships=[User.posts]), Callable[..., Awaitable[User]])
    assert_type(get_entity(Users), Callable[..., Awaitable[User]])
    assert_type(
        filter_query(User, User.name, field(User.posts, Post.title)), Callable[..., Awaitable[list[QueryFilter]]]
    )
    sort_query(User, User.nmae)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    assert_type(filter_query(User, "name"), Callable[..., Awaitable[list[QueryFilter]]])
    assert_type(sort_query(User), Callable[..., Awaitable[list[SortField]]])
    assert_type(options_query(User, read_schema=UserRead), Callable[..., Awaitable[QueryOptions]])
    assert_type(plugin.get_session, Callable[..., Awaitable[AsyncSession]])
