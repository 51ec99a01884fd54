"""Generated routers: lists, and all operations on the rows of a class."""

from .crud import crud_router
from .lists import list_router

__all__ = ["crud_router", "list_router"]
