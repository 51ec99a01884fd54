"""The reads that an endpoint offers to its clients, so that a tool can look whether indexes serve them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .query import SortField, SortsLike, sorts_of

_DECLARED = "__dotmac_read__"


@dataclass(frozen=True, slots=True)
class DeclaredRead:
    """A list that clients can read. The names are those of fields, as in `QueryFilter` and `SortField`.

    ``filters`` and ``sorts`` are the fields that the route names itself; not those that it offers because it names
    none. ``default_sort`` is the order of a page if a client names none, as the ``sorts`` of `QueryOptions`
    (``"-created_at"``, or several of them); empty: the primary key.
    """

    model: type
    default_sort: SortsLike = ()
    filters: tuple[str, ...] = ()
    sorts: tuple[str, ...] = ()

    @property
    def order(self) -> Sequence[SortField]:
        """The sorts of ``default_sort``. Raises `ValidationError` for what is none."""
        return sorts_of(self.default_sort)


def declare_read(endpoint: object, read: DeclaredRead) -> None:
    """Note on an endpoint's function which read it offers."""
    setattr(endpoint, _DECLARED, read)


def read_of(endpoint: object) -> DeclaredRead | None:
    """The read that an endpoint's function offers; None: it declares none."""
    read = getattr(endpoint, _DECLARED, None)
    return read if isinstance(read, DeclaredRead) else None
