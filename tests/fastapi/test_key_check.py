"""What the plugin says at its start of keys that do not carry the tenant."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import (
    AsyncTenantRepository,
    RowLevelSecurity,
    TenantIsolationError,
    TenantMixin,
    tenant_foreign_key,
    tenant_unique,
)
from dotmac_database_fastapi import (
    DatabasePlugin,
    crud_router,
    get_repository,
    get_sync_repository,
    list_router,
    tenant_from_header,
)


class Loose(DeclarativeBase):
    pass


class Account(TenantMixin, Loose):
    __tablename__ = "accounts"
    id: Mapped[int] = mapped_column(primary_key=True)


class Note(TenantMixin, Loose):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))


class Notes(AsyncTenantRepository[Note]):
    pass


class Sound(DeclarativeBase):
    pass


class Folder(TenantMixin, Sound):
    __tablename__ = "folders"
    __table_args__ = (tenant_unique("id"),)
    id: Mapped[int] = mapped_column(primary_key=True)


class Paper(TenantMixin, Sound):
    __tablename__ = "papers"
    __table_args__ = (tenant_foreign_key("folder_id", "folders.id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    folder_id: Mapped[int]


WARNING = (
    "The foreign key of notes (account_id) to accounts does not carry the tenant. "
    'Use tenant_foreign_key("account_id", "accounts.id"), and tenant_unique("id") for accounts.'
)


def by_endpoint(target: type, get: Any = get_repository) -> Any:
    def add(app: FastAPI, _plugin: DatabasePlugin) -> None:
        @app.get("/rows")
        async def rows(repository: Any = Depends(get(target))) -> None: ...

    return add


def by_router(make: Any, model: type) -> Any:
    return lambda app, _plugin: app.include_router(make(model, prefix="/rows"))


def by_plugin(model: type) -> Any:
    return lambda app, plugin: app.include_router(crud_router(model, prefix="/rows", plugin=plugin))


def nested(model: type) -> Any:
    async def inner(repository: Any = Depends(get_repository(model))) -> None: ...

    def add(app: FastAPI, _plugin: DatabasePlugin) -> None:
        router = APIRouter()

        @router.get("/rows", dependencies=[Depends(inner)])
        async def rows() -> None: ...

        app.include_router(router, prefix="/inner")

    return add


def start(plugin: DatabasePlugin, app: FastAPI) -> None:
    async def run() -> None:
        async with app.router.lifespan_context(app):
            pass

    asyncio.run(run())


def app_of(plugin: DatabasePlugin, way: str) -> FastAPI:
    if way == "lifespan":
        return FastAPI(lifespan=plugin.lifespan)
    app = FastAPI()
    plugin.install(app)
    return app


@pytest.mark.parametrize("way", ["lifespan", "install"])
@pytest.mark.parametrize(
    "add",
    [
        by_endpoint(Note),
        by_endpoint(Notes),
        by_endpoint(Note, get_sync_repository),
        by_router(crud_router, Account),
        by_router(list_router, Note),
        by_plugin(Note),
        nested(Note),
    ],
)
def test_a_loose_key_of_what_is_served_is_a_warning_and_an_error_with_strict(
    add: Any, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    for strict in (False, True):
        plugin = DatabasePlugin("sqlite://", tenant=tenant_from_header(), strict=strict)
        app = app_of(plugin, way)
        add(app, plugin)
        caplog.clear()
        if strict:
            with pytest.raises(TenantIsolationError, match="account_id"):
                start(plugin, app)
        else:
            start(plugin, app)
            said = [record for record in caplog.records if record.name == "dotmac_database.tenancy"]
            assert [(record.levelno, record.getMessage()) for record in said] == [(logging.WARNING, WARNING)]


def test_what_row_level_security_protects_is_served_too() -> None:
    plugin = DatabasePlugin("sqlite://", tenant=tenant_from_header(), strict=True, rls=RowLevelSecurity(Loose.metadata))
    with pytest.raises(TenantIsolationError, match="account_id"):
        start(plugin, FastAPI(lifespan=plugin.lifespan))


@pytest.mark.parametrize("add", [by_endpoint(Paper), by_router(crud_router, Paper), lambda *_: None])
def test_sound_keys_and_those_of_others_are_silent(add: Any, caplog: pytest.LogCaptureFixture) -> None:
    plugin = DatabasePlugin("sqlite://", tenant=tenant_from_header(), strict=True)
    app = FastAPI(lifespan=plugin.lifespan)
    add(app, plugin)
    start(plugin, app)
    assert caplog.records == []


def test_the_example_is_sound() -> None:
    from dotmac_database import check_tenant_keys
    from example_app.models import Base

    assert check_tenant_keys(Base.metadata, strict=True) == []
