"""Projects and tasks of two tenants whose rows look alike, and the policies of four actors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, sessionmaker

from dotmac_database import Database, Policy, SoftDeleteMixin, TenantMixin, VersionMixin


class Base(DeclarativeBase):
    """The tables of projects."""


class Label(TenantMixin, Base):
    __tablename__ = "policy_labels"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


project_labels = Table(
    "policy_project_labels",
    Base.metadata,
    Column("project_id", ForeignKey("policy_projects.id"), primary_key=True),
    Column("label_id", ForeignKey("policy_labels.id"), primary_key=True),
)


class Project(TenantMixin, SoftDeleteMixin, VersionMixin, Base):
    __tablename__ = "policy_projects"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    owner: Mapped[str]
    shared: Mapped[bool] = mapped_column(default=False)
    budget: Mapped[int | None]

    tasks: Mapped[list[Task]] = relationship(back_populates="project", order_by="Task.id")
    labels: Mapped[list[Label]] = relationship(secondary=project_labels)


class Task(TenantMixin, Base):
    __tablename__ = "policy_tasks"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    owner: Mapped[str]
    cost: Mapped[int | None]
    project_id: Mapped[int | None] = mapped_column(ForeignKey("policy_projects.id"))

    project: Mapped[Project | None] = relationship(back_populates="tasks")


@dataclass(frozen=True)
class Actor:
    """Who makes a request: the audit columns have the ``id``."""

    id: str
    role: str = "member"


ACTORS = {
    "owner": Actor("owner"),
    "member": Actor("member"),
    "auditor": Actor("auditor", "auditor"),
    "nobody": Actor("nobody", "none"),
}


def _readable(actor: Actor) -> Any:
    if actor.role == "auditor":
        return True
    return False if actor.role == "none" else sa.or_(Project.owner == actor.id, Project.shared)


def _own(model: type[Project | Task]) -> Any:
    return lambda actor: False if actor.role in ("auditor", "none") else model.owner == actor.id


def _unseen(name: str) -> Any:
    return lambda actor: () if actor.id in ("owner", "auditor") else (name,)


PROJECTS = Policy(
    Project,
    read=_readable,
    create=_own(Project),
    update=_own(Project),
    delete=_own(Project),
    hidden=_unseen("budget"),
    read_only=("shared",),
)
TASKS = Policy(
    Task,
    read=lambda actor: True if actor.role == "auditor" else _own(Task)(actor),
    create=_own(Task),
    update=_own(Task),
    delete=_own(Task),
    hidden=_unseen("cost"),
)
POLICIES = (PROJECTS, TASKS)

# The rows of tenant a; those of b are the same with ids that are greater by 100.
OWN, SHARED, SECRET, MEMBERS, GONE = 1, 2, 3, 4, 5
READABLE = {
    "owner": {OWN, SHARED, SECRET},
    "member": {SHARED, MEMBERS},
    "auditor": {OWN, SHARED, SECRET, MEMBERS},
    "nobody": set[int](),
}
TASKS_OF = {"owner": {1, 2}, "member": {3}, "auditor": {1, 2, 3}, "nobody": set[int]()}


def fill(database: Database) -> None:
    """Store the rows of both tenants."""
    with sessionmaker(database.engine)() as session:
        for tenant, base in (("a", 0), ("b", 100)):
            labels = [Label(id=base + 1, name="urgent", tenant_id=tenant)]
            rows = [
                Project(id=base + OWN, name="alpha", owner="owner", budget=1001),
                Project(id=base + SHARED, name="beta", owner="owner", shared=True, budget=1002, labels=labels),
                Project(id=base + SECRET, name="gamma", owner="owner", budget=1003),
                Project(id=base + MEMBERS, name="delta", owner="member", budget=1004),
                Project(id=base + GONE, name="gone", owner="owner", budget=1005, is_deleted=True),
                Task(id=base + 1, title="one", owner="owner", cost=2001, project_id=base + SHARED),
                Task(id=base + 2, title="two", owner="owner", cost=2002, project_id=base + OWN),
                Task(id=base + 3, title="three", owner="member", cost=2003, project_id=base + SHARED),
            ]
            for row in rows:
                row.tenant_id = tenant
            session.add_all([*rows, Label(id=base + 2, name="late", tenant_id=tenant)])
        if database.engine.dialect.name == "postgresql":
            for table in ("policy_projects", "policy_tasks"):
                session.execute(sa.text(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 1000)"))
        session.commit()
