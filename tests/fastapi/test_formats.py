"""Which format of a list the Accept header prefers, and how rows become CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, TypeAdapter, computed_field
from starlette.requests import HTTPConnection
from typing_extensions import TypedDict

from dotmac_database import traits_of
from dotmac_database_fastapi.csv_rows import CsvRows, columns_of
from dotmac_database_fastapi.formats import FORMATS, preferred_format
from tests.models import Post

JSON = None
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"

ACCEPTED: list[tuple[list[str], Any]] = [
    ([], JSON),
    ([""], JSON),
    (["*/*"], JSON),
    ([BROWSER], JSON),
    (["application/json"], JSON),
    (["application/json, text/plain, */*"], JSON),
    (["application/*"], JSON),
    (["text/csv"], "csv"),
    (["TEXT/CSV"], "csv"),
    (["text/csv; charset=utf-8"], "csv"),
    (["text/csv;q=1.000"], "csv"),
    (["text/*"], "csv"),
    (["application/x-ndjson"], "ndjson"),
    (["application/x-ndjson, application/*"], "ndjson"),
    (["text/csv, */*"], "csv"),
    (["text/csv, application/json"], JSON),
    (["application/json, text/csv"], JSON),
    (["application/json;q=0.9, text/csv"], "csv"),
    (["application/json;q=0.5 , text/csv; q=0.4,application/x-ndjson ;q=0.6"], "ndjson"),
    (["text/csv, application/x-ndjson"], "csv"),
    (["application/x-ndjson, text/csv;q=0.9"], "ndjson"),
    (["text/csv;q=0.5, */*"], JSON),
    (["text/csv;q=0"], JSON),
    (["text/csv;q=0.0, text/*"], JSON),
    (["text/csv;q=0, */*"], JSON),
    (["*/*, text/csv;Q=0.000"], JSON),
    (["application/json;q=0, */*;q=0.1"], "csv"),
    (["application/json;q=0, text/csv;q=0, */*;q=0.1"], "ndjson"),
    (["application/xml"], JSON),
    (["text/html", "text/csv"], "csv"),
    (["text/csv;q=0.1", "application/json;q=0.2"], JSON),
    (['text/html;x="a, text/csv"'], JSON),
    (['text/html;x="a\\", text/csv", application/x-ndjson'], "ndjson"),
    (['text/csv;x="a;q=0"'], "csv"),
    (['text/csv;x="a";q=0'], JSON),
    (["text/csv;q=2, application/x-ndjson;q=0.1"], "ndjson"),
    (["text/csv;q=high"], JSON),
    (["text/csv;q=-1"], JSON),
    (["text/csv;q=0.1234"], JSON),
    (["text/csv;q="], JSON),
    (["text", ",,;,", "/", "*", '"'], JSON),
    (["text/csvx, xtext/csv, text/cs"], JSON),
    (["text/csv," + "x" * 1000], "csv"),
]


@pytest.mark.parametrize(("accept", "expected"), ACCEPTED, ids=[str(each[0])[:40] for each in ACCEPTED])
def test_the_preferred_format(accept: list[str], expected: Any) -> None:
    headers = [(b"accept", each.encode()) for each in accept] + [(b"accept-encoding", b"text/csv")]
    connection = HTTPConnection({"type": "http", "headers": headers})
    for _ in range(2):  # also from the cache
        assert preferred_format(connection, FORMATS) == expected


@pytest.mark.parametrize("accept", [b"text/csv", b"text/csv, application/x-ndjson"])
def test_a_format_that_is_not_offered(accept: bytes) -> None:
    connection = HTTPConnection({"type": "http", "headers": [(b"accept", accept)]})
    assert preferred_format(connection, ()) is None
    assert preferred_format(connection, ("ndjson",)) == ("ndjson" if b"ndjson" in accept else None)


CELLS: list[tuple[Any, str]] = [
    (None, ""),
    ("", ""),
    (True, "true"),
    (False, "false"),
    (-1, "-1"),
    (2**70, str(2**70)),
    (-1.5, "-1.5"),
    (float("nan"), ""),
    (float("-inf"), ""),
    ("plain", "plain"),
    ("é", "é"),
    ("a,b", '"a,b"'),
    ('say "x"', '"say ""x"""'),
    ("one\ntwo", '"one\ntwo"'),
    ("one\r\ntwo", '"one\r\ntwo"'),
    ("=1+1", "'=1+1"),
    ("+1", "'+1"),
    ("-1", "'-1"),
    ("@SUM(A1)", "'@SUM(A1)"),
    ("\t=1", "'\t=1"),
    ("\r=1", '"\'\r=1"'),
    ("\n=1", '"\'\n=1"'),
    ('="a"', '"\'=""a"""'),
    ("a=1", "a=1"),
    (" =1", " =1"),
    ("'=1", "'=1"),
    ([1, "-x"], '"[1,""-x""]"'),
    ([], "[]"),
    ({"a": None}, '"{""a"":null}"'),
]


