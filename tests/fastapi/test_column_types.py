"""Each column type over HTTP: what POST takes, GET gives; PATCH takes it back, and the row stays what it was."""

from __future__ import annotations

import asyncio
import base64
import enum
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pydantic
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import DeclarativeBase, Session

from dotmac_database import Database
from tests.fastapi.conftest import Api
from tests.fastapi.shared_routers import crud_router

pytestmark = pytest.mark.shared_plugin


class Colour(enum.Enum):
    """Names and values that differ."""

    RED = "r"
    BLUE = "b"


class Level(enum.Enum):
    """Values that are no texts."""

    LOW = 1
    HIGH = 2


class Mebibytes(sa.TypeDecorator[bytearray]):
    """Bytes that come back as another class of bytes."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_result_value(self, value: Any, _dialect: Any) -> Any:
        return None if value is None else bytearray(value)


class Window(Mebibytes):
    """Bytes that come back as a view."""

    cache_ok = True

    def process_result_value(self, value: Any, _dialect: Any) -> Any:
        return None if value is None else memoryview(value)


def in_base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


BYTES = (b"", b"hello", b"aGVsbG8=", b"\x00\xff\xfe", b"\xfb\xff\xbf" * 5, "déjà".encode())
ID = UUID("018f3c2e-0000-7000-8000-0123456789ab")
MOMENT = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)

# The type, then pairs of the value in JSON and in Python.
TYPES: dict[str, tuple[Any, list[tuple[Any, Any]]]] = {
    "binary": (sa.LargeBinary, [(in_base64(each), each) for each in BYTES]),
    "short_binary": (sa.LargeBinary(64), [(in_base64(each), each) for each in BYTES]),
    "bytearrays": (Mebibytes, [(in_base64(each), bytearray(each)) for each in BYTES]),
    "views": (Window, [(in_base64(each), memoryview(each)) for each in BYTES]),
    "text": (sa.String, [("", ""), ("aGVsbG8=", "aGVsbG8="), ("é\n", "é\n")]),
    "uuid": (sa.Uuid, [(str(ID), ID)]),
    "uuid_text": (sa.Uuid(as_uuid=False), [(str(ID), str(ID))]),
    "span": (
        sa.Interval,
        [
            ("PT1H30M", timedelta(minutes=90)),
            ("P400DT0.000001S", timedelta(days=400, microseconds=1)),
            ("-P1DT2S", -timedelta(days=1, seconds=2)),
            ("P1043517DT11H", timedelta(days=1_043_517, hours=11)),
            ("-P643517DT11H", -timedelta(days=643_517, hours=11)),
        ],
    ),
    "exact": (sa.Numeric(20, 4), [("12.3400", Decimal("12.3400")), ("-0.0001", Decimal("-0.0001"))]),
    "inexact": (sa.Numeric(20, 4, asdecimal=False), [(12.25, 12.25)]),
    "double": (sa.Float, [(0.1, 0.1), (-1e300, -1e300)]),
    "decimal_double": (sa.Double(asdecimal=True), [("0.2500000000", Decimal("0.25"))]),
    "colour": (sa.Enum(Colour), [("b", Colour.BLUE)]),
    "colour_by_value": (
        sa.Enum(Colour, name="colour_by_value", values_callable=lambda kind: [each.value for each in kind]),
        [("r", Colour.RED)],
    ),
    "colour_as_text": (sa.Enum(Colour, native_enum=False, length=10), [("b", Colour.BLUE)]),
    "level": (sa.Enum(Level), [(2, Level.HIGH)]),
    "word": (sa.Enum("on", "off", name="word"), [("off", "off")]),
    "boolean": (sa.Boolean, [(False, False), (True, True)]),
    "big": (sa.BigInteger, [(2**53 + 1, 2**53 + 1), (-(2**63), -(2**63))]),
    "moment": (sa.DateTime(timezone=True), [("2024-02-29T12:00:00.123456Z", MOMENT)]),
    "naive": (sa.DateTime, [("2024-02-29T12:00:00.123456", MOMENT.replace(tzinfo=None))]),
    "day": (sa.Date, [("2024-02-29", date(2024, 2, 29))]),
    "hour": (sa.Time, [("06:30:00.000001", time(6, 30, 0, 1))]),
    "document": (sa.JSON, [({"a": [1, None, {"b": "aGVsbG8="}]}, {"a": [1, None, {"b": "aGVsbG8="}]}), ([], [])]),
}

POSTGRESQL: dict[str, tuple[Any, list[tuple[Any, Any]]]] = {
    "texts": (sa.ARRAY(sa.String), [(["a", None, "b"], ["a", None, "b"]), ([], [])]),
    "binaries": (sa.ARRAY(sa.LargeBinary), [(["AP8=", None, "aGk="], [b"\x00\xff", None, b"hi"])]),
    "zoned": (
        sa.Time(timezone=True),
        [
            ("06:30:00.000001Z", time(6, 30, 0, 1, UTC)),
            ("06:30:00-15:59", time(6, 30, tzinfo=timezone(-timedelta(hours=15, minutes=59)))),
        ],
    ),
    "uuids": (sa.ARRAY(sa.Uuid), [([str(ID)], [ID])]),
    "decimals": (sa.ARRAY(sa.Numeric(10, 2)), [(["1.50"], [Decimal("1.50")])]),
    "colours": (sa.ARRAY(sa.Enum(Colour, name="colours")), [(["b", "r"], [Colour.BLUE, Colour.RED])]),
    "spans": (sa.ARRAY(sa.Interval), [(["PT1H"], [timedelta(hours=1)])]),
    "grid": (sa.ARRAY(sa.Integer, dimensions=2), [([[1, 2], [3, None]], [[1, 2], [3, None]])]),
    "any_grid": (sa.ARRAY(sa.Integer), [([1, 2], [1, 2]), ([[1, 2], [3, 4]], [[1, 2], [3, 4]])]),
    "tuples": (sa.ARRAY(sa.Integer, as_tuple=True), [([1, 2], (1, 2))]),
    "jsonb": (pg.JSONB, [({"a": 1}, {"a": 1})]),
    "address": (pg.INET, [("10.0.0.1", None)]),
    "network": (pg.CIDR, [("10.0.0.0/8", None)]),
    "hardware": (pg.MACADDR, [("08:00:2b:01:02:03", None)]),
    "bytea": (pg.BYTEA, [(in_base64(each), each) for each in BYTES]),
    "pg_interval": (pg.INTERVAL, [("P1DT2H", timedelta(days=1, hours=2))]),
}
UNCOMPARED = {"document", "jsonb"}


def columns(*, nullable: bool, dialect: str) -> dict[str, sa.Column[Any]]:
    kinds = TYPES if dialect == "sqlite" else TYPES | POSTGRESQL
    return {name: sa.Column(type_, nullable=nullable) for name, (type_, _) in kinds.items()}


def mapped(dialect: str, nullable: bool) -> type[Any]:
    class Base(DeclarativeBase):
        """A class for one database."""

    name = "loose" if nullable else "strict"
    return type(
        name.title(),
        (Base,),
        {"__tablename__": f"{name}_{dialect}", "id": sa.Column(sa.Integer, primary_key=True)}
        | columns(nullable=nullable, dialect=dialect),
    )


@pytest.fixture(scope="module", params=[True, False], ids=["nullable", "required"])
def model(request: pytest.FixtureRequest, dialect: str) -> type[Any]:
    return mapped(dialect, request.param)


@pytest.fixture(scope="module")
def tables(model: type[Any]) -> sa.MetaData:
    metadata: sa.MetaData = model.metadata
    return metadata


def cells(model: type[Any]) -> Iterator[tuple[str, Any, Any]]:
    kinds = TYPES | POSTGRESQL
    for name, column in model.__table__.columns.items():
        pairs = kinds.get(name, (None, []))[1]
        for sent, stored in pairs if column.nullable else pairs[:1]:  # that it is required makes little difference
            yield name, sent, stored


def row_of(model: type[Any]) -> dict[str, Any]:
    """As much of a row as must be given."""
    required = [name for name, column in model.__table__.columns.items() if not column.nullable and name != "id"]
    return {name: (TYPES | POSTGRESQL)[name][1][0][0] for name in required}


def stored(database: Database, model: type[Any], key: int, name: str) -> Any:
    with Session(database.engine) as session:
        return comparable(getattr(session.get(model, key), name))


def comparable(value: Any) -> Any:
    return bytes(value) if isinstance(value, (memoryview, bytearray)) else value


@pytest.fixture
def api(app: FastAPI, runner: asyncio.Runner, model: type[Any]) -> Api:
    names = [name for name, _ in model.__table__.columns.items() if name not in UNCOMPARED]
    app.include_router(crud_router(model, prefix="/rows", filters=names, sorts=["id"]))
    return Api(app, runner)


def test_what_get_gives_is_what_was_sent_and_patch_takes_it_back(
    api: Api, model: type[Any], database: Database
) -> None:
    whole = row_of(model)
    wrong: list[str] = []

    def check(what: str, found: Any, expected: Any) -> None:
        if what.startswith("decimal_double"):  # drivers differ in how many zeros end it
            found, expected = (Decimal(each) if isinstance(each, str) else each for each in (found, expected))
        if found != expected:
            wrong.append(f"{what}: {found!r} instead of {expected!r}")

    for name, sent, expected in cells(model):
        what = f"{name} {sent!r}"
        answer = api.post("/rows", json={**whole, name: sent})
        if answer.status_code != 201:
            wrong.append(f"{what}: POST {answer.status_code} {answer.text[:200]}")
            continue
        check(f"{what} POST", answer.json()[name], sent)
        path = answer.headers["location"]
        key = int(path.rpartition("/")[2])
        first = stored(database, model, key, name)
        if expected is not None:
            check(f"{what} stored", first, comparable(expected))
        got = api.get(path)
        if got.status_code != 200:
            wrong.append(f"{what}: GET {got.status_code} {got.text[:200]}")
            continue
        check(f"{what} GET", got.json()[name], sent)
        listed = api.get("/rows?per_page=100&sort=-id")
        check(f"{what} list {listed.text[:200] * (listed.status_code > 200)}", listed.json()["items"][0][name], sent)
        writable = {key: value for key, value in got.json().items() if key != "id"}
        patched = api.patch(path, json=writable)
        check(f"{what} PATCH {patched.text[:200]}", patched.status_code, 200)
        check(f"{what} after PATCH", stored(database, model, key, name), first)
        if not isinstance(sent, (dict, list)) and name not in UNCOMPARED:
            found = api.get("/rows", params={name: str(sent), "per_page": 100})
            ids = [row["id"] for row in found.json().get("items", ())]
            if key not in ids:
                wrong.append(f"{what} filter: {found.status_code} {found.text[:200]}")
    assert not wrong, "\n".join(each[:300] for each in wrong[:20])


def test_a_schema_of_the_users_keeps_what_it_says(
    app: FastAPI, runner: asyncio.Runner, database: Database, model: type[Any]
) -> None:
    class Shown(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(from_attributes=True)
        id: int
        binary: bytes | None

    app.include_router(crud_router(model, prefix="/rows", read_schema=Shown))
    api = Api(app, runner)
    answer = api.post("/rows", json={**row_of(model), "binary": "aGVsbG8="})
    assert answer.json()["binary"] == "hello"
    assert stored(database, model, answer.json()["id"], "binary") == b"hello"


def test_openapi_says_that_bytes_are_base64(api: Api, app: FastAPI, model: type[Any]) -> None:
    schemas = app.openapi()["components"]["schemas"]
    for suffix in ("Create", "Update", "Read"):
        found = schemas[f"{model.__name__}{suffix}"]["properties"]["binary"]
        plain = found if "type" in found else found["anyOf"][0]
        assert (plain["type"], plain["contentEncoding"]) == ("string", "base64")


@pytest.mark.parametrize("given", ["a", "%%%%", "aGVsbG8=!", 7])
def test_what_is_no_base64_is_refused_by_name(api: Api, given: Any) -> None:
    answer = api.patch("/rows/1", json={"binary": given})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["body", "binary"]


def test_both_alphabets_are_understood(api: Api, model: type[Any]) -> None:
    path = api.post("/rows", json={**row_of(model), "binary": "-_-_"}).headers["location"]
    assert api.get(path).json()["binary"] == "+/+/"
    for asked in ("binary=%2B/%2B/", "binary=-_-_", "binary=+/+/"):
        assert api.get(f"/rows?{asked}").json()["total"] == 1, asked


KEYS: dict[str, tuple[Any, Any]] = {
    "bytes": (sa.LargeBinary, in_base64(b"\xfb\xff\xbf?")),
    "span": (sa.Interval, "P1DT1H"),
    "moment": (sa.DateTime(timezone=True), "2024-02-29T12:00:00.5Z"),
    "day": (sa.Date, "2024-02-29"),
    "enum": (sa.Enum(Colour, name="key_colour"), "b"),
    "decimal": (sa.Numeric(8, 2), "1.50"),
    "boolean": (sa.Boolean, True),
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_location_leads_to_its_row_whatever_the_keys_type(
    app: FastAPI, runner: asyncio.Runner, database: Database, kind: str
) -> None:
    class Base(DeclarativeBase):
        """A class of its own for each test."""

    type_, sent = KEYS[kind]
    keyed = type("Keyed", (Base,), {"__tablename__": f"by_{kind}", "id": sa.Column(type_, primary_key=True)})
    with created(database, Base.metadata):
        app.include_router(crud_router(keyed, prefix="/keyed"))
        api = Api(app, runner)
        answer = api.post("/keyed", json={"id": sent})
        assert answer.status_code == 201, answer.text
        found = api.get(answer.headers["location"])
        assert (found.status_code, found.json()) == (200, answer.json()), answer.headers["location"]


@contextmanager
def created(database: Database, metadata: sa.MetaData) -> Iterator[None]:
    metadata.create_all(database.engine)
    yield
    metadata.drop_all(database.engine)
