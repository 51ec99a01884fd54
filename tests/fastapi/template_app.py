"""The 23 routes of FastAPI's full-stack template, on the generated routers.

https://github.com/fastapi/full-stack-fastapi-template: users who log in by JWT, and their items. A user sees only their
own items, so the owner is the tenant of an item; a superuser sees all. The answers are the template's: ``{data,
count}``, ``skip`` and ``limit``, PUT, 200 for a new row, a message for a deleted one, and a 403 for another user's row.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

import jwt
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path
from fastapi.responses import HTMLResponse
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from pydantic import BaseModel
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from dotmac_database import ALL_TENANTS, AsyncRepository, create_async_repository, current_actor
from dotmac_database_fastapi import (
    Caller,
    DatabasePlugin,
    crud_router,
    get_caller,
    get_entity,
    get_identity_session,
    get_repository,
    register_exception_handlers,
)

SECRET = secrets.token_urlsafe(32)
outbox: list[tuple[str, str]] = []
"""The e-mails that the app has sent: the address, and the token in the mail."""


class Shared(SQLModel):
    """The columns of a user that the API shows and takes."""

    email: str = Field(unique=True, index=True, max_length=255)
    is_active: bool = True
    is_superuser: bool = False
    full_name: str | None = Field(default=None, max_length=255)


class User(Shared, table=True):
    """A user who logs in."""

    __tablename__ = "template_user"

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    hashed_password: str = Field(sa_column_kwargs={"info": {"private": True}})
    created_at: datetime | None = Field(default_factory=lambda: datetime.now(UTC))


class ItemBase(SQLModel):
    """The columns of an item that a client sends."""

    title: str = Field(min_length=1, max_length=255)
    description: str | None = Field(default=None, max_length=255)


class Item(ItemBase, table=True):
    """A thing of one user, who is its tenant."""

    __tablename__ = "template_item"
    __tenant_column__ = "owner_id"

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    owner_id: UUID = Field(foreign_key="template_user.id", nullable=False, ondelete="CASCADE", index=True)
    created_at: datetime | None = Field(default_factory=lambda: datetime.now(UTC))


class UserPublic(Shared):
    """A user in a response."""

    id: UUID
    created_at: datetime | None = None


class ItemPublic(ItemBase):
    """An item in a response."""

    id: UUID
    owner_id: UUID
    created_at: datetime | None = None


class UsersPublic(BaseModel):
    """A page of users."""

    data: list[UserPublic] = Field(validation_alias="items")
    count: int = Field(validation_alias="total")


class ItemsPublic(BaseModel):
    """A page of items."""

    data: list[ItemPublic] = Field(validation_alias="items")
    count: int = Field(validation_alias="total")


class UserCreate(Shared):
    """A new user."""

    password: str = Field(min_length=8, max_length=128)


class UserRegister(SQLModel):
    """A user who signs up."""

    email: str = Field(max_length=255)
    password: str = Field(min_length=8, max_length=128)
    full_name: str | None = Field(default=None, max_length=255)


class UserUpdate(SQLModel):
    """A change of a user by a superuser."""

    email: str | None = Field(default=None, max_length=255)
    password: str | None = Field(default=None, min_length=8, max_length=128)
    full_name: str | None = Field(default=None, max_length=255)
    is_active: bool = True
    is_superuser: bool = False


class UserUpdateMe(SQLModel):
    """A change of one's own user."""

    full_name: str | None = Field(default=None, max_length=255)
    email: str | None = Field(default=None, max_length=255)


class UpdatePassword(SQLModel):
    """A change of one's own password."""

    current_password: str = Field(min_length=8, max_length=128)
    new_password: str = Field(min_length=8, max_length=128)


class NewPassword(SQLModel):
    """A new password, with the token of the mail."""

    token: str
    new_password: str = Field(min_length=8, max_length=128)


class ItemUpdate(ItemBase):
    """A change of an item."""

    title: str | None = Field(default=None, min_length=1, max_length=255)  # type: ignore[assignment]


class Message(SQLModel):
    """An answer in words."""

    message: str


