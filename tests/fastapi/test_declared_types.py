"""Converting column types, and what annotations say: over HTTP a value is what Python sees, both ways."""

from __future__ import annotations

import enum
import ipaddress
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import jsonschema_rs
import pydantic
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dotmac_database import Database, UTCDateTime
from dotmac_database_fastapi.fields import text_type
from dotmac_database_fastapi.json_types import json_type
from tests.fastapi.conftest import Api
from tests.fastapi.shared_routers import crud_router


def decorator(
    impl: Any, bind: Callable[[Any], Any] | None, result: Callable[[Any], Any] | None, python: Any = None
) -> Any:
    """A column type that converts."""

    def process_bind_param(_self: Any, value: Any, _dialect: Any) -> Any:
        return None if value is None or bind is None else bind(value)

    def process_result_value(_self: Any, value: Any, _dialect: Any) -> Any:
        return None if value is None or result is None else result(value)

    members: dict[str, Any] = {"impl": impl, "cache_ok": True}
    if bind is not None:
        members["process_bind_param"] = process_bind_param
    if result is not None:
        members["process_result_value"] = process_result_value
    if python is not None:
        members["python_type"] = property(lambda _self: python)
    return type("Converting", (sa.TypeDecorator,), members)


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


@dataclass(frozen=True)
class Point:
    x: int
    y: int


class Opaque:
    """A class that Pydantic does not know."""

    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __str__(self) -> str:
        return f"{self.cents} cents"


class Options(pydantic.BaseModel):
    theme: str = "light"
    since: date | None = None


def cents(python: Any = None) -> Any:
    return decorator(sa.BigInteger, lambda value: int(value * 100), lambda value: Decimal(value) / 100, python)


class Base(DeclarativeBase):
    """Annotations are resolved where their class is."""


class Row(Base):
    __tablename__ = "declared_rows"

    id: Mapped[int] = mapped_column(primary_key=True)
    by_annotation: Mapped[Decimal | None] = mapped_column(cents())
    by_python_type = mapped_column(cents(Decimal), nullable=True)
    key_like: Mapped[UUID | None] = mapped_column(decorator(sa.CHAR(32), lambda value: value.hex, UUID))
    colour: Mapped[Colour | None] = mapped_column(decorator(sa.String(1), lambda value: value.value, Colour))
    words: Mapped[list[str] | None] = mapped_column(decorator(sa.Text, ";".join, lambda value: value.split(";")))
    address: Mapped[ipaddress.IPv4Address | None] = mapped_column(decorator(sa.String(15), str, ipaddress.IPv4Address))
    point: Mapped[Point | None] = mapped_column(
        decorator(sa.String, lambda v: f"{v.x},{v.y}", lambda v: Point(*map(int, v.split(","))))
    )
    raw: Mapped[bytes | None] = mapped_column(decorator(sa.Text, bytes.hex, bytes.fromhex))
    options: Mapped[Options | None] = mapped_column(
        decorator(sa.JSON, lambda value: value.model_dump(mode="json"), Options.model_validate)
    )
    day: Mapped[date | None] = mapped_column(decorator(sa.Integer, date.toordinal, date.fromordinal))
    moment: Mapped[datetime | None] = mapped_column(UTCDateTime)
    only_read: Mapped[float | None] = mapped_column(decorator(sa.Double, None, lambda value: round(value, 1)))
    unsaid = mapped_column(cents(), nullable=True)
    opaque: Mapped[Opaque | None] = mapped_column(decorator(sa.Integer, lambda value: value, Opaque))
    kind: Mapped[Literal["small", "large"] | None] = mapped_column(sa.String(10))
    short: Mapped[Annotated[str, pydantic.Field(min_length=3)] | None] = mapped_column(sa.String(10))
    document: Mapped[dict[str, int] | None] = mapped_column(sa.JSON)


@pytest.fixture(scope="module")
def tables() -> sa.MetaData:
    return Base.metadata


@pytest.fixture(scope="module")
def served(shared_api: Api) -> Api:
    shared_api.app.include_router(crud_router(Row, prefix="/rows"))
    return shared_api


@pytest.fixture
def api(served: Api, emptied: None) -> Api:
    return served


# What is sent and given in JSON, what Python sees, and what is refused.
CASES: dict[str, tuple[Any, Any, list[Any]]] = {
    "by_annotation": ("12.5", Decimal("12.5"), [True, "x", "", [], {}]),
    "by_python_type": ("0.07", Decimal("0.07"), [True, "x", "", [], {}]),
    "key_like": (str(UUID(int=7)), UUID(int=7), ["x", 7, True]),
    "colour": ("b", Colour.BLUE, ["BLUE", 1, "x"]),
    "words": (["a", "b"], ["a", "b"], ["a", 1]),
    "address": ("10.0.0.1", ipaddress.IPv4Address("10.0.0.1"), ["x", "10.0.0", []]),
    "point": ({"x": 1, "y": 2}, Point(1, 2), ["1,2", {"x": 1}]),
    "raw": ("AP8=", b"\x00\xff", ["%", 1]),
    "options": ({"theme": "dark", "since": "2024-05-06"}, Options(theme="dark", since=date(2024, 5, 6)), ["x", []]),
    "day": ("2024-02-29", date(2024, 2, 29), [0, 19000.5, "0.5", "2023-02-29", True]),
    "moment": ("2024-02-29T12:00:00Z", datetime(2024, 2, 29, 12, tzinfo=UTC), [0, "12", True]),
    "only_read": (0.5, 0.5, ["0.5", True, []]),
    "kind": ("small", "small", ["medium", 1]),
    "short": ("abc", "abc", ["ab", "abcdefghijk"]),
    "document": ({"a": 1}, {"a": 1}, [{"a": "x"}, [1]]),
}
FILTERED = ("by_annotation", "by_python_type", "key_like", "colour", "address", "day", "moment", "kind", "short")


