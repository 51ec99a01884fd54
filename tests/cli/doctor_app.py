"""An app with one list, whose default order has no index."""

from __future__ import annotations

from fastapi import FastAPI

from dotmac_database_fastapi import list_router
from tests.cli.shop import Base, User

app = FastAPI()
app.include_router(list_router(User, default_sort="name"))

__all__ = ["Base", "app"]
