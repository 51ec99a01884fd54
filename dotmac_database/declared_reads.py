"""The reads that an endpoint offers to its clients, so that a tool can look whether indexes serve them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .field_names import FieldName, names_for
from .query import SortsLike, sorts_of

_DECLARED = "__dotmac_read__"


@dataclass(frozen=True, slots=True)
class DeclaredRead:
    """A list that clients can read. Its fields are named as in `QueryFilter` and `SortField`, and kept as names.

    ``filters`` and ``sorts`` are the fields that the route names itself; not those that it offers because it names
    none. ``default_sort`` is the order of a page if a client names none, as the ``sorts`` of `QueryOptions`
    (``"-created_at"``, or several of them); empty: the primary key. Raises `ValidationError` for an order that is none,
    and `MisuseError` for the attribute of another class.
    """

    model: type
    default_sort: SortsLike = ()
    filters: Iterable[FieldName] = ()
    sorts: Iterable[FieldName] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "default_sort", tuple(sorts_of(self.default_sort)))
        object.__setattr__(self, "filters", tuple(names_for(self.model, self.filters)))
        object.__setattr__(self, "sorts", tuple(names_for(self.model, self.sorts)))


def declare_read(endpoint: object, read: DeclaredRead) -> None:
    """Note on an endpoint's function which read it offers."""
    setattr(endpoint, _DECLARED, read)


def read_of(endpoint: object) -> DeclaredRead | None:
    """The read that an endpoint's function offers; None: it declares none."""
    read = getattr(endpoint, _DECLARED, None)
    return read if isinstance(read, DeclaredRead) else None
