"""The toolkit's FastAPI plugin: request sessions and repositories, query parameters, generated routers, problems."""

from .app_plugins import plugins_of
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
from .job_headers import JobFault, JobHeadersError
from .jobs import carry
from .options import OPERATIONS, REACT_ADMIN, CrudOptions, ListOptions
from .params import CursorQuery, PageQuery, filter_query, options_query, sort_query
from .plugin import DatabasePlugin
from .reads import declared_reads
from .registry import PluginError
from .request_ids import current_request_id, within_request
from .rerun import rerun_route
from .routers import crud_router, list_router
from .session_callers import session_actor
from .statuses import DeleteBody
from .tenant_directory import TenantDirectory
from .tenants import (
    BadTenantError,
    SuspendedTenantError,
    UnknownTenantError,
    tenant_from_header,
    tenant_from_path,
    tenant_from_subdomain,
)

__all__ = [  # noqa: RUF022 - in the order of sorted(), without a group for constants
    "BadTenantError",
    "Caller",
    "CrudOptions",
    "CursorQuery",
    "DatabasePlugin",
    "DeleteBody",
    "JobFault",
    "JobHeadersError",
    "ListOptions",
    "OPERATIONS",
    "PageQuery",
    "PluginError",
    "REACT_ADMIN",
    "SuspendedTenantError",
    "TenantDirectory",
    "UnknownTenantError",
    "carry",
    "crud_router",
    "current_request_id",
    "declared_reads",
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
    "plugins_of",
    "register_exception_handlers",
    "rerun_route",
    "session_actor",
    "sort_query",
    "tenant_from_header",
    "tenant_from_path",
    "tenant_from_subdomain",
    "within_request",
]
