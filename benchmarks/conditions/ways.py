"""What is compared: two ways to do the same operations, and the rows on which both work."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any, ClassVar, Protocol
from uuid import UUID, uuid4

from sqlalchemy import inspect

from ..contenders import TENANT

_TENANTS = 50
_TENANT_NUMBER = int(TENANT.rpartition("-")[2])
_GENERATED = frozenset(("id", "email", "created_at"))
"""The columns that differ from one created row to the next."""


FRESH = "fresh"
"""The text by which created rows are recognized."""


@dataclass(frozen=True)
class Subject:
    """A mapped class and its rows.

    ``rows`` is the number of rows with which the table was filled. ``extra`` are values of further columns for a new
    row.
    """

    model: Any
    rows: int
    extra: Mapping[str, Any] = field(default_factory=dict)
    keys: list[UUID] = field(init=False)
    columns: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        numbers = range(_TENANT_NUMBER, self.rows + 1, _TENANTS)
        chosen = random.Random(1).sample(numbers, min(500, len(numbers)))
        object.__setattr__(self, "keys", [UUID(md5(f"user{n}".encode()).hexdigest()) for n in chosen])
        object.__setattr__(self, "columns", tuple(inspect(self.model).columns.keys()))

    def key(self, n: int) -> UUID:
        """The primary key of a row of the tenant."""
        return self.keys[n % len(self.keys)]

    def values(self, entity: Any) -> tuple[Any, ...]:
        """The values of all columns. Each attribute is read, so that nothing stays unloaded."""
        return tuple(getattr(entity, name) for name in self.columns)

    def created(self, entity: Any) -> tuple[Any, ...]:
        """The values of a new row's columns, without those that no two rows have in common."""
        return tuple(getattr(entity, name) for name in self.columns if name not in _GENERATED)

    def new(self, n: int) -> dict[str, Any]:
        """The values of a row that is not in the table yet."""
        email = f"{uuid4().hex}@example.org"
        return {"name": f"New {n}", "email": email, "score": n, "bio": FRESH, **self.extra}


async def nothing() -> None:
    """The ``rest`` of a way that leaves nothing open."""


class Way(Protocol):
    """One way to do the operations: six methods with the names of the operations.

    A method takes the number of the call, and returns values that can be compared. If ``is_async``, it returns them in
    an awaitable. No two calls with the same number are made while time is measured, so that each update changes a row.
    """

    is_async: ClassVar[bool]

    def get(self, n: int) -> Any: ...

    def listed(self, n: int) -> Any: ...

    def paged(self, n: int) -> Any: ...

    def create(self, n: int) -> Any: ...

    def update(self, n: int) -> Any: ...

    def five_writes(self, n: int) -> Any: ...

    @property
    def rest(self) -> Callable[[], Awaitable[None]]:
        """The function that is called after each turn, without being measured."""
        ...


@dataclass(frozen=True)
class Ways:
    """The two ways that are compared under a condition."""

    by_hand: Way
    toolkit: Way


@dataclass(frozen=True)
class Operation:
    """An operation, the number of calls in a turn, and the work itself."""

    name: str
    title: str
    calls: int
    work: Callable[[Way, int], Any]


OPERATIONS = (
    Operation("get", "get", 20, lambda way, n: way.get(n)),
    Operation("list", "list 20", 15, lambda way, n: way.listed(n)),
    Operation("page", "page + total", 15, lambda way, n: way.paged(n)),
    Operation("create", "create", 15, lambda way, n: way.create(n)),
    Operation("update", "update", 15, lambda way, n: way.update(n)),
    Operation("five", "five writes", 5, lambda way, n: way.five_writes(n)),
)
