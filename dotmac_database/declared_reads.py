"""The reads that an endpoint offers to its clients, so that a tool can look whether indexes serve them."""

from __future__ import annotations

from dataclasses import dataclass

_DECLARED = "__dotmac_read__"


@dataclass(frozen=True, slots=True)
class DeclaredRead:
    """A list that clients can read. The names are those of fields, as in `QueryFilter` and `SortField`.

    ``filters`` and ``sorts`` are the fields that the route names itself; not those that it offers because it names
    none. ``default_sort`` is the order of a page if a client names none, as in ``"-created_at,name"``; empty: the
    primary key.
    """

    model: type
    default_sort: str = ""
    filters: tuple[str, ...] = ()
    sorts: tuple[str, ...] = ()


def declare_read(endpoint: object, read: DeclaredRead) -> None:
    """Note on an endpoint's function which read it offers."""
    setattr(endpoint, _DECLARED, read)


def read_of(endpoint: object) -> DeclaredRead | None:
    """The read that an endpoint's function offers; None: it declares none."""
    read = getattr(endpoint, _DECLARED, None)
    return read if isinstance(read, DeclaredRead) else None