@pytest.mark.parametrize(("value", "cell"), CELLS)
def test_a_cell(value: Any, cell: str) -> None:
    rows = CsvRows({"x": False, "y": False})
    assert rows.lines([{"x": value, "y": 0}]) == f"{cell},0\r\n".encode()
    if cell.lstrip('"').startswith("'") and not value.startswith("'"):
        with_formulas = CsvRows({"x": False}, formulas=True).lines([{"x": value}]).decode()
        assert next(csv.reader(io.StringIO(with_formulas, newline=""))) == [value]


@pytest.mark.parametrize("text", ["-1.50", "+1", "-1E+3", "-0"])
def test_a_decimal_is_a_number(text: str) -> None:
    assert CsvRows({"x": True}).lines([{"x": text}]) == f"{text}\r\n".encode()


@pytest.mark.parametrize("text", ["-1+1", "-", "=1", "-1\n", "-A1", "+-1"])
def test_other_texts_of_a_decimal_column_are_not(text: str) -> None:
    assert b"'" in CsvRows({"x": True}).lines([{"x": text}])


def test_the_header_is_quoted_where_that_is_needed() -> None:
    assert CsvRows({"a": False, 'b,"c"': False}).header == b'a,"b,""c"""\r\n'


class Line(BaseModel):
    model_config = ConfigDict(from_attributes=True, alias_generator=lambda name: name.upper())

    id: int
    words: int | None = Field(serialization_alias="how many")
    hidden: str = Field(exclude=True)
    author: Any
    written: list[Any] = Field(validation_alias="replies")
    prices: dict[str, Decimal | None] = {}

    @computed_field  # type: ignore[prop-decorator]  # as Pydantic documents it
    @property
    def price(self) -> Decimal:
        return Decimal(1)


class Typed(TypedDict):
    id: int
    author: Any
    price: Decimal


@dataclasses.dataclass
class Plain:
    id: int
    tags: list[Any]


COLUMNS: list[tuple[Any, dict[str, bool]]] = [
    (Line, {"ID": False, "how many": False, "PRICES": True, "PRICE": True}),
    (Typed, {"id": False, "price": True}),
    (Plain, {"id": False}),
    (RootModel[dict[str, int]], {}),
    (dict[str, int], {}),
]


@pytest.mark.parametrize(("schema", "columns"), COLUMNS)
def test_the_columns_are_the_fields_in_json_without_relationships(schema: Any, columns: dict[str, bool]) -> None:
    assert columns_of(traits_of(Post), schema) == columns


def test_the_columns_of_a_schema_are_the_names_of_its_json() -> None:
    row = Line(ID=1, WORDS=2, HIDDEN="x", AUTHOR=None, replies=[])  # type: ignore[call-arg]  # the aliases are made
    written = TypeAdapter(Line).dump_python(row, mode="json", by_alias=True)
    assert columns_of(traits_of(Post), Line).keys() == written.keys() - {"AUTHOR", "WRITTEN"}
