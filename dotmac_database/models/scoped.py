"""What type checkers know of the classes whose rows belong to tenants."""

from __future__ import annotations

from typing import Any, Protocol


class TenantScoped(Protocol):
    """An entity that belongs to a tenant: one of a class with `TenantMixin`, or with its own ``tenant_id``.

    For type checkers alone: they see by it that the repository of a class is a tenant repository. A class whose tenant
    column has another name (``__tenant_column__``) is one for the toolkit, too, but not for them.
    """

    tenant_id: Any
