"""Dependencies that read the tenant's name from a request: from a header, the path, or the host's subdomain.

Each function returns the same object for the same arguments, so that ``app.dependency_overrides`` works. A tenant's
name has 1 to 128 characters: ASCII letters and digits, and ``_ - . : @``. Any other name is a 400. ASCII is required
because databases fold, trim and normalise other characters differently. The name is taken as it is, never stripped.
"""

# No postponed annotations here: older FastAPI does not resolve those of an object's __call__.
import re
from functools import cache
from typing import Any

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from dotmac_database import DatabaseError, TenantRequiredError

_NAME = re.compile(r"[A-Za-z0-9_.:@-]{1,128}\Z")


class BadTenantError(TenantRequiredError, HTTPException):
    """The request names no tenant, or an invalid one. It is a 400, even without the plugin's exception handlers."""

    def __init__(self, message: str) -> None:
        HTTPException.__init__(self, status_code=400, detail=message)
        TenantRequiredError.__init__(self, message)

    def __str__(self) -> str:
        return str(self.detail)


class MissingTenantError(BadTenantError):
    """The request names no tenant at all, which is an error only if it uses a tenant-scoped model."""


class _RefusedTenantError(DatabaseError, HTTPException):
    """The tenant's own state refuses the request, even without the plugin's exception handlers."""

    status: int

    def __init__(self, message: str | None = None) -> None:
        # Not DatabaseError's constructor: by the order of the bases it calls HTTPException's with its message alone.
        HTTPException.__init__(self, status_code=self.status, detail=message or type(self).__doc__)

    def __str__(self) -> str:
        return str(self.detail)


class SuspendedTenantError(_RefusedTenantError):
    """The tenant is suspended."""

    status = 403


class UnknownTenantError(_RefusedTenantError):
    """There is no such tenant."""

    status = 404


class TenantSource:
    """A dependency that reads the tenant from the request. Raises `BadTenantError`."""

    place: str

    async def __call__(self, connection: HTTPConnection) -> str:
        """The request's tenant."""
        return self.read(connection)

    def read(self, connection: HTTPConnection) -> str:
        """The request's tenant, read without awaiting."""
        values = self.values(connection)
        if not values:
            raise MissingTenantError(f"A tenant is needed: {self.place[0].lower()}{self.place[1:]} must name one.")
        if len(values) > 1:
            raise BadTenantError(f"{self.place} names the tenant more than once.")
        name = values[0]
        if not _NAME.match(name):
            raise BadTenantError(
                f"{self.place} contains no valid name: 1 to 128 letters, digits and _ - . : @ are expected."
            )
        return name

    def values(self, connection: HTTPConnection) -> list[str]:
        """All values that the request has in this place."""
        raise NotImplementedError

    def openapi_parameter(self) -> dict[str, Any] | None:
        """The OpenAPI parameter object; None if the tenant is not read from a parameter of its own."""
        return None


class _HeaderTenant(TenantSource):
    def __init__(self, name: str) -> None:
        self.name = name
        self.place = f"The header {name}"

    def values(self, connection: HTTPConnection) -> list[str]:
        return connection.headers.getlist(self.name)

    def openapi_parameter(self) -> dict[str, Any] | None:
        return {"name": self.name, "in": "header", "required": False, "schema": _SCHEMA}


class _PathTenant(TenantSource):
    def __init__(self, name: str) -> None:
        self.name = name
        self.place = f"The path parameter {name}"

    def values(self, connection: HTTPConnection) -> list[str]:
        value = connection.path_params.get(self.name)
        return [] if value is None else [str(value)]


class _SubdomainTenant(TenantSource):
    place = "The subdomain"

    def __init__(self, domain: str | None) -> None:
        self.domain = None if domain is None else domain.lower().strip(".")

    def values(self, connection: HTTPConnection) -> list[str]:
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
    """The host's name in lower case, without its port and without the final dot of a fully qualified name."""
    host = re.sub(r":[0-9]*\Z", "", value).removesuffix(".")
    # Only ASCII: the lower case of some other letters is ASCII, such as that of the Kelvin sign.
    return host.lower() if host.isascii() else host


_SCHEMA = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": r"^[A-Za-z0-9_.:@-]+$", "title": "Tenant"}


# Each function calls its cached class with one positional argument. Otherwise the cache would have two objects for one
# tenant source: for example, one for the default value and one for the same value as a keyword argument.
_header, _path, _subdomain = cache(_HeaderTenant), cache(_PathTenant), cache(_SubdomainTenant)


def tenant_from_header(name: str = "X-Tenant-ID") -> TenantSource:
    """The tenant named by a header. (By RFC 9110, section 5.5, the server has removed whitespace around the value.)"""
    return _header(name)


def tenant_from_path(name: str = "tenant_id") -> TenantSource:
    """The tenant named by a path parameter: ``/tenants/{tenant_id}/users``."""
    return _path(name)


def tenant_from_subdomain(domain: str | None = None) -> TenantSource:
    """The tenant named by the first part of the host's name: ``acme`` of ``acme.example.com``.

    ``domain`` is the part after the tenant's name. None: the tenant's name is the first label, and at least two labels
    or ``localhost`` follow it. A proxy in front of the app must pass on the client's ``Host`` header.
    """
    return _subdomain(domain)
