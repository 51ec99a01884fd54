"""FastAPI apps of the shop, which have its plugin in every way in which an app can."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from dotmac_database_fastapi import DatabasePlugin, list_router
from tests.cli.shop import User, plugin, without_rls

by_lifespan = FastAPI(lifespan=plugin.lifespan)
by_lifespan.include_router(list_router(User, default_sort="name"))

installed = FastAPI()
plugin.install(installed)


@asynccontextmanager
async def _own_lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with plugin.lifespan(app):
        yield


of_its_own = FastAPI(lifespan=_own_lifespan)


def _with(one: DatabasePlugin) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with one.lifespan(app):
            yield

    return FastAPI(lifespan=lifespan)


in_a_function = _with(plugin)
twice = FastAPI(lifespan=plugin.lifespan)
plugin.install(twice)

without = FastAPI()
two = FastAPI(lifespan=plugin.lifespan)
without_rls.install(two)
routes = list_router(User)
