"""`select`, `page`, ``at_most`` and `get_or_create` under row-level security, as the role that the policies confine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Table, select
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, sessionmaker

from dotmac_database import (
    ALL_TENANTS,
    Database,
    DuplicateEntityError,
    EntityNotFoundError,
    OffsetParams,
    QueryFilter,
    QueryOptions,
    RowLevelSecurity,
    TenantMixin,
    ValidationError,
    create_database,
    guard_tenants,
    unscoped,
)
from tests.confined import SECRETS, confined_database
from tests.conftest import Face


class Base(DeclarativeBase):
    """The models of this module."""


class Handle(TenantMixin, Base):
    __tablename__ = "handles"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    note: Mapped[str | None]
    by_policy: Mapped[list[Handle]] = relationship(
        secondary=lambda: pairs,
        primaryjoin=lambda: Handle.id == pairs.c.one,
        secondaryjoin=lambda: Handle.id == pairs.c.other,
    )


pairs = Table(
    "pairs",
    Base.metadata,
    Column("one", ForeignKey("handles.id"), primary_key=True),
    Column("other", ForeignKey("handles.id"), primary_key=True),
)


@pytest.fixture(scope="module", params=SECRETS)
def policies(request: pytest.FixtureRequest) -> RowLevelSecurity:
    return RowLevelSecurity(Base.metadata, secret=SECRETS[request.param])


@pytest.fixture(scope="module")
def confined(postgres_server: str, policies: RowLevelSecurity) -> Iterator[Database]:
    with confined_database(postgres_server, "new_methods", policies) as url:
        database = create_database(url)
        yield database
        database.dispose()


@pytest.fixture(params=["sync", "async"])
def face_of_role(request: pytest.FixtureRequest, confined: Database) -> Iterator[Face]:
    with asyncio.Runner() as runner:
        yield Face(request.param, confined, runner)
        if request.param == "async":
            runner.run(confined.async_engine.dispose())
            del confined.__dict__["async_engine"]


@contextmanager
def opened(face: Face, policies: RowLevelSecurity) -> Iterator[Any]:
    maker: Any = async_sessionmaker(face.database.async_engine) if face.is_async else sessionmaker(face.engine)
    session = guard_tenants(maker, rls=policies)()
    try:
        yield session
    finally:
        face(session.close)


def test_links(face_of_role: Face, policies: RowLevelSecurity) -> None:
    face = face_of_role
    ids: dict[str, list[int]] = {}
    for tenant in "ab":
        with opened(face, policies) as session:
            handles = face.repository(session, Handle, tenant)
            ids[tenant] = [face(handles.create, {"name": f"link {tenant}{n}"}).id for n in range(3)]
    one, *others = ids["a"]
    with opened(face, policies) as session:
        handles = face.repository(session, Handle, "a")
        assert face(handles.link, one, "by_policy", others) == 2
        for method in (handles.link, handles.unlink, handles.set_links):
            for parent, target in ((one, ids["b"][0]), (ids["b"][0], one), (ids["b"][0], ids["b"][1])):
                with pytest.raises(EntityNotFoundError):
                    face(method, parent, "by_policy", [target])
        assert face(handles.unlink, one, "by_policy", others[:1]) == 1
        assert face(handles.set_links, one, "by_policy", [one]) == (1, 1)
        assert face(handles.set_links, one, "by_policy", []) == (0, 1)
    with opened(face, policies) as session, unscoped(session, reason="test"):
        handles = face.repository(session, Handle, ALL_TENANTS)
        with pytest.raises(EntityNotFoundError):
            face(handles.link, one, "by_policy", [ids["b"][0]])
        assert face(handles.link, one, "by_policy", others) == 2
        assert face(handles.set_links, one, "by_policy", []) == (0, 2)
        assert face(handles.delete_where, [QueryFilter("name", "ne", "")]) == 6


def test_no_method_reaches_another_tenant(face_of_role: Face, policies: RowLevelSecurity) -> None:
    face = face_of_role
    every = [QueryFilter("name", "ne", "nobody")]
    for tenant in "ab":
        with opened(face, policies) as session:
            handles = face.repository(session, Handle, tenant)
            for name in ("x", "y"):
                assert face(handles.get_or_create, {"name": f"{tenant}{name}"}, ["name"])[1] is True
                assert face(handles.get_or_create, {"name": f"{tenant}{name}"}, ["name"])[1] is False
    with opened(face, policies) as session:
        handles = face.repository(session, Handle, "a")
        with pytest.raises(DuplicateEntityError):
            face(handles.get_or_create, {"name": "bx"}, ["name"])
        assert sorted(each.name for each in face(session.scalars, handles.select())) == ["ax", "ay"]
        page = face(handles.page, QueryOptions(pagination=OffsetParams(1, 5)))
        assert (page.total, len(page.items)) == (2, 1)
        with pytest.raises(ValidationError, match="more than 1"):
            face(handles.delete_where, every, at_most=1)
        with pytest.raises(ValidationError, match="more than 1"):
            face(handles.update_where, every, {"note": "z"}, at_most=1)
        assert [each.note for each in face(handles.list)] == [None, None]
        assert face(handles.delete_where, every, at_most=2) == 2
    with opened(face, policies) as session, unscoped(session, reason="test"):
        handles = face.repository(session, Handle, ALL_TENANTS)
        assert sorted(each.name for each in face(session.scalars, handles.select())) == ["bx", "by"]
        with pytest.raises(DuplicateEntityError):
            face(handles.get_or_create, {"name": "bx", "tenant_id": "a"}, ["name"])
        assert face(handles.delete_where, every, at_most=2) == 2
        assert list(face(session.scalars, select(Handle))) == []
