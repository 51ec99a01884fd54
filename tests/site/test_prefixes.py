"""What the pages say of a router's prefix."""

from __future__ import annotations

from fastapi import FastAPI
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import TenantMixin
from dotmac_database_fastapi import DatabasePlugin, crud_router, tenant_from_header


class Base(DeclarativeBase):
    pass


class Lamp(TenantMixin, Base):
    __tablename__ = "lamps"

    id: Mapped[int] = mapped_column(primary_key=True)


def test_where_a_router_is_mounted() -> None:
    plugin = DatabasePlugin("sqlite://", tenant=tenant_from_header("X-Tenant-ID"))
    app = FastAPI(lifespan=plugin.lifespan)
    app.include_router(crud_router(Lamp, prefix="/lamps"))
    app.include_router(crud_router(Lamp), prefix="/others")
    app.include_router(crud_router(Lamp))
    paths = ["/lamps", "/lamps/{id}", "/others/", "/others/{id}", "/", "/{id}"]
    assert list(app.openapi()["paths"]) == paths
    plugin.database.dispose()