class Token(SQLModel):
    """The answer to a log-in."""

    access_token: str
    token_type: str = "bearer"


Users = AsyncRepository[User]
users_of_request = Depends(get_repository(User))


def hashed(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()  # the tests make many users: no slow hash here


def token_of(user: User) -> str:
    return jwt.encode({"sub": str(user.id), "exp": datetime.now(UTC) + timedelta(hours=1)}, SECRET, algorithm="HS256")


async def user_of(token: str, users: Users) -> User:
    """The user of a token: 403 for a bad token, 404 for an unknown user, 400 for an inactive one."""
    try:
        claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    except jwt.InvalidTokenError:
        raise HTTPException(403, "Could not validate credentials") from None
    user = await users.get_by_id(UUID(claims["sub"]))
    if user is None:
        raise HTTPException(404, "User not found")
    if not user.is_active:
        raise HTTPException(400, "Inactive user")
    return user


bearer = OAuth2PasswordBearer(tokenUrl="/api/v1/login/access-token", auto_error=False)


async def current_user(
    token: str | None = Depends(bearer), session: AsyncSession = Depends(get_identity_session)
) -> User | None:
    return None if token is None else await user_of(token, create_async_repository(session, User))


async def owner(user: User | None = Depends(current_user)) -> object:
    if user is None:
        raise HTTPException(401, "Not authenticated")
    return ALL_TENANTS if user.is_superuser else user.id


Me = Caller[object, User]


async def me(caller: Me = Depends(get_caller)) -> User:
    return caller.actor


async def superuser(user: User = Depends(me)) -> User:
    if not user.is_superuser:
        raise HTTPException(403, "The user doesn't have enough privileges")
    return user


async def self_or_superuser(user_id: UUID = Path(alias="id"), user: User = Depends(me)) -> None:
    if user.id != user_id and not user.is_superuser:
        raise HTTPException(403, "The user doesn't have enough privileges")


async def another_user(user_id: UUID = Path(alias="id"), user: User = Depends(superuser)) -> None:
    if user.id == user_id:
        raise HTTPException(403, "Super users are not allowed to delete themselves")


class UserHooks:
    """Hashes passwords, and tells of an e-mail that is used already before the database does."""

    async def before_create(self, data: Any, repository: Users) -> dict[str, Any]:
        if await repository.get_by_field("email", data.email) is not None:
            raise HTTPException(400, "The user with this email already exists in the system")
        return {**data.model_dump(exclude={"password"}), "hashed_password": hashed(data.password)}

    async def before_update(self, entity_id: object, data: Any, repository: Users) -> dict[str, Any]:
        values = data.model_dump(exclude_unset=True)
        if values.get("email") is not None:
            holder = await repository.get_by_field("email", values["email"])
            if holder is not None and holder.id != entity_id:
                raise HTTPException(409, "User with this email already exists")
        if (password := values.pop("password", None)) is not None:
            values["hashed_password"] = hashed(password)
        return values


class ItemHooks:
    """The items that a superuser creates are their own, although a superuser sees those of all."""

    def before_create(self, data: ItemBase, _repository: AsyncRepository[Item]) -> dict[str, Any]:
        return {**data.model_dump(), "owner_id": UUID(current_actor())}


def generated() -> list[APIRouter]:
    """The routers of the 12 routes that are generated."""
    fitted: dict[str, Any] = {
        "paging": "offset",
        "page_size": 100,
        "default_sort": "-created_at",
        "status_codes": {"create": 200, "delete": 200},
    }
    own = Depends(get_entity(Item, forbidden=403))
    signing_up: Any = {
        "read_schema": UserPublic,
        "hooks": UserHooks(),
        "operations": {"create"},
        "status_codes": {"create": 200},
    }
    return [
        crud_router(
            User,
            "/users",
            UserCreate,
            UserUpdate,
            UserPublic,
            envelope=UsersPublic,
            hooks=UserHooks(),
            delete_body=Message(message="User deleted successfully"),
            trailing_slash=True,
            permissions={
                "list": Depends(superuser),
                "create": Depends(superuser),
                "read": Depends(self_or_superuser),
                "update": Depends(superuser),
                "delete": Depends(another_user),
            },
            **fitted,
        ),
        crud_router(
            Item,
            "/items",
            ItemBase,
            ItemUpdate,
            ItemPublic,
            envelope=ItemsPublic,
            hooks=ItemHooks(),
            delete_body=Message(message="Item deleted successfully"),
            trailing_slash=True,
            update_method="PUT",
            permissions={"read": own, "update": own, "delete": own},
            **fitted,
        ),
        crud_router(User, "/users/signup", UserRegister, **signing_up),
        crud_router(User, "/private/users", UserCreate, trailing_slash=True, **signing_up),
    ]


byhand = APIRouter()


@byhand.post("/login/access-token", tags=["login"])
async def log_in(form: OAuth2PasswordRequestForm = Depends(), users: Users = users_of_request) -> Token:
    user = await users.get_by_field("email", form.username)
    if user is None or user.hashed_password != hashed(form.password):
        raise HTTPException(400, "Incorrect email or password")
    if not user.is_active:
        raise HTTPException(400, "Inactive user")
    return Token(access_token=token_of(user))


@byhand.post("/password-recovery/{email}", tags=["login"])
async def recover_password(email: str, users: Users = users_of_request) -> Message:
    user = await users.get_by_field("email", email)
    if user is not None:
        outbox.append((email, token_of(user)))
    return Message(message="If that email is registered, we sent a password recovery link")


@byhand.post("/reset-password/", tags=["login"])
async def reset_password(body: NewPassword, users: Users = users_of_request) -> Message:
    user = await user_of(body.token, users)
    await users.update(user.id, {"hashed_password": hashed(body.new_password)})
    return Message(message="Password updated successfully")


@byhand.post("/password-recovery-html-content/{email}", dependencies=[Depends(superuser)], tags=["login"])
async def recovery_mail(email: str, users: Users = users_of_request) -> HTMLResponse:
    user = await users.get_by_field("email", email)
    if user is None:
        raise HTTPException(404, "The user with this username does not exist in the system.")
    return HTMLResponse(f"<p>{token_of(user)}</p>", headers={"subject": "Password recovery"})


@byhand.post("/login/test-token", response_model=UserPublic, tags=["login"])
@byhand.get("/users/me", response_model=UserPublic, tags=["users"])
async def read_me(user: User = Depends(me)) -> User:
    return user


@byhand.patch("/users/me", response_model=UserPublic, tags=["users"])
async def update_me(body: UserUpdateMe, user: User = Depends(me), users: Users = users_of_request) -> User:
    return await users.update(user.id, await UserHooks().before_update(user.id, body, users))


@byhand.patch("/users/me/password", tags=["users"])
async def update_password(body: UpdatePassword, user: User = Depends(me), users: Users = users_of_request) -> Message:
    if user.hashed_password != hashed(body.current_password):
        raise HTTPException(400, "Incorrect password")
    if body.current_password == body.new_password:
        raise HTTPException(400, "New password cannot be the same as the current one")
    await users.update(user.id, {"hashed_password": hashed(body.new_password)})
    return Message(message="Password updated successfully")


@byhand.delete("/users/me", tags=["users"])
async def delete_me(user: User = Depends(me), users: Users = users_of_request) -> Message:
    if user.is_superuser:
        raise HTTPException(403, "Super users are not allowed to delete themselves")
    await users.delete(user.id)
    return Message(message="User deleted successfully")


@byhand.post("/utils/test-email/", status_code=201, dependencies=[Depends(superuser)], tags=["utils"])
async def send_mail(email_to: str) -> Message:
    outbox.append((email_to, "test"))
    return Message(message="Test email sent")


@byhand.get("/utils/health-check/", tags=["utils"])
async def health_check() -> Literal[True]:
    return True


def app_of(plugin: DatabasePlugin) -> FastAPI:
    """The whole app."""
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    for router in (byhand, *generated()):
        app.include_router(router, prefix="/api/v1")
    return app
