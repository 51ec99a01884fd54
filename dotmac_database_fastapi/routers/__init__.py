"""Generated routers: a list, and all that can be done to one class of rows."""

from .crud import crud_router
from .lists import list_router

__all__ = ["crud_router", "list_router"]
