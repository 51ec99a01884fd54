"""Documents of two tenants whose rows look alike, four actors, and the policies that rule them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ForeignKey, Table
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship

from dotmac_database import Policy, QueryFilter, SoftDeleteMixin, TenantMixin, VersionMixin, any_of


class PolicyBase(DeclarativeBase):
    pass


doc_tag = Table(
    "policy_doc_tag",
    PolicyBase.metadata,
    Column("doc_id", ForeignKey("policy_doc.id"), primary_key=True),
    Column("tag_id", ForeignKey("policy_tag.id"), primary_key=True),
)


class Team(TenantMixin, PolicyBase):
    __tablename__ = "policy_team"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    lead_id: Mapped[str]
    docs: Mapped[list[Doc]] = relationship(back_populates="team", order_by="Doc.id")


class Tag(TenantMixin, PolicyBase):
    __tablename__ = "policy_tag"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    owner_id: Mapped[str]
    docs: Mapped[list[Doc]] = relationship(secondary=doc_tag, back_populates="tags", order_by="Doc.id")


class Doc(TenantMixin, SoftDeleteMixin, VersionMixin, PolicyBase):
    __tablename__ = "policy_doc"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(unique=True)
    owner_id: Mapped[str]
    status: Mapped[str] = mapped_column(default="draft")
    salary: Mapped[int | None]
    team_id: Mapped[int | None] = mapped_column(ForeignKey("policy_team.id"))
    team: Mapped[Team | None] = relationship(back_populates="docs")
    lines: Mapped[list[Line]] = relationship(back_populates="doc", order_by="Line.id")
    tags: Mapped[list[Tag]] = relationship(secondary=doc_tag, back_populates="docs", order_by="Tag.id")

    @hybrid_property
    def rich(self) -> bool:
        return self.salary is not None and self.salary > 100

    @rich.inplace.expression
    @classmethod
    def _rich(cls) -> Any:
        return cls.salary > 100


Doc.double_salary = column_property(Doc.salary * 2)


class Line(TenantMixin, PolicyBase):
    __tablename__ = "policy_line"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    doc_id: Mapped[int] = mapped_column(ForeignKey("policy_doc.id"))
    doc: Mapped[Doc] = relationship(back_populates="lines")


@dataclass(frozen=True)
class Actor:
    """Someone who acts. ``role`` is ``"member"`` or ``"auditor"``."""

    id: str
    role: str = "member"


OWNER, OTHER, AUDITOR, NOBODY = Actor("ann"), Actor("bob"), Actor("eve", "auditor"), None
ACTORS = {"owner": OWNER, "other": OTHER, "auditor": AUDITOR, "nobody": NOBODY}
TENANTS = ("one", "two")


def _own(actor: Actor | None) -> Any:
    return False if actor is None or actor.role == "auditor" else [QueryFilter("owner_id", "eq", actor.id)]


def _read_doc(actor: Actor | None) -> Any:
    if actor is None or actor.role == "auditor":
        return actor is not None
    return any_of(QueryFilter("owner_id", "eq", actor.id), QueryFilter("team.lead_id", "eq", actor.id))


def _read_line(actor: Actor | None) -> Any:
    if actor is None or actor.role == "auditor":
        return actor is not None
    return [QueryFilter("doc.owner_id", "eq", actor.id)]


def _read_tag(actor: Actor | None) -> Any:
    """As an SQLAlchemy condition."""
    if actor is None or actor.role == "auditor":
        return actor is not None
    return Tag.owner_id == actor.id


DOCS = Policy(
    Doc,
    read=_read_doc,
    create=_own,
    update=_own,
    delete=_own,
    hidden=lambda actor: () if actor == OWNER else ["salary"],
    read_only=["status"],
)
LINES = Policy(Line, read=_read_line, create=_read_line, update=_read_line, delete=_read_line)
TAGS = Policy(Tag, read=_read_tag, create=_own, update=_own, delete=_own)
POLICIES = [DOCS, LINES, TAGS]


@dataclass(frozen=True)
class DocRow:
    """A document as the tests know it. ``lead`` leads its team; ``tags`` and ``lines`` are the ids of its rows."""

    tenant: str
    id: int
    title: str
    owner: str
    lead: str | None
    salary: int
    deleted: bool = False
    tags: tuple[int, ...] = ()
    lines: tuple[int, ...] = ()


def docs_of(tenant: str) -> list[DocRow]:
    """The documents of a tenant. The tenants' rows differ by their keys alone."""
    first = 100 * TENANTS.index(tenant)
    rows = [
        ("ann", "bob", 10, False),
        ("ann", None, 200, False),
        ("bob", "ann", 300, False),
        ("bob", None, 40, False),
        ("cat", "ann", 500, False),
        ("cat", None, 600, False),
        ("ann", None, 70, True),
        ("bob", None, 800, True),
    ]
    return [
        DocRow(
            tenant, first + n, f"{tenant} doc {n}", owner, lead, salary, deleted,
            tags=(first + 1 + n % 3, first + 1 + (n + 1) % 3), lines=(first + 2 * n, first + 2 * n + 1),
        )
        for n, (owner, lead, salary, deleted) in enumerate(rows, 1)
    ]  # fmt: skip


TAG_OWNERS = ("ann", "bob", "cat")


def rows_of(tenant: str) -> list[object]:
    """The objects to insert for a tenant."""
    first = 100 * TENANTS.index(tenant)
    teams = {
        lead: Team(id=first + n, name=f"team {n}", lead_id=lead, tenant_id=tenant)
        for n, lead in enumerate(("ann", "bob"), 1)
    }
    tags = [
        Tag(id=first + n, name=f"tag {n}", owner_id=owner, tenant_id=tenant) for n, owner in enumerate(TAG_OWNERS, 1)
    ]
    by_id = {tag.id: tag for tag in tags}
    objects: list[object] = [*teams.values(), *tags]
    objects += [
        Doc(
            id=row.id,
            title=row.title,
            owner_id=row.owner,
            salary=row.salary,
            tenant_id=tenant,
            is_deleted=row.deleted,
            version=1,
            team=teams.get(row.lead or ""),
            tags=[by_id[each] for each in row.tags],
            lines=[Line(id=each, text=f"line {each % 2}", tenant_id=tenant) for each in row.lines],
        )
        for row in docs_of(tenant)
    ]
    return objects


def readable(actor: Actor | None, row: DocRow) -> bool:
    """Whether an actor may read a document: the policy in plain Python."""
    if actor is None:
        return False
    return actor.role == "auditor" or actor.id in (row.owner, row.lead)
