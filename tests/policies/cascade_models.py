"""Parents whose children are deleted or changed with them, by the ORM or by the database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import Policy, QueryFilter, TenantMixin


class Base(DeclarativeBase):
    """The tables of the deletions."""


class Parent(TenantMixin, Base):
    __tablename__ = "cascade_parents"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner: Mapped[str]


class Child:
    """What all children have."""

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner: Mapped[str]


def child(name: str, ondelete: str | None, *, nullable: bool, **options: Any) -> Any:
    """A class of children, with a relationship of the parents to it."""
    column = mapped_column(ForeignKey("cascade_parents.id", ondelete=ondelete), nullable=nullable)
    model = type(
        name,
        (TenantMixin, Child, Base),
        {"__tablename__": f"cascade_{name.lower()}", "parent_id": column, "__annotations__": {}},
    )
    setattr(Parent, name.lower(), relationship(model, order_by=f"{name}.id", **options))
    return model


DELETED = (
    child("ByOrm", None, nullable=False, cascade="all, delete-orphan"),
    child("IfLoaded", "CASCADE", nullable=False, cascade="all, delete-orphan", passive_deletes=True),
    child("ByDatabase", "CASCADE", nullable=False),
    child("Passive", "CASCADE", nullable=False, passive_deletes="all"),
)
CLEARED = (
    child("ClearedByOrm", None, nullable=True),
    child("ClearedByDatabase", "SET NULL", nullable=True),
)
CHILDREN = (*DELETED, *CLEARED)


def own(actor: str) -> Any:
    return [QueryFilter("owner", "eq", actor)]


PARENTS = Policy(Parent, read=own, create=own, update=own, delete=own)
POLICIES = (PARENTS, *(Policy(each, read=own, create=own, update=False, delete=False) for each in CHILDREN))


def rows_of(tenant: str, base: int) -> list[Any]:
    """Two parents of ann, each with a child of ann's and one of bob's in each class. Nobody may delete a child."""
    rows: list[Any] = []
    for parent in (base + 1, base + 2):
        rows.append(Parent(id=parent, owner="ann", tenant_id=tenant))
        for model in CHILDREN:
            for place, owner in enumerate(("ann", "bob")):
                rows.append(model(id=10 * parent + place, owner=owner, parent_id=parent, tenant_id=tenant))
    return rows
