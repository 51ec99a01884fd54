"""Values that are the same in all rows of a bulk write are sent once, and the statement is built once.

The tenant is one of them, so these tests also show that no row gets into another tenant.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from sqlalchemy import Integer, MetaData, String, UniqueConstraint, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import ALL_TENANTS, DuplicateEntityError, TenantIsolationError, ValidationError
from dotmac_database.models import AuditMixin, SoftDeleteMixin, TenantMixin, VersionMixin
from tests.conftest import Face

MANY = 40
_numbers = itertools.count(1)


class Base(DeclarativeBase):
    """The base class of this module's tables."""


class Item(TenantMixin, AuditMixin, SoftDeleteMixin, VersionMixin, Base):
    """The columns of a tenant and of an audit user are shorter than the values that some tests pass."""

    __tablename__ = "same_items"
    __table_args__ = (UniqueConstraint("tenant_id", "code"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(3))
    created_by: Mapped[str | None] = mapped_column(String(5))
    updated_by: Mapped[str | None] = mapped_column(String(5))
    code: Mapped[str] = mapped_column(String(20))
    grade: Mapped[str] = mapped_column(default="plain")


class Anyones(TenantMixin, Base):
    """A conflict on a column that all tenants share."""

    __tablename__ = "same_anyones"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    word: Mapped[str | None]


class Stamped(Base):
    """A version that the app's function makes, and not the toolkit."""

    __tablename__ = "same_stamped"

    id: Mapped[int] = mapped_column(primary_key=True)
    word: Mapped[str | None]
    version: Mapped[int] = mapped_column(default=0, onupdate=lambda: next(_numbers))
    __mapper_args__ = {"version_id_col": version, "version_id_generator": False}  # noqa: RUF012 - SQLAlchemy's way


class Authored(TenantMixin, AuditMixin, Base):
    """An audit user that is a number, and columns with the names of the parameters and columns of arrays."""

    __tablename__ = "same_authored"

    id: Mapped[int] = mapped_column(primary_key=True)
    created_by: Mapped[int | None] = mapped_column(Integer)  # type: ignore[assignment]  # the mixin's is a text
    updated_by: Mapped[int | None] = mapped_column(Integer)  # type: ignore[assignment]  # the mixin's is a text
    c0: Mapped[int | None]
    c1: Mapped[int | None]
    place: Mapped[int | None]


class Bare(TenantMixin, Base):
    """A class whose rows can have no values but those that the toolkit sets."""

    __tablename__ = "same_bare"

    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


def items(many: int = MANY) -> list[dict[str, Any]]:
    return [{"code": f"c{n}"} for n in range(many)]


def sent_values(face: Face, call: Any) -> list[Any]:
    """The parameters of the INSERT that ``call`` sends."""
    parameters: list[Any] = []

    def listener(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if statement.startswith("INSERT"):
            parameters.extend(values.values() if isinstance(values, dict) else values)

    event.listen(face.engine, "before_cursor_execute", listener)
    try:
        call()
    finally:
        event.remove(face.engine, "before_cursor_execute", listener)
    return parameters


@pytest.mark.fast_way("arrays")
def test_the_values_of_the_toolkit_are_sent_once(face: Face) -> None:
    if face.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no arrays")
    with face.session() as session:
        rows = face.repository(session, Item, "a")
        for call in (
            lambda: face(rows.bulk_create, items(), "me"),
            lambda: face(rows.bulk_create, [{"code": f"d{n}"} for n in range(MANY)], "me", returning=False),
            lambda: face(rows.bulk_upsert, items(), ["code"], "me"),
        ):
            values = sent_values(face, call)
            assert values.count("a") == 1
            assert values.count("me") == 2
            assert values.count("plain") == 1
            assert not [each for each in values if isinstance(each, list) and each[0] in ("a", "me", "plain")]


@pytest.mark.parametrize("guarded", [False, True])
def test_each_call_has_its_own_tenant_and_user(face: Face, guarded: bool) -> None:
    for tenant, user in (("a", "x"), ("b", "y"), ("a", None)):
        with face.guarded() if guarded else face.session() as session:
            rows = face.repository(session, Item, tenant)
            written = face(rows.bulk_upsert, items(), ["code"], user)
            assert {(each.tenant_id, each.updated_by) for each in written} == {(tenant, user or "x")}
            assert {each.version for each in written} == {1 if user else 2}
    with face.session() as session:
        assert face(face.repository(session, Item, ALL_TENANTS).count) == 2 * MANY


def test_rows_of_several_tenants(face: Face) -> None:
    with face.session() as session:
        everyone = face.repository(session, Item, ALL_TENANTS)
        data = [{**row, "tenant_id": "ab"[n % 2]} for n, row in enumerate(items())]
        same = [{**row, "tenant_id": "a"} for row in items()]
        for rows in (data, same, data):
            written = face(everyone.bulk_upsert, rows, ["tenant_id", "code"])
            assert [(each.tenant_id, each.code) for each in written] == [
                (row["tenant_id"], row["code"]) for row in rows
            ]
        assert face(everyone.count) == MANY + MANY // 2


@pytest.mark.parametrize("many", [1, MANY])
def test_a_row_of_another_tenant_is_refused(face: Face, many: int) -> None:
    data = [{"code": f"c{n}", "word": "theirs"} for n in range(many)]
    with face.session() as session:
        theirs, ours = (face.repository(session, Anyones, tenant) for tenant in "ba")
        face(theirs.bulk_create, data[-1:])
        face(ours.bulk_upsert, [{"code": f"d{n}"} for n in range(many)], ["code"])
        with pytest.raises(DuplicateEntityError):
            face(ours.bulk_upsert, [{**row, "word": "ours"} for row in data], ["code"])
        with pytest.raises(TenantIsolationError):
            face(ours.bulk_upsert, [{**row, "tenant_id": "b"} for row in data], ["code"])
        session.expunge_all()
        assert [each.word for each in face(theirs.list)] == ["theirs"]
        assert face(ours.count) == many


@pytest.mark.parametrize("many", [2, MANY])
def test_a_text_that_is_too_long_is_refused_and_not_cut(face: Face, many: int) -> None:
    """A cast to VARCHAR(3)[] would cut the name of the tenant, and the row would belong to another one."""
    if face.engine.dialect.name == "sqlite":
        pytest.skip("SQLite does not check the length of a text")
    with face.session() as session:
        long, short = face.repository(session, Item, "abc-long"), face.repository(session, Item, "abc")
        with pytest.raises(ValidationError):
            face(long.bulk_create, items(many))
        with pytest.raises(ValidationError):
            face(long.bulk_upsert, items(many), ["code"])
        with pytest.raises(ValidationError):
            face(short.bulk_create, items(many), "a-long-user")
        held = face(short.bulk_create, items(many))
        changes = [{"id": each.id, "grade": "new"} for each in held]
        with pytest.raises(ValidationError):
            face(short.bulk_update, changes, "a-long-user")
        assert face(long.bulk_update, changes) == 0
        session.expunge_all()
        assert {each.grade for each in face(face.repository(session, Item, ALL_TENANTS).list)} == {"plain"}


def test_the_apps_function_makes_each_version(face: Face) -> None:
    with face.session() as session:
        rows = face.repository(session, Stamped)
        data = [{"id": n, "word": "x"} for n in range(1, MANY)]
        face(rows.bulk_create, data)
        versions = [{each.version for each in face(rows.bulk_upsert, data, ["id"])} for _ in range(3)]
    assert len(set(itertools.chain(*versions))) == 3


@pytest.mark.parametrize("returning", [False, True])
def test_rows_with_nothing_else(face: Face, returning: bool) -> None:
    with face.session() as session:
        rows = face.repository(session, Bare, "a")
        face(rows.bulk_create, [{}] * MANY, returning=returning)
        assert face(rows.count) == MANY
    with face.database.engine.connect() as connection:
        assert set(connection.execute(text("SELECT tenant_id FROM same_bare")).scalars()) == {"a"}


@pytest.mark.parametrize("author", [None, 7])
def test_an_audit_user_that_is_a_number_or_unknown(face: Face, author: int | None) -> None:
    with face.session() as session:
        rows = face.repository(session, Authored, "a")
        data = [{"id": n, "created_by": author, "c0": n, "c1": -n, "place": n} for n in range(1, MANY)]
        for call in (
            lambda: face(rows.bulk_create, data),
            lambda: face(rows.bulk_upsert, data, ["id"]),
        ):
            written = call()
            assert [(each.id, each.created_by, each.c0, each.c1, each.place) for each in written] == [
                tuple(row.values()) for row in data
            ]
        changes = [{"id": n, "updated_by": author, "c1": n, "place": 5} for n in range(1, MANY)]
        assert face(rows.bulk_update, changes) == MANY - 1
        session.expunge_all()
        stored = face(rows.list, {"sorts": [{"field": "id"}], "pagination": {"per_page": 100}})
    assert [(each.updated_by, each.c0, each.c1, each.place) for each in stored] == [
        (author, n, n, 5) for n in range(1, MANY)
    ]
