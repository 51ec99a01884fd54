"""The toolkit's FastAPI plugin: request sessions and repositories, query parameters, generated routers, problems."""

from .dependencies import get_repository, get_session, get_sync_repository, get_sync_session
from .errors import register_exception_handlers
from .plugin import DatabasePlugin
from .registry import PluginError
from .tenants import BadTenantError, tenant_from_header, tenant_from_path, tenant_from_subdomain

__all__ = [
    "BadTenantError",
    "DatabasePlugin",
    "PluginError",
    "get_repository",
    "get_session",
    "get_sync_repository",
    "get_sync_session",
    "register_exception_handlers",
    "tenant_from_header",
    "tenant_from_path",
    "tenant_from_subdomain",
]