@pytest.mark.parametrize("name", CASES)
def test_a_value_goes_both_ways(api: Api, database: Database, name: str) -> None:
    sent, expected, refused = CASES[name]
    created = api.post("/rows", json={name: sent})
    assert created.status_code == 201, created.text
    path = created.headers["location"]
    with Session(database.engine) as session:
        assert getattr(session.get(Row, created.json()["id"]), name) == expected
    shown = [created.json(), api.get(path).json(), api.get("/rows").json()["items"][0]]
    assert [each[name] for each in shown] == [sent] * 3
    written = {key: value for key, value in shown[1].items() if key not in ("id", "unsaid", "opaque")}
    assert api.patch(path, json=written).json()[name] == sent
    for value in refused:
        for answer in (api.post("/rows", json={name: value}), api.patch(path, json={name: value})):
            assert answer.status_code == 422, (value, answer.text)
            assert answer.json()["errors"][0]["loc"][:2] == ["body", name]
    if name in FILTERED:
        assert [row["id"] for row in api.get("/rows", params={name: str(sent)}).json()["items"]] == [shown[0]["id"]]
        assert api.get("/rows", params={f"{name}__in": str(sent)}).json()["total"] == 1


@pytest.mark.parametrize(("name", "shown"), [("unsaid", "0.05"), ("opaque", "5 cents")])
def test_what_nobody_describes_is_shown_as_well_as_it_can(api: Api, database: Database, name: str, shown: str) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text(f"INSERT INTO declared_rows (id, {name}) VALUES (1, 5)"))
    assert api.get("/rows/1").json()[name] == shown
    assert api.get("/rows").json()["items"][0][name] == shown


def test_an_odd_row_takes_no_list_away(api: Api, database: Database) -> None:
    """What was stored before the class said so, or past it."""
    with database.engine.begin() as connection:
        connection.execute(
            sa.text("INSERT INTO declared_rows (id, kind, short, document) VALUES (1, 'old', '', '[1]')")
        )
    row = api.get("/rows").json()["items"][0]
    assert (row["kind"], row["short"], row["document"]) == ("old", "", [1])


def test_openapi_says_what_is_taken_and_given(api: Api) -> None:
    schemas = api.app.openapi()["components"]["schemas"]

    def said(suffix: str, name: str) -> Any:
        return schemas[f"Row{suffix}"]["properties"][name]["anyOf"][0]

    for suffix in ("Create", "Update", "Read"):
        assert said(suffix, "day") == {"type": "string", "format": "date"}
        assert said(suffix, "key_like") == {"type": "string", "format": "uuid"}
        assert said(suffix, "kind") == {"type": "string", "enum": ["small", "large"]}
        assert said(suffix, "raw")["contentEncoding"] == "base64"
        assert said(suffix, "moment") == {"type": "string", "format": "date-time"}
    assert said("Read", "by_annotation")["type"] == "string"
    assert {"type": "number"} in schemas["RowCreate"]["properties"]["by_annotation"]["anyOf"]


@pytest.mark.parametrize(
    ("type_", "taken", "refused"),
    [
        (sa.Numeric(400), [0, "9" * 300], [True]),
        (sa.Numeric(2, 2), [0.99, "0.99", -0.5], [1, "1", "1.00"]),
        (sa.Numeric(20, 4), ["9999999999999999.9999", 9999999999999998.0], [1e16, "10000000000000000"]),
        (sa.Numeric(8, 3, asdecimal=False), [99999.999, -1], [100000, 1e300, "1"]),
        (sa.BigInteger(), [2**63 - 1, -(2**63), 5.0], [2**63, 1e300, "5", True]),
        (sa.SmallInteger(), [32767], [32768, -32769]),
        (sa.Time(), ["06:30:00"], ["06:30:00Z", "06:30:00+02:00", 5, "5"]),
        (sa.Enum(Colour), ["r"], [True, "RED"]),
        (sa.Enum(enum.Enum("Level", {"LOW": 1, "HIGH": 2}), name="level"), [1], [True, 3]),
        (sa.Interval(), ["P1D", "-PT1H"], [5, "5", True]),
        (sa.Boolean(), [True], [1, 0, "true"]),
    ],
    ids=str,
)
def test_the_bounds_of_a_column_are_enforced_and_documented(type_: Any, taken: list[Any], refused: list[Any]) -> None:
    annotation = json_type(type_, written=True)
    adapter = pydantic.TypeAdapter(annotation)
    json.dumps(adapter.json_schema(), allow_nan=False)
    for value in taken:
        adapter.validate_python(value)
    for value in refused:
        with pytest.raises(pydantic.ValidationError):
            adapter.validate_python(value)


