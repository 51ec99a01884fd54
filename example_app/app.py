"""The application itself."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.requests import Request

from dotmac_database_fastapi import DatabasePlugin, health_router, register_exception_handlers, tenant_from_header

from .routes import router
from .settings import Settings

STATIC = Path(__file__).parent / "static"


async def actor(request: Request) -> str:
    """Who acts, for the audit columns; a real application would ask its login."""
    return request.headers.get("X-Actor", "visitor")


def create_app(settings: Settings) -> FastAPI:
    """The application on one database, whose tables exist: see `prepare`."""
    plugin = DatabasePlugin(
        settings.database_url,
        tenant=tenant_from_header("X-Tenant-ID"),
        actor=actor,
        application_name="dotmac-example",
    )
    app = FastAPI(title="Airport inspections", lifespan=plugin.lifespan)
    register_exception_handlers(app)
    app.include_router(router)
    app.include_router(health_router(details=True))
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    return app
