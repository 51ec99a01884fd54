"""The toolkit's FastAPI plugin: request sessions and repositories, query parameters, generated routers, problems."""

from .dependencies import (
    get_caller,
    get_identity_session,
    get_repository,
    get_session,
    get_sync_identity_session,
    get_sync_repository,
    get_sync_session,
)
from .entities import get_entity
from .handlers import register_exception_handlers
from .health import health_router
from .identity import Caller
from .options import OPERATIONS, REACT_ADMIN, CrudOptions, ListOptions
from .params import CursorQuery, PageQuery, filter_query, options_query, sort_query
from .plugin import DatabasePlugin
from .registry import PluginError
from .rerun import rerun_route
from .routers import crud_router, list_router
from .session_callers import session_actor
from .statuses import DeleteBody
from .tenants import BadTenantError, tenant_from_header, tenant_from_path, tenant_from_subdomain

__all__ = [  # noqa: RUF022 - in the order of sorted(), without a group for constants
    "BadTenantError",
    "Caller",
    "CrudOptions",
    "CursorQuery",
    "DatabasePlugin",
    "DeleteBody",
    "ListOptions",
    "OPERATIONS",
    "PageQuery",
    "PluginError",
    "REACT_ADMIN",
    "crud_router",
    "filter_query",
    "get_caller",
    "get_entity",
    "get_identity_session",
    "get_repository",
    "get_session",
    "get_sync_identity_session",
    "get_sync_repository",
    "get_sync_session",
    "health_router",
    "list_router",
    "options_query",
    "register_exception_handlers",
    "rerun_route",
    "session_actor",
    "sort_query",
    "tenant_from_header",
    "tenant_from_path",
    "tenant_from_subdomain",
]
