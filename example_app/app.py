"""The FastAPI application: the plugin, the API, the health of the database, and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from dotmac_database_fastapi import DatabasePlugin, health_router, register_exception_handlers, tenant_from_header

from .routes import api_router
from .settings import Settings
from .statements import StatementLog, StatementMiddleware, note_statements, statements_router

STATIC = Path(__file__).parent / "static"
_PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


async def actor_from_header(x_user: Annotated[str | None, Header(max_length=255)] = None) -> str | None:
    """The user for the audit columns. A real application reads the user from a verified token."""
    return x_user


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application on the database of ``settings`` (None: from the environment). Connects at the first request."""
    settings = settings or Settings()
    plugin = DatabasePlugin(
        settings.database_url,
        tenant=tenant_from_header("X-Tenant-ID"),
        actor=actor_from_header,
        cursor_key=settings.cursor_key,
    )
    app = FastAPI(title="Airports of the world", version="1.0", lifespan=plugin.lifespan)
    register_exception_handlers(app)
    app.include_router(api_router())
    # The page shows the details of the health check. If strangers can reach your app, omit ``details``, or give it a
    # dependency that protects the details.
    app.include_router(health_router(plugin=plugin, details=True))
    log = StatementLog()
    note_statements(plugin.database.async_engine.sync_engine)
    app.add_middleware(StatementMiddleware, log=log)
    app.include_router(statements_router(log))
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_api_route("/", page, methods=["GET"], include_in_schema=False)
    app.state.plugin = plugin
    return app


async def page() -> FileResponse:
    """The page, which uses the whole API."""
    return FileResponse(STATIC / "index.html", headers=_PAGE_HEADERS)