class Coloured(DeclarativeBase):
    """Enums within other types."""


class Palette(Coloured):
    __tablename__ = "palettes"

    id: Mapped[int] = mapped_column(primary_key=True)
    listed: Mapped[list[Colour] | None] = mapped_column(sa.ARRAY(sa.Enum(Colour)))
    grid: Mapped[list[Colour] | None] = mapped_column(sa.ARRAY(sa.Enum(Colour), dimensions=2))
    unsaid = mapped_column(decorator(sa.Enum(Colour), lambda value: value, lambda value: value))
    one_of: Mapped[Annotated[Colour, pydantic.Field(description="It is one.")] | None] = mapped_column(sa.Enum(Colour))


def test_every_reference_of_the_document_leads_somewhere(app: FastAPI) -> None:
    app.include_router(crud_router(Palette, prefix="/palettes"))
    app.include_router(crud_router(Row, prefix="/rows"))
    document = app.openapi()
    found = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)))
    assert "#/components/schemas/Colour" in found
    for reference in found:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def numbers_at(bound: float) -> list[float]:
    """The doubles nearest to a bound, and to its negative."""
    near = [bound, math.nextafter(bound, 0), math.nextafter(bound, math.inf)]
    return [*near, *(-each for each in near)]


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        (sa.Numeric(6, 0), numbers_at(999_999.5)),
        (sa.Numeric(10, 4), numbers_at(999_999.99995)),
        (sa.Numeric(10, 2), numbers_at(99_999_999.995)),
        (sa.Numeric(15, 0), numbers_at(999_999_999_999_999.5)),
        (sa.Numeric(17, 3), numbers_at(99_999_999_999_999.9995)),
        (sa.Numeric(20, 4), numbers_at(1e16)),
        (sa.Numeric(38, 10), numbers_at(1e28)),
        (sa.Numeric(3, 3), numbers_at(0.9995)),
        (sa.Numeric(10, 4, asdecimal=False), numbers_at(999_999.99995)),
        (
            sa.Time(timezone=True),
            ["01:45:35Z", "01:45:35.674622-15:59", "01:45:35-16:00", "01:45:35+22:12", "24:00:00Z"],
        ),
    ],
    ids=str,
)
def test_the_document_allows_what_is_taken_at_the_very_edges(type_: Any, values: list[Any]) -> None:
    adapter = pydantic.TypeAdapter(json_type(type_, written=True))
    document = jsonschema_rs.validator_for(adapter.json_schema())

    def is_taken(value: Any) -> bool:
        try:
            adapter.validate_python(value)
        except pydantic.ValidationError:
            return False
        return True

    assert {value: is_taken(value) for value in values} == {value: document.is_valid(value) for value in values}
    assert {True, False} == {document.is_valid(value) for value in values}


@pytest.mark.parametrize(
    "span",
    [
        "PT0S",
        "P999999DT999999H999999M99999999.999999S",
        "-P599999DT999999H999999M99999999.999999S",
        "PT999999H99999999S",
        "-PT999999M",
        "PT99999999.999999S",
    ],
)
def test_the_longest_durations_of_the_document_are_taken(span: str) -> None:
    adapter = pydantic.TypeAdapter(json_type(sa.Interval(), written=True))
    assert jsonschema_rs.validator_for(adapter.json_schema()).is_valid(span)
    assert isinstance(adapter.validate_python(span), timedelta)


@pytest.mark.parametrize(
    "span", ["PT1000000H", "PT1000000M", "PT100000000S", "P1000000D", "-P736637D", "PT9983699H", "P", "PT"]
)
def test_no_longer_ones_are_documented(span: str) -> None:
    adapter = pydantic.TypeAdapter(json_type(sa.Interval(), written=True))
    assert not jsonschema_rs.validator_for(adapter.json_schema()).is_valid(span)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("06:30:00+02:00", "06:30:00+02:00"),
        ("06:30:00 02:00", "06:30:00+02:00"),
        ("06:30:00", "06:30:00+00:00"),
        ("06:30", "06:30:00+00:00"),
        ("06:30-15:59", "06:30:00-15:59"),
        ("06:30:00-16:00", None),
        ("06:30:00+22:12", None),
    ],
)
def test_a_time_with_a_zone_in_a_query_string(given: str, read: str | None) -> None:
    adapter = pydantic.TypeAdapter(text_type(sa.Time(timezone=True)))
    if read is None:
        with pytest.raises(pydantic.ValidationError, match="less than 16 hours from UTC"):
            adapter.validate_python(given)
    else:
        assert adapter.validate_python(given) == time.fromisoformat(read)
