"""Whose row it is, known from the objects that it is related to, for who works across all tenants."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import ForeignKey, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import ALL_TENANTS, TenantIsolationError, TenantRequiredError
from dotmac_database.models import TenantMixin
from tests.conftest import Face
from tests.conftest import database as database  # this module's tables, not those of the tests beside it


class Base(DeclarativeBase):
    """The tables of this module."""


class Holder(TenantMixin, Base):
    __tablename__ = "holders"
    id: Mapped[int] = mapped_column(primary_key=True)
    belongings: Mapped[list[Belonging]] = relationship(back_populates="holder", foreign_keys="Belonging.holder_id")


class Belonging(TenantMixin, Base):
    __tablename__ = "belongings"
    id: Mapped[int] = mapped_column(primary_key=True)
    holder_id: Mapped[int | None] = mapped_column(ForeignKey("holders.id"))
    maker_id: Mapped[int | None] = mapped_column(ForeignKey("holders.id"))
    holder: Mapped[Holder | None] = relationship(back_populates="belongings", foreign_keys=[holder_id])
    maker: Mapped[Holder | None] = relationship(foreign_keys=[maker_id])


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.mark.parametrize("way", ["object", "dict"])
@pytest.mark.parametrize("related", ["persistent", "pending"])
def test_the_tenant_is_that_of_the_related(face: Face, way: str, related: str) -> None:
    with face.session() as session:
        holder = Holder(tenant_id="a")
        if related == "persistent":
            holder = face(face.repository(session, Holder, ALL_TENANTS).create, {"tenant_id": "a"})
        data: Any = Belonging(holder=holder) if way == "object" else {"holder": holder}
        if way == "object" and data in session:
            (session.sync_session if face.is_async else session).expunge(data)
        made = face(face.repository(session, Belonging, ALL_TENANTS).create, data)
        assert made.tenant_id == "a"


def test_the_tenant_is_that_of_the_children(face: Face) -> None:
    with face.session() as session:
        data = {"belongings": [Belonging(tenant_id="a")]}
        assert face(face.repository(session, Holder, ALL_TENANTS).create, data).tenant_id == "a"


def test_related_objects_of_two_tenants_are_refused(face: Face) -> None:
    with face.session() as session:
        belongings = face.repository(session, Belonging, ALL_TENANTS)
        two = {"holder": Holder(tenant_id="a"), "maker": Holder(tenant_id="b")}
        with pytest.raises(TenantIsolationError):
            face(belongings.create, two)
        with pytest.raises(TenantIsolationError):
            face(belongings.create, {"holder": Holder(tenant_id="a"), "tenant_id": "b"})
        with pytest.raises(TenantRequiredError):
            face(belongings.create, {"holder": Holder()})
