"""Bulk creation by COPY: the same rows and the same errors as by INSERT, and INSERT wherever COPY must not be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import ARRAY, Identity, MetaData, Numeric, String, event, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import (
    ConstraintViolationError,
    DatabaseTransaction,
    DuplicateEntityError,
    RowLevelSecurity,
    TenantMixin,
    ValidationError,
)
from dotmac_database.repositories import bulk
from dotmac_database.tenancy.rls.row_level_security import SETTING
from tests.conftest import Face
from tests.models import Post, Status, User

MANY = 1200


class Odd(DeclarativeBase):
    """Tables with a name and a schema that want quotes."""

    metadata = MetaData(schema="Odd schema")


class Item(TenantMixin, Odd):
    __tablename__ = "All items"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column("The number", unique=True)
    label: Mapped[str | None] = mapped_column(String(20))
    price: Mapped[Decimal | None] = mapped_column(Numeric(12, 2))
    weight: Mapped[float | None]
    made: Mapped[datetime | None]
    day: Mapped[date | None]
    at: Mapped[time | None]
    raw: Mapped[bytes | None]
    sold: Mapped[bool] = mapped_column(default=False)
    grade: Mapped[str] = mapped_column(server_default="plain")


class Counter(Odd):
    __tablename__ = "counters"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    name: Mapped[str]


class Listed(Odd):
    """A column with a type that can't be sent in an array."""

    __tablename__ = "lists"

    id: Mapped[int] = mapped_column(primary_key=True)
    words: Mapped[list[str]] = mapped_column(ARRAY(String))


@pytest.fixture(scope="module")
def dialect() -> str:
    """COPY is PostgreSQL's."""
    return "postgresql"


