"""`IN` and `NOT_IN` with any number of values in one statement, for each column type, driver and number of values."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    JSON,
    BigInteger,
    Date,
    DateTime,
    Double,
    Enum,
    Float,
    ForeignKey,
    Interval,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Text,
    Time,
    TypeDecorator,
    Unicode,
    Uuid,
    func,
    insert,
    text,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import QueryFilter, any_of, none_of
from dotmac_database.models import TenantMixin
from dotmac_database.types import UTCDateTime
from tests.conftest import DRIVERS, Face, Faces, counted

F = QueryFilter


class Base(DeclarativeBase):
    """The base class of the tables of this matrix."""


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"
    BLUE = "blue"


class Reversed(TypeDecorator[str]):
    """A type that converts values, and is shorter than the values in the filters."""

    impl = String(8)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value[::-1]

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value[::-1]


class Packed(TypeDecorator[int]):
    """A number that is stored as bytes."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.to_bytes(8)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else int.from_bytes(value)


class Exact(TypeDecorator[Decimal]):
    """A number that is stored as text."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else Decimal(value)


class Owner(Base):
    __tablename__ = "owners"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Thing(TenantMixin, Base):
    __tablename__ = "things"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owners.id"))
    small: Mapped[int | None] = mapped_column(SmallInteger)
    integer: Mapped[int | None] = mapped_column(index=True)
    big: Mapped[int | None] = mapped_column(BigInteger)
    real: Mapped[float | None] = mapped_column(Float)
    double: Mapped[float | None] = mapped_column(Double)
    numeric: Mapped[Decimal | None] = mapped_column(Numeric(12, 2))
    wide: Mapped[Decimal | None] = mapped_column(Numeric)
    inexact: Mapped[float | None] = mapped_column(Numeric(12, 2, asdecimal=False))
    string: Mapped[str | None] = mapped_column(String(20), index=True)
    short: Mapped[str | None] = mapped_column(String(2))
    words: Mapped[str | None] = mapped_column(Text)
    letters: Mapped[str | None] = mapped_column(Unicode(20))
    data: Mapped[bytes | None] = mapped_column(LargeBinary)
    flag: Mapped[bool | None]
    uuid: Mapped[UUID | None] = mapped_column(Uuid)
    uuid_text: Mapped[str | None] = mapped_column(Uuid(as_uuid=False))
    colour: Mapped[Colour | None] = mapped_column(Enum(Colour, name="colour"))
    shade: Mapped[Colour | None] = mapped_column(Enum(Colour, native_enum=False))
    word: Mapped[str | None] = mapped_column(Enum("red", "green", "blue", name="word"))
    day: Mapped[date | None] = mapped_column(Date)
    clock: Mapped[time | None] = mapped_column(Time)
    naive: Mapped[datetime | None] = mapped_column(DateTime)
    aware: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    utc: Mapped[datetime | None] = mapped_column(UTCDateTime)
    span: Mapped[timedelta | None] = mapped_column(Interval)
    reversed: Mapped[str | None] = mapped_column(Reversed)
    packed: Mapped[int | None] = mapped_column(Packed)
    exact: Mapped[Decimal | None] = mapped_column(Exact)
    settings: Mapped[dict[str, Any] | None] = mapped_column(JSON)

    owner: Mapped[Owner | None] = relationship()


class Place(TenantMixin, Base):
    """A class with a composite key of a text and a number."""

    __tablename__ = "places"

    tenant_id: Mapped[str] = mapped_column(String(20), index=True)
    area: Mapped[str] = mapped_column(String(20), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Document(TenantMixin, Base):
    """A composite key with two types that JSON does not have."""

    __tablename__ = "documents"

    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    made: Mapped[datetime] = mapped_column(DateTime(timezone=True), primary_key=True)


MOMENT = datetime(2024, 1, 1, tzinfo=UTC)
COLOURS = list(Colour)
VALUES: dict[str, Callable[[int], Any]] = {
    "small": lambda n: n % 30_000,
    "integer": lambda n: n,
    "big": lambda n: 2**53 + n,
    "real": lambda n: n / 8,
    "double": lambda n: n / 7,
    "numeric": lambda n: Decimal(n) / 100,
    "wide": lambda n: Decimal(n) / 1000,
    "inexact": lambda n: n / 4,
    "string": lambda n: f'n{n}"\\',
    "short": lambda n: chr(97 + n % 26) + ("" if n < 26 else f"{n}"),
    "words": lambda n: f"Ünï{n}\U0001f600",
    "letters": lambda n: f"é{n}",
    "data": lambda n: b"\xff\x00" + n.to_bytes(4),
    "flag": lambda n: n % 2 == 1,
    "uuid": lambda n: UUID(int=n),
    "uuid_text": lambda n: str(UUID(int=n)),
    "colour": lambda n: COLOURS[n % 3],
    "shade": lambda n: COLOURS[n % 3],
    "word": lambda n: COLOURS[n % 3].value,
    "day": lambda n: date(1970, 1, 1) + timedelta(days=n % 900_000),
    "clock": lambda n: time(n // 3600 % 24, n // 60 % 60, n % 60, n // 86_400),
    "naive": lambda n: datetime(2024, 1, 1) + timedelta(seconds=n),  # noqa: DTZ001 - the column is
    "aware": lambda n: MOMENT + timedelta(seconds=n),
    "utc": lambda n: MOMENT + timedelta(microseconds=n),
    "span": lambda n: timedelta(seconds=n),
    "reversed": lambda n: f"ab{n}",
    "packed": lambda n: n,
    "exact": lambda n: Decimal(n) / 8,
    "settings.text": lambda n: f"t{n}",
    "settings.number": lambda n: n,
    "settings.float": lambda n: n / 7,
    "settings.flag": lambda n: n % 2 == 1,
    "owner.name": lambda n: f"o{n}",
}


@pytest.fixture(scope="module", params=DRIVERS)
def driver(request: pytest.FixtureRequest, faces: Faces) -> Iterator[Face]:
    """A face for each driver, on the rows of this matrix."""
    face = faces[request.param]
    Base.metadata.drop_all(face.database.engine)
    Base.metadata.create_all(face.database.engine)
    with face.session() as session:
        _fill(face, session)
    yield face
    Base.metadata.drop_all(face.database.engine)
    face.runner.run(face.database.dispose_async())


def _fill(face: Face, session: Any) -> None:
    """Things 1 and 2 have the values of 1 and 2, thing 3 has no values, and thing 4 belongs to another tenant."""
    owners = face.repository(session, Owner)
    for number in (1, 2):
        face(owners.create, {"id": number, "name": VALUES["owner.name"](number)})
    for number, tenant in ((1, "a"), (2, "a"), (4, "b")):
        row: dict[str, Any] = {"id": number, "owner_id": min(number, 2), "settings": {}}
        for field, make in VALUES.items():
            column, _, key = field.partition(".")
            if column == "settings":
                row["settings"][key] = make(min(number, 2))
            elif column != "owner":
                row[column] = make(min(number, 2))
        face(face.repository(session, Thing, tenant).create, row)
    face(face.repository(session, Thing, "a").create, {"id": 3})
    for number in range(1, 5):
        face(face.repository(session, Place, "a").create, {"area": f"p{number}", "number": number})
        face(face.repository(session, Document, "a").create, {"digest": bytes([255, number]), "made": MOMENT})


def _matrix(face: Face, count: int) -> list[str]:
    wrong: list[str] = []
    with face.session() as session:
        things = face.repository(session, Thing, "a")

        def ids(*filters: Any) -> list[int]:
            return [each.id for each in face(things.list, {"filters": filters})]

        for field, make in VALUES.items():
            values = [make(n) for n in range(count)]
            one = make(1)
            without = [value for value in values if value != one]
            all_of_them = [1, 2]
            second = [2] if make(2) in without else []
            cases = {
                "in": (F(field, "in", values), all_of_them),
                "in, with None": (F(field, "in", [*values, None]), all_of_them),
                "in, twice": (F(field, "in", [one, *values, one]), all_of_them),
                "in, without one": (F(field, "in", without), second),
                "not in": (F(field, "not_in", values), []),
                "not in, without one": (F(field, "not_in", without), [1]),
                "not in, with None": (F(field, "not_in", [*without, None]), []),
                "none of": (none_of(F(field, "in", without)), [1, 3] if field == "owner.name" else [1]),
                "any of": (any_of(F(field, "in", without), F("id", "in", [1])), sorted({1, *second})),
                "one": (F(field, "in", [one]), [1]),
                "as eq": (F(field, "eq", one), [1]),
            }
            for name, (each, expected) in cases.items():
                try:
                    found = ids(each)
                except Exception as error:  # noqa: BLE001 - the matrix reports all errors together
                    wrong.append(f"{field} {name}: {type(error).__name__}: {str(error)[:200]}")
                    continue
                if found != expected:
                    wrong.append(f"{field} {name}: {found} instead of {expected}")
    return wrong


def test_lists_of_a_few_values(driver: Face) -> None:
    assert _matrix(driver, 5) == []


@pytest.mark.matrix
def test_lists_of_a_hundred_thousand_values(driver: Face) -> None:
    assert _matrix(driver, 100_000) == []


def test_lists_that_are_longer_than_a_drivers_parameters(driver: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    for field in set(VALUES) - {"integer", "data", "settings.text"}:
        monkeypatch.delitem(VALUES, field)
    assert _matrix(driver, 33_000) == []


@pytest.mark.parametrize("field", ["integer", "string", "data", "colour", "settings.text", "owner.name"])
def test_one_statement_serves_lists_of_any_length(driver: Face, field: str) -> None:
    make = VALUES[field]
    with driver.session() as session, counted(driver.engine) as sent:
        things = driver.repository(session, Thing, "a")
        for count in (1, 2, 3, 1000, 20_000):
            driver(things.count, [F(field, "in", [make(n) for n in range(count)])])
    assert len({each for each in sent if "things" in each}) == 1


def test_many_rows_by_key_are_one_statement(driver: Face) -> None:
    with driver.session() as session, counted(driver.engine) as sent:
        things = driver(driver.repository(session, Thing, "a").get_many, range(40_000, 0, -1))
        places = driver(driver.repository(session, Place, "a").get_many, [(f"p{n}", n) for n in range(40_000)])
        documents = driver.repository(session, Document, "a")
        found = driver(documents.get_many, [(bytes([255, n % 256]), MOMENT) for n in range(40_000, 0, -1)])
        mixed = driver(driver.repository(session, Place, "a").get_many, [("p1", 2), ("p2", 2), ("p2", 2)])
        nothing = driver(driver.repository(session, Place, "a").get_many, [])
    assert [each.id for each in things] == [3, 2, 1]
    assert [each.number for each in places] == [1, 2, 3, 4]
    assert {each.digest[1] for each in found} == {1, 2, 3, 4}
    assert [each.area for each in mixed] == ["p2", "p2"]
    assert nothing == []
    assert len([each for each in sent if each.startswith("SELECT")]) <= 5


def test_lists_of_any_length_in_writes_on_a_guarded_session(driver: Face) -> None:
    names = [VALUES["owner.name"](n) for n in range(40_000)]
    with driver.guarded() as session:
        things = driver.repository(session, Thing, "a", auto_commit=False)
        numbers = F("integer", "in", list(range(40_000)))
        assert driver(things.count, [F("owner.name", "in", names), numbers]) == 2
        assert driver(things.update_where, [F("owner.name", "in", names), numbers], {"small": 9}) == 2
        found = driver(things.get_many, range(40_000))
        assert [(each.id, each.small) for each in found] == [(1, 9), (2, 9), (3, None)]
        places = driver.repository(session, Place, "a", auto_commit=False)
        assert len(driver(places.get_many, [(f"p{n}", n) for n in range(40_000)])) == 4
        assert driver(places.delete_where, [F("area", "in", [f"p{n}" for n in range(40_000)])]) == 4
        assert driver(things.delete_where, [numbers]) == 2
        driver(session.rollback)


def test_a_guarded_session_changes_any_number_of_rows_by_key(driver: Face) -> None:
    """The guard looks up the tenants of the rows by their keys."""
    with driver.guarded() as session:
        driver(driver.repository(session, Place, "a", auto_commit=False).count)
        rows = [{"tenant_id": "a", "area": "many", "number": n} for n in range(17_000)]

        def change(plain: Any) -> None:
            plain.execute(insert(Place), rows)
            plain.execute(update(Place), rows)

        driver(session.run_sync if driver.is_async else (lambda work: work(session)), change)
        driver(session.rollback)


@pytest.mark.parametrize("column", ["naive", "aware", "utc", "clock"])
def test_a_moment_that_the_database_wrote_is_found(driver: Face, column: str) -> None:
    """SQLite's functions write no fraction of a second; the driver writes six digits."""
    stored = {"clock": "10:20:30"}.get(column, "2024-05-06 10:20:30")
    value = time(10, 20, 30) if column == "clock" else datetime(2024, 5, 6, 10, 20, 30, tzinfo=UTC)
    if column == "naive":
        value = value.replace(tzinfo=None)  # type: ignore[call-arg]
    if driver.database.engine.dialect.name == "postgresql" and column in ("aware", "utc"):
        stored += "+00"
    with driver.database.engine.begin() as connection:
        connection.execute(text(f"INSERT INTO things (id, tenant_id, {column}) VALUES (9, 'a', '{stored}')"))
    try:
        with driver.session() as session:
            things = driver.repository(session, Thing, "a")
            assert driver(things.count, [F(column, "in", [value])]) == 1
            assert driver(things.count, [F("id", "eq", 9), F(column, "not_in", [value])]) == 0
    finally:
        with driver.database.engine.begin() as connection:
            connection.execute(text("DELETE FROM things WHERE id = 9"))


@pytest.mark.parametrize("field", ["integer", "string"])
def test_a_short_list_is_looked_up_in_an_index(driver: Face, field: str) -> None:
    with driver.database.engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(
                text(
                    "INSERT INTO things (id, tenant_id, integer, string) "
                    "SELECT n, 'a', n, 'x' || n FROM generate_series(1000, 20000) n"
                )
            )
        else:
            connection.execute(
                text(
                    "INSERT INTO things (id, tenant_id, integer, string) WITH RECURSIVE s(n) AS (SELECT 1000 UNION ALL "
                    "SELECT n + 1 FROM s WHERE n < 20000) SELECT n, 'a', n, 'x' || n FROM s"
                )
            )
        connection.execute(text("ANALYZE things"))
    try:
        with driver.session() as session:
            things = driver.repository(session, Thing, "a")
            values = [VALUES[field](n) for n in range(3)]
            plan = driver(things.explain, {"filters": [F(field, "in", values)]})
            assert f"ix_things_{field}" in str(plan)
    finally:
        with driver.database.engine.begin() as connection:
            connection.execute(text("DELETE FROM things WHERE id >= 1000"))
            assert connection.scalar(func.count().select().select_from(Thing.__table__)) == 4
