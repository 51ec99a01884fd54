"""Filters, sorts, groups and changes by paths through relationships between classes of one joined inheritance."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import ForeignKey, MetaData, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from dotmac_database import Database, QueryFilter, QueryOptions, SortField
from tests.conftest import Face


class Base(DeclarativeBase):
    """The base class of the tables of the matrix."""


class Employee(Base):
    __tablename__ = "employee"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "employee"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    kind: Mapped[str]
    name: Mapped[str]
    mentor_id: Mapped[int | None] = mapped_column(ForeignKey("employee.id"))
    mentor: Mapped[Employee | None] = relationship(remote_side=id, back_populates="pupils")
    pupils: Mapped[list[Employee]] = relationship(back_populates="mentor")


class Manager(Employee):
    __tablename__ = "manager"
    id: Mapped[int] = mapped_column(ForeignKey("employee.id"), primary_key=True)
    level: Mapped[int]
    team: Mapped[list[Engineer]] = relationship(back_populates="manager", foreign_keys="Engineer.manager_id")
    __mapper_args__ = {"polymorphic_identity": "manager", "inherit_condition": id == Employee.id}  # noqa: RUF012


class Engineer(Employee):
    __tablename__ = "engineer"
    id: Mapped[int] = mapped_column(ForeignKey("employee.id"), primary_key=True)
    manager_id: Mapped[int | None] = mapped_column(ForeignKey("manager.id"))
    lead_id: Mapped[int | None] = mapped_column(ForeignKey("employee.id"))
    manager: Mapped[Manager | None] = relationship(back_populates="team", foreign_keys=manager_id)
    lead: Mapped[Employee | None] = relationship(foreign_keys=lead_id)
    __mapper_args__ = {"polymorphic_identity": "engineer", "inherit_condition": id == Employee.id}  # noqa: RUF012


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


def fill(session: Session) -> None:
    """For each tenant: e is a pupil of m, x of e, and z of x. x is in the team of m; y has no relations."""
    for tenant, first in (("a", 0), ("b", 100)):
        for row in (
            Manager(id=first + 1, tenant_id=tenant, name="m", level=3),
            Employee(id=first + 2, tenant_id=tenant, name="e", mentor_id=first + 1),
            Engineer(
                id=first + 3, tenant_id=tenant, name="x", mentor_id=first + 2, manager_id=first + 1, lead_id=first + 2
            ),
            Engineer(id=first + 4, tenant_id=tenant, name="y"),
            Engineer(id=first + 5, tenant_id=tenant, name="z", mentor_id=first + 3, lead_id=first + 3),
        ):
            session.add(row)
            session.flush()


PATHS: list[tuple[Any, str, Any, list[int]]] = [
    (Employee, "mentor.name", "m", [2]),
    (Employee, "pupils.name", "x", [2]),
    (Employee, "mentor.mentor.name", "m", [3]),
    (Engineer, "mentor.name", "e", [3]),
    (Engineer, "mentor.name", "x", [5]),
    (Engineer, "mentor.mentor.name", "m", [3]),
    (Engineer, "mentor.mentor.name", "e", [5]),
    (Engineer, "manager.name", "m", [3]),
    (Engineer, "manager.level", 3, [3]),
    (Engineer, "lead.name", "e", [3]),
    (Engineer, "lead.name", "x", [5]),
    (Engineer, "lead.mentor.name", "m", [3]),
    (Engineer, "pupils.name", "z", [3]),
    (Engineer, "manager.team.name", "x", [3]),
    (Manager, "pupils.name", "e", [1]),
    (Manager, "team.name", "x", [1]),
    (Manager, "team.lead.name", "e", [1]),
    (Manager, "team.manager.name", "m", [1]),
    (Manager, "team.manager.team.name", "x", [1]),
]


@pytest.mark.parametrize("guarded", [False, True], ids=["plain", "guarded"])
def test_a_path_leads_to_the_rows_that_it_says(*, guarded: bool, face: Face, database: Database) -> None:
    with database.sessions() as session:
        fill(session)
        session.commit()
    wrong: dict[str, str] = {}
    for model, path, value, ids in PATHS:
        with face.guarded() if guarded else face.session() as session:
            rows = face.repository(session, model, "a", auto_commit=False)
            try:
                _check(face, rows, path, value, ids)
                face(session.rollback)
            except Exception as error:  # noqa: BLE001 - every exception is an error of the cell
                wrong[f"{model.__name__} {path} {value}"] = f"{type(error).__name__}: {error}"
    with database.sessions() as session:
        names = session.scalars(select(Employee.name).order_by(Employee.id)).all()
    assert wrong == {}
    assert "".join(names) == "mexyzmexyz"


def _check(face: Face, rows: Any, path: str, value: Any, ids: list[int]) -> None:
    filters = [QueryFilter(path, value=value)]
    assert sorted(each.id for each in face(rows.list, QueryOptions(filters=filters))) == ids
    assert face(rows.count, filters) == len(ids)
    all_of = sorted(each.id for each in face(rows.list, QueryOptions(relationships=[path.rpartition(".")[0]])))
    if not {"team", "pupils"} & set(path.split(".")):
        assert sorted(each.id for each in face(rows.list, QueryOptions(sorts=[SortField(path)]))) == all_of
        groups = face(rows.aggregate, {"n": "count"}, group_by=path)
        assert {each[path]: each["n"] for each in groups}[value] == len(ids)
    assert face(rows.update_where, filters, {"name": "new"}) == len(ids)
    assert face(rows.delete_where, [QueryFilter(path, value="nobody" if value != 3 else 99)]) == 0