@pytest.fixture
def odd(face: Face) -> Iterator[None]:
    with face.database.engine.begin() as connection:
        connection.execute(text('CREATE SCHEMA "Odd schema"'))
        Odd.metadata.create_all(connection)
    yield
    with face.database.engine.begin() as connection:
        connection.execute(text('DROP SCHEMA "Odd schema" CASCADE'))


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows went by each COPY."""
    counts: list[int] = []
    real = bulk.copy

    def spy(connection: Any, table: Any, columns: Any, lists: Any) -> None:
        counts.append(len(lists[0]))
        real(connection, table, columns, lists)

    monkeypatch.setattr(bulk, "copy", spy)
    return counts


def fail(face: Face, block: Any, repository: Any) -> None:
    with face.entered(block):
        face(repository.bulk_create, posts(MANY), returning=False)
        raise LookupError


def users(many: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"name": f"u{n}", "email": f"{n}@x", "score": n} for n in range(first, first + many)]


def posts(many: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"id": n, "title": f"t{n}"} for n in range(first, first + many)]


def items(many: int) -> list[dict[str, Any]]:
    return [
        {
            "id": UUID(int=n),
            "number": n,
            "label": None if n % 7 == 0 else f"l\t{n}\\n\n'\"ü€",
            "price": None if n % 5 == 0 else Decimal(n) / 8,
            "weight": n / 3,
            "made": datetime(2024, 1, 1, 1, 2, 3, n, tzinfo=UTC),
            "day": date(2000, 1, 1 + n % 28),
            "at": time(n % 24, n % 60, 1, 7),
            "raw": None if n % 3 == 0 else bytes([n % 256, 0, 92, 255]),
        }
        for n in range(many)
    ]


@pytest.mark.fast_way("copy", "arrays")
@pytest.mark.usefixtures("odd")
def test_the_rows_are_what_inserts_would_have_made(face: Face, copied: list[int]) -> None:
    with face.session() as session:
        things = face.repository(session, Item, "a")
        given = items(MANY)
        assert face(things.bulk_create, given, returning=False) == MANY
        assert copied == [MANY]
        with face.session() as other:
            inserted = face.repository(other, Item, "b")
            again = [{**row, "id": UUID(int=row["number"] + MANY), "number": row["number"] + MANY} for row in given]
            face(inserted.bulk_create, again)
            columns = [column for column in inserted.traits.columns if column not in ("id", "number", "tenant_id")]
            options = {"sorts": [{"field": "number"}]}
            assert face(things.values(*columns).list, options) == face(inserted.values(*columns).list, options)
        first = face(things.values("grade", "sold", "label", "price", "raw").list, {"sorts": [{"field": "number"}]})[1]
        assert first == {
            "grade": "plain",
            "sold": False,
            "label": "l\t1\\n\n'\"ü€",
            "price": Decimal("0.13"),
            "raw": bytes([1, 0, 92, 255]),
        }


@pytest.mark.fast_way("copy", "arrays")
def test_tenants_keys_and_audit_columns_are_stamped(face: Face, copied: list[int]) -> None:
    with face.session() as session:
        rows = [{key: value for key, value in row.items() if key != "status"} for row in posts(MANY)]
        face(face.repository(session, Post, "a").bulk_create, rows, returning=False)
        assert copied == [MANY]
        assert face(face.repository(session, Post, "a").count) == MANY
        assert face(face.repository(session, Post, "b").count) == 0


@pytest.mark.fast_way("copy", "arrays")
def test_large_loads_are_sent_in_batches(face: Face, copied: list[int]) -> None:
    with face.session() as session:
        face(face.repository(session, Post, "a").bulk_create, posts(10_500), returning=False)
        assert copied == [10_000, 500]


@pytest.mark.fast_way("copy", "arrays")
def test_a_duplicate_undoes_it_all_and_names_the_field(face: Face, copied: list[int]) -> None:
    with face.session() as session:
        repository = face.repository(session, Post, "a")
        with pytest.raises(DuplicateEntityError) as caught:
            face(repository.bulk_create, [*posts(MANY), *posts(1)], returning=False)
        assert caught.value.fields == ("id",)
        assert caught.value.__cause__ is not None
        assert copied
        assert not session.in_transaction()
        assert face(repository.count) == 0
        assert face(repository.bulk_create, posts(MANY), returning=False) == MANY


@pytest.mark.fast_way("copy", "arrays")
def test_other_constraints(face: Face, copied: list[int]) -> None:
    with face.session() as session:
        rows = [{**row, "author_id": UUID(int=7)} for row in posts(MANY)]
        with pytest.raises(ConstraintViolationError) as caught:
            face(face.repository(session, Post, "a").bulk_create, rows, returning=False)
        assert caught.value.fields == ("author_id",)
        assert copied


@pytest.mark.fast_way("copy", "arrays")
def test_inside_a_transaction_it_is_a_part_of_it(face: Face, copied: list[int]) -> None:
    block = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
    with face.session() as session:
        repository = face.repository(session, Post, "a")
        with pytest.raises(LookupError):
            fail(face, block(session), repository)
        assert copied == [MANY]
        assert face(repository.count) == 0
        with face.entered(block(session)):
            face(repository.create, {"id": MANY, "title": "before"})
            with pytest.raises(DuplicateEntityError):
                face(repository.bulk_create, posts(MANY + 1), returning=False)
            face(repository.bulk_create, posts(MANY), returning=False)
        assert face(repository.count) == MANY + 1


@pytest.mark.fast_way("copy", "arrays")
def test_a_guarded_session_copies_its_own_tenants_rows(face: Face, copied: list[int]) -> None:
    with face.guarded() as session:
        repository = face.repository(session, Post, "a")
        assert face(repository.bulk_create, posts(MANY), returning=False) == MANY
        assert copied == [MANY]
    with face.session() as session:
        assert face(face.repository(session, Post, "a").count) == MANY


def test_row_level_security_gets_inserts(face: Face, copied: list[int]) -> None:
    security = RowLevelSecurity(Post.metadata)
    with face.database.engine.begin() as connection:
        security.apply(connection)
        connection.execute(text("DROP ROLE IF EXISTS copier"))
        connection.execute(text("CREATE ROLE copier"))
        connection.execute(text("GRANT ALL ON ALL TABLES IN SCHEMA public TO copier"))
    try:
        with face.session() as session:
            for setting, value in (("role", "copier"), (SETTING, "a")):
                face(session.scalar, select(func.set_config(setting, value, False)))
            repository = face.repository(session, Post, "a", auto_commit=False)
            assert face(repository.bulk_create, posts(MANY), returning=False) == MANY
            assert not copied
            face(session.rollback)
    finally:
        with face.database.engine.begin() as connection:
            for statement in security.drop_statements():
                connection.execute(text(str(statement)))
            connection.execute(text("DROP OWNED BY copier"))
            connection.execute(text("DROP ROLE copier"))


@pytest.mark.fast_way("arrays")
def test_listeners_hear_of_every_statement(face: Face, copied: list[int]) -> None:
    heard: list[str] = []

    def listener(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        heard.append(statement)

    event.listen(face.engine, "before_cursor_execute", listener)
    try:
        with face.session() as session:
            face(face.repository(session, Post, "a").bulk_create, posts(MANY), returning=False)
    finally:
        event.remove(face.engine, "before_cursor_execute", listener)
    assert not copied
    assert any("unnest" in statement for statement in heard)


@pytest.mark.fast_way("copy", "arrays")
@pytest.mark.usefixtures("odd")
def test_what_only_the_database_may_write_is_refused_as_by_insert(face: Face, copied: list[int]) -> None:
    with face.session() as session:
        counters = face.repository(session, Counter)
        assert face(counters.bulk_create, [{"name": "n"}] * MANY, returning=False) == MANY
        assert copied == [MANY]
        with pytest.raises(Exception, match="428C9"):
            face(counters.bulk_create, [{"id": n, "name": "n"} for n in range(MANY, 2 * MANY)], returning=False)
        assert copied == [MANY]


@pytest.mark.fast_way("copy", "arrays")
def test_documents_and_enums_are_copied(face: Face, copied: list[int]) -> None:
    with face.session() as session:
        people = face.repository(session, User, "a")
        rows = [{**row, "settings": {"ü": [n, None]} if n % 2 else None} for n, row in enumerate(users(MANY))]
        assert face(people.bulk_create, rows, returning=False) == MANY
        assert copied == [MANY]
    with face.database.sessions() as session:
        query = select(User.name, User.settings, User.status)
        stored = {name: (settings, status) for name, settings, status in session.execute(query)}
    assert stored == {row["name"]: (row["settings"], Status.NEW) for row in rows}


@pytest.mark.usefixtures("odd")
def test_types_that_need_more_go_by_insert(face: Face, copied: list[int]) -> None:
    with face.session() as session:
        rows = [{"words": ["a", f"b{n}"]} for n in range(MANY)]
        assert face(face.repository(session, Listed).bulk_create, rows, returning=False) == MANY
    assert not copied


def test_bad_values_are_refused_before_anything_is_sent(face: Face, copied: list[int]) -> None:
    with face.session() as session, pytest.raises(ValidationError, match="title"):
        face(
            face.repository(session, Post, "a").bulk_create, [*posts(MANY), {"id": MANY, "title": 1j}], returning=False
        )
    assert not copied
