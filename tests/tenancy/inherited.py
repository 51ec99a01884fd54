"""Classes of every inheritance, with the tenant and the other marks in the parent's table or in the child's.

Each class has ``id``, ``tenant_id``, ``name`` (the parent's column, where there is one) and ``size`` (the child's).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The tables of the matrix."""


class Asset(Base):
    __tablename__ = "assets"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "asset"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    kind: Mapped[str]
    name: Mapped[str]


class Router(Asset):
    __tablename__ = "routers"
    __mapper_args__ = {"polymorphic_identity": "router"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("assets.id"), primary_key=True)
    size: Mapped[int]


class Edge(Router):
    """Two levels below the root, with a key of another name."""

    __tablename__ = "edges"
    __mapper_args__ = {"polymorphic_identity": "edge"}  # noqa: RUF012

    edge_id: Mapped[int] = mapped_column(ForeignKey("routers.id"), primary_key=True)
    site: Mapped[str]


class Switch(Asset):
    """A sibling, whose rows nobody may touch through another class."""

    __tablename__ = "switches"
    __mapper_args__ = {"polymorphic_identity": "switch"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("assets.id"), primary_key=True)
    size: Mapped[int]


class Part(Base):
    """A root without a tenant, and without a discriminator."""

    __tablename__ = "parts"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class OwnedPart(Part):
    """The tenant, the version and the soft-delete mark are the child's."""

    __tablename__ = "owned_parts"

    id: Mapped[int] = mapped_column(ForeignKey("parts.id"), primary_key=True)
    tenant_id: Mapped[str]
    size: Mapped[int]
    version: Mapped[int] = mapped_column(default=1)
    is_deleted: Mapped[bool] = mapped_column(default=False)


class Page(Base):
    """The tenant, the version, the audit and the soft-delete columns are the parent's."""

    __tablename__ = "pages"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    name: Mapped[str]
    version: Mapped[int] = mapped_column(default=1)
    deleted_at: Mapped[datetime | None]
    updated_by: Mapped[str | None]


class Article(Page):
    __tablename__ = "articles"

    id: Mapped[int] = mapped_column(ForeignKey("pages.id"), primary_key=True)
    size: Mapped[int]


class Vehicle(Base):
    __tablename__ = "vehicles"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    kind: Mapped[str]
    name: Mapped[str]
    size: Mapped[int] = mapped_column(default=0)


class Truck(Vehicle):
    __mapper_args__ = {"polymorphic_identity": "truck"}  # noqa: RUF012


class Tram(Vehicle):
    __mapper_args__ = {"polymorphic_identity": "tram"}  # noqa: RUF012


class Paper(Base):
    __tablename__ = "papers"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    name: Mapped[str]
    size: Mapped[int]


class Memo(Paper):
    __tablename__ = "memos"
    __mapper_args__ = {"concrete": True}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    name: Mapped[str]
    size: Mapped[int]


def _table(model: Any) -> Table:
    table: Table = model.__table__
    return table


@dataclass(frozen=True)
class Shape:
    """A class, the tables of its entities' rows with their keys, children first, and the kinds that are its rows."""

    model: Any
    tables: tuple[tuple[Table, str], ...]
    kinds: frozenset[str] | None = None
    more: dict[str, Any] = field(default_factory=dict)
    """What a new row needs besides its name and size."""
    sized: bool = True


ASSETS, ROUTERS, EDGES, SWITCHES = (_table(each) for each in (Asset, Router, Edge, Switch))

SHAPES = {
    "joined root": Shape(
        Asset,
        ((EDGES, "edge_id"), (SWITCHES, "id"), (ROUTERS, "id"), (ASSETS, "id")),
        frozenset(("asset", "router", "edge", "switch")),
        sized=False,
    ),
    "joined child": Shape(Router, ((EDGES, "edge_id"), (ROUTERS, "id"), (ASSETS, "id")), frozenset(("router", "edge"))),
    "joined grandchild": Shape(
        Edge, ((EDGES, "edge_id"), (ROUTERS, "id"), (ASSETS, "id")), frozenset(("edge",)), {"site": "s"}
    ),
    "tenant of the child": Shape(OwnedPart, ((_table(OwnedPart), "id"), (_table(Part), "id"))),
    "marks of the parent": Shape(Article, ((_table(Article), "id"), (_table(Page), "id"))),
    "single root": Shape(Vehicle, ((_table(Vehicle), "id"),), frozenset(("vehicle", "truck", "tram"))),
    "single child": Shape(Truck, ((_table(Vehicle), "id"),), frozenset(("truck",))),
    "concrete root": Shape(Paper, ((_table(Paper), "id"),)),
    "concrete child": Shape(Memo, ((_table(Memo), "id"),)),
}

ROWS: list[tuple[Table, list[dict[str, Any]]]] = []


def _fill() -> None:
    rows: dict[Table, list[dict[str, Any]]] = {table: [] for table in Base.metadata.sorted_tables}
    number = 0
    for tenant in ("a", "b"):
        for place in range(3):
            common = {"tenant_id": tenant, "name": f"n{place}"}
            for kind in ("asset", "router", "edge", "switch"):
                number += 1
                rows[ASSETS].append({"id": number, "kind": kind, **common})
                if kind in ("router", "edge"):
                    rows[ROUTERS].append({"id": number, "size": place})
                if kind == "edge":
                    rows[EDGES].append({"edge_id": number, "site": f"s{place}"})
                if kind == "switch":
                    rows[SWITCHES].append({"id": number, "size": place})
            for kind in ("vehicle", "truck", "tram"):
                number += 1
                named = {**common, "name": f"n{place}" if kind == "truck" else f"{kind} n{place}"}
                rows[_table(Vehicle)].append({"id": number, "kind": kind, "size": place, **named})
            number += 1
            rows[_table(Part)].append({"id": number, "name": f"n{place}"})
            owned = {"id": number, "tenant_id": tenant, "size": place, "version": 1, "is_deleted": place == 2}
            rows[_table(OwnedPart)].append(owned)
            gone = datetime(2026, 1, 1) if place == 2 else None  # noqa: DTZ001 - the column has no zone
            page = {"id": number, **common, "version": 1, "deleted_at": gone, "updated_by": None}
            rows[_table(Page)].append(page)
            rows[_table(Article)].append({"id": number, "size": place})
            for model in (Paper, Memo):
                rows[_table(model)].append({"id": number, "size": place, **common})
    ROWS.extend(rows.items())


_fill()
