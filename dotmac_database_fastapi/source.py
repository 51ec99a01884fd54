"""`Source`: what the requests of one plugin share. The other modules use a source, and never import the plugin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeAlias

from dotmac_database import Database, Policy, RowLevelSecurity, StatementBudget

from .actors import ActorKey
from .aliases import Endpoint
from .job_headers import JobSigner
from .ruling import Policies
from .session_makers import SessionMakers
from .sync_limits import SyncLimit

CursorKey: TypeAlias = bytes | str | Sequence[bytes | str] | None
"""One key, or several for rotation: the first signs, all verify. None: cursors have only a checksum."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """Where the requests of one plugin get their sessions, tenant and actor. Two sources are never equal.

    ``tenant`` and ``actor`` are FastAPI dependencies; None: no request has a tenant, or an actor. ``cursor_key`` signs
    cursors. ``idempotency_ttl`` is how long idempotency keys are kept, unless a router
    overrides it. ``name`` distinguishes the sources of an app. ``actor_key`` is that of `key_of`.
    ``job_signer`` signs the headers of jobs; None: it has no key. ``load_actor`` is that of the plugin.
    Each request has its own copy of ``statement_budget``. ``policies`` None: requests are ruled by tenancy alone.
    """

    name: str
    database: Database
    makers: SessionMakers
    sync_limit: SyncLimit
    idempotency_ttl: timedelta
    tenant: Callable[..., object] | None = None
    actor: Callable[..., object] | None = None
    cursor_key: CursorKey = None
    rls: RowLevelSecurity | None = None
    actor_key: ActorKey | None = None
    job_signer: JobSigner | None = None
    load_actor: Callable[..., object] | None = None
    statement_budget: StatementBudget | None = None
    policies: Policies | None = None


class Plugin(Protocol):
    """A `DatabasePlugin`, as the routers know it."""

    @property
    def source(self) -> Source:
        """What the plugin's requests share."""
        ...

    def get_repository(self, target: type, *, policy: Policy[Any] | None = None) -> Endpoint:
        """A dependency that gives the repository of a mapped class, or of a repository class of the user's."""
        ...
