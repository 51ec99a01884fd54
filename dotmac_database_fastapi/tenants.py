"""Where a request names its tenant.

Each function gives a FastAPI dependency, the same object for the same arguments, so that ``app.dependency_overrides``
works. A tenant's name is 1 to 128 characters of letters, digits and ``_ - . : @``; anything else is answered with 400.
Letters and digits are ASCII's, which no two databases fold, trim or normalise differently. Nothing is stripped: what
the server hands over is the name, or it is none.
"""

# No postponed annotations here: older FastAPI does not resolve those of an object's __call__.
import re
from functools import cache
from typing import Any

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from dotmac_database import TenantRequiredError

_NAME = re.compile(r"[A-Za-z0-9_.:@-]{1,128}\Z")


class BadTenantError(TenantRequiredError, HTTPException):
    """The request names no tenant, or not properly: 400, with the plugin's exception handlers and without."""

    def __init__(self, message: str) -> None:
        HTTPException.__init__(self, status_code=400, detail=message)
        TenantRequiredError.__init__(self, message)

    def __str__(self) -> str:
        return str(self.detail)


class MissingTenantError(BadTenantError):
    """The request names no tenant at all, which is fine until a tenant's rows are touched."""


class TenantSource:
    """A dependency that reads the tenant from the request. Raises `BadTenantError`."""

    place: str

    async def __call__(self, connection: HTTPConnection) -> str:
        """The request's tenant."""
        return self.read(connection)

    def read(self, connection: HTTPConnection) -> str:
        """The request's tenant, found without waiting."""
        found = self.found(connection)
        if not found:
            raise MissingTenantError(f"A tenant is needed: {self.place[0].lower()}{self.place[1:]} must name one.")
        if len(found) > 1:
            raise BadTenantError(f"{self.place} names the tenant more than once.")
        name = found[0]
        if not _NAME.match(name):
            raise BadTenantError(
                f"{self.place} names no tenant: 1 to 128 characters of letters, digits and _ - . : @ are expected."
            )
        return name

    def found(self, connection: HTTPConnection) -> list[str]:
        """Every value that the request gives."""
        raise NotImplementedError

    def openapi_parameter(self) -> dict[str, Any] | None:
        """The parameter in OpenAPI's words; None where it is none."""
        return None


class _HeaderTenant(TenantSource):
    def __init__(self, name: str) -> None:
        self.name = name
        self.place = f"The header {name}"

    def found(self, connection: HTTPConnection) -> list[str]:
        return connection.headers.getlist(self.name)

    def openapi_parameter(self) -> dict[str, Any] | None:
        return {"name": self.name, "in": "header", "required": False, "schema": _SCHEMA}


class _PathTenant(TenantSource):
    def __init__(self, name: str) -> None:
        self.name = name
        self.place = f"The path parameter {name}"

    def found(self, connection: HTTPConnection) -> list[str]:
        value = connection.path_params.get(self.name)
        return [] if value is None else [str(value)]


class _SubdomainTenant(TenantSource):
    place = "The subdomain"

    def __init__(self, domain: str | None) -> None:
        self.domain = None if domain is None else domain.lower().strip(".")

    def found(self, connection: HTTPConnection) -> list[str]:
        hosts = [_host(value) for value in connection.headers.getlist("host")]
        return hosts if len(hosts) > 1 else [name for host in hosts if (name := self._subdomain(host)) is not None]

    def _subdomain(self, host: str) -> str | None:
        if self.domain is not None:
            return host.removesuffix(f".{self.domain}") if host.endswith(f".{self.domain}") else None
        if host.startswith("[") or re.fullmatch(r"[0-9.]+", host):
            return None
        name, _, rest = host.partition(".")
        # "acme.localhost" is what browsers resolve on a developer's machine.
        return name if "." in rest or rest == "localhost" else None


def _host(value: str) -> str:
    """The host's name in small letters, without its port and the dot that ends a full name."""
    host = re.sub(r":[0-9]*\Z", "", value).removesuffix(".")
    # Only ASCII: other letters have small ones that are ASCII's.
    return host.lower() if host.isascii() else host


_SCHEMA = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": r"^[A-Za-z0-9_.:@-]+$", "title": "Tenant"}


# One cache for each kind, called with one positional argument: a default and a keyword give the same object.
_header, _path, _subdomain = cache(_HeaderTenant), cache(_PathTenant), cache(_SubdomainTenant)


def tenant_from_header(name: str = "X-Tenant-ID") -> TenantSource:
    """The tenant that a header names. (HTTP itself has the server take away spaces and tabs around a header.)"""
    return _header(name)


def tenant_from_path(name: str = "tenant_id") -> TenantSource:
    """The tenant that a path parameter names: ``/tenants/{tenant_id}/users``."""
    return _path(name)


def tenant_from_subdomain(domain: str | None = None) -> TenantSource:
    """The tenant that the host's name begins with: ``acme`` of ``acme.example.com``.

    ``domain`` is what follows it, of any depth; None: the name has one label, and at least two follow (or
    ``localhost``). Behind a proxy the ``Host`` header must be the client's.
    """
    return _subdomain(domain)
