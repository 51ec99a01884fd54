"""Whether tenants may work, remembered for some seconds."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from enum import Enum

from dotmac_database import ALL_TENANTS, ValidationError

from .tenants import SuspendedTenantError, UnknownTenantError


class TenantState(Enum):
    """The life of a tenant, as its row says."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    UNKNOWN = "unknown"
    """There is no such row, or it is soft-deleted."""


class TenantStates:
    """The states of the tenants of one database, each read by one statement and valid for ``ttl`` seconds.

    At most ``size`` known tenants are remembered, and as many unknown names, so that requests for invented names do not
    displace the tenants. The least recently used are forgotten first. Requests that need a state at the same time share
    one statement. If it fails, all of them get its exception, and nothing is remembered. ``find`` and ``sync_find``
    read a state. ``clock`` gives a time in seconds that never goes back.
    """

    def __init__(
        self,
        find: Callable[[object], Awaitable[TenantState]],
        sync_find: Callable[[object], TenantState],
        *,
        ttl: float,
        size: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find = find
        self._sync_find = sync_find
        self._ttl = ttl
        self._size = size
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[Hashable, tuple[asyncio.AbstractEventLoop, asyncio.Task[TenantState]]] = {}
        self._known: OrderedDict[Hashable, tuple[float, TenantState]] = OrderedDict()
        self._unknown: OrderedDict[Hashable, tuple[float, TenantState]] = OrderedDict()
        self._generation = 0
        self._tasks: set[asyncio.Task[TenantState]] = set()  # the event loop itself has only weak references

    async def check(self, tenant: object) -> None:
        """Raise `SuspendedTenantError` or `UnknownTenantError` unless the tenant is active. None is no tenant.

        Sends one statement, on a session of its own, unless the state is remembered.
        """
        name = _checked_name(tenant)
        if name is not None:
            state = self._remembered(name)
            _refuse(await asyncio.shield(self._lookup(name)) if state is None else state)

    def sync_check(self, tenant: object) -> None:
        """As `check`, on a `Session`. Threads that ask at the same time send a statement each."""
        name = _checked_name(tenant)
        if name is None:
            return
        state = self._remembered(name)
        if state is None:
            begun = self._begun()
            state = self._sync_find(name)
            self._remember(name, state, begun)
        _refuse(state)

    def forget(self) -> None:
        """Forget all states. A statement that is running is not remembered, and later requests do not wait for it."""
        with self._lock:
            self._generation += 1
            self._running.clear()
            self._known.clear()
            self._unknown.clear()

    def _lookup(self, name: Hashable) -> asyncio.Task[TenantState]:
        """The running statement for a tenant, else a new one.

        It runs in a task of its own: the end of a request, whose client goes away, does not end it for the others.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            running = self._running.get(name)
            if running is not None and running[0] is loop:
                return running[1]
            task = loop.create_task(self._read(name))
            self._running[name] = loop, task
            self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(name, done))
        return task

    async def _read(self, name: Hashable) -> TenantState:
        begun = self._begun()
        state = await self._find(name)
        self._remember(name, state, begun)
        return state

    def _ended(self, name: Hashable, task: asyncio.Task[TenantState]) -> None:
        if not task.cancelled():
            task.exception()  # if all requests have gone away, nobody else takes it
        with self._lock:
            self._tasks.discard(task)
            running = self._running.get(name)
            if running is not None and running[1] is task:
                del self._running[name]

    def _begun(self) -> tuple[int, float]:
        return self._generation, self._clock()

    def _remembered(self, name: Hashable) -> TenantState | None:
        with self._lock:
            for states in (self._known, self._unknown):
                remembered = states.get(name)
                if remembered is not None and self._clock() < remembered[0]:
                    states.move_to_end(name)
                    return remembered[1]
        return None

    def _remember(self, name: Hashable, state: TenantState, begun: tuple[int, float]) -> None:
        """Remember a state for ``ttl`` seconds from when its statement began, unless all were forgotten meanwhile."""
        generation, since = begun
        states, others = self._known, self._unknown
        if state is TenantState.UNKNOWN:
            states, others = others, states
        with self._lock:
            if generation != self._generation:
                return
            others.pop(name, None)
            states[name] = since + self._ttl, state
            states.move_to_end(name)
            if len(states) > self._size:
                states.popitem(last=False)


def _checked_name(tenant: object) -> Hashable | None:
    """The tenant's name; None if there is no tenant to check: an administrator's `ALL_TENANTS` is no tenant either."""
    if tenant is None or tenant is ALL_TENANTS:
        return None
    if not isinstance(tenant, Hashable):
        raise ValidationError(f"A tenant's name can't be a {type(tenant).__name__}.", field="tenant_id")
    return tenant


def _refuse(state: TenantState) -> None:
    if state is TenantState.SUSPENDED:
        raise SuspendedTenantError
    if state is TenantState.UNKNOWN:
        raise UnknownTenantError
