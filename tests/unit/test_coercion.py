"""Values become their column's Python type, or are refused with what was expected."""

from __future__ import annotations

import enum
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import types as sa

from dotmac_database.statements.coercion import coercer, json_text
from dotmac_database.types import UTCDateTime
from tests.models import Status

ID = UUID("12345678-1234-5678-1234-567812345678")
EAST = timezone(timedelta(hours=2))


class Colour(enum.StrEnum):
    RED = "r"


GOOD: list[tuple[sa.TypeEngine[Any], Any, Any]] = [
    (sa.Integer(), 5, 5),
    (sa.Integer(), " +5 ", 5),
    (sa.Integer(), 5.0, 5),
    (sa.Integer(), Decimal("5.00"), 5),
    (sa.Integer(), 2**31 - 1, 2**31 - 1),
    (sa.Integer(), -(2**31), -(2**31)),
    (sa.BigInteger(), 2**63 - 1, 2**63 - 1),
    (sa.SmallInteger(), "-32768", -32768),
    (sa.Float(), "1e3", 1000.0),
    (sa.Float(), 1, 1.0),
    (sa.Float(), math.inf, math.inf),
    (sa.Numeric(12, 2), 0.1, Decimal("0.1")),
    (sa.Numeric(12, 2), "1.005", Decimal("1.005")),
    (sa.Numeric(12, 2, asdecimal=False), "1.5", 1.5),
    (sa.Boolean(), "Yes", True),
    (sa.Boolean(), "0", False),
    (sa.Boolean(), 1, True),
    (sa.Uuid(), str(ID), ID),
    (sa.Uuid(), ID.hex.upper(), ID),
    (sa.Uuid(as_uuid=False), ID, str(ID)),
    (sa.Uuid(as_uuid=False), ID.hex, str(ID)),
    (sa.String(3), "longer than three", "longer than three"),
    (sa.String(), 5, "5"),
    (sa.String(), ID, str(ID)),
    (sa.String(), Colour.RED, "r"),
    (sa.Enum(Status), "active", Status.ACTIVE),
    (sa.Enum(Status), "ACTIVE", Status.ACTIVE),
    (sa.Enum(Status), Status.NEW, Status.NEW),
    (sa.Enum("x", "y"), "y", "y"),
    (sa.DateTime(timezone=True), "2024-01-01", datetime(2024, 1, 1, tzinfo=UTC)),
    (sa.DateTime(timezone=True), date(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC)),
    (sa.DateTime(timezone=True), "2024-01-01T02:00:00+02:00", datetime(2024, 1, 1, tzinfo=UTC)),
    (sa.DateTime(timezone=True), " 2024-01-01T00:00:00.000001Z ", datetime(2024, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
    (sa.DateTime(), datetime(2024, 1, 1, 2, tzinfo=EAST), datetime(2024, 1, 1)),  # noqa: DTZ001 - the column is naive
    (UTCDateTime(), "2024-01-01", datetime(2024, 1, 1, tzinfo=UTC)),
    (sa.Date(), "2024-02-29", date(2024, 2, 29)),
    (sa.Date(), datetime(2024, 2, 29, tzinfo=UTC), date(2024, 2, 29)),
    (sa.Time(), "06:30", time(6, 30)),
    (sa.Interval(), 1.5, timedelta(seconds=1.5)),
    (sa.LargeBinary(), bytearray(b"a"), b"a"),
    (sa.JSON(), {"a": [1, None]}, {"a": [1, None]}),
    (sa.ARRAY(sa.Integer), ["1", None, 2], [1, None, 2]),
]

BAD: list[tuple[sa.TypeEngine[Any], list[Any], str]] = [
    (
        sa.Integer(),
        ["", "x", "1.5", "1e3", 1.5, True, None, [], "٣", math.nan, math.inf, Decimal("sNaN")],
        "an integer",
    ),
    (sa.Integer(), [2**31, "9" * 30, 1e300], "32 bits"),
    (sa.BigInteger(), [2**63, -(2**63) - 1, 10**5000], "64 bits"),
    (sa.Float(), ["", "x", True, {}, 10**400], "a number"),
    (sa.Float(), [math.nan, "nan", Decimal("NaN")], "NaN"),
    (sa.Numeric(12, 2), ["x", True, [], b"1"], "a number"),
    (sa.Numeric(12, 2), [math.inf, math.nan, "Infinity", Decimal("NaN"), Decimal("sNaN")], "finite"),
    (sa.Numeric(12, 2), ["1e99999", Decimal("1e-99999"), 10**1500], "sensible"),
    (sa.Boolean(), ["", "maybe", 2, 1.0, None, []], "true or false"),
    (sa.Uuid(), ["", "x", str(ID)[:-1], 1, ID.bytes], "a UUID"),
    (sa.String(), [None, True, b"a", [], {}, object()], "text"),
    (sa.String(), ["a\x00"], "NUL"),
    (sa.String(), ["\ud800"], "surrogates"),
    (sa.Enum(Status), ["Active", "", 1, None, [], {}, "__class__", "name"], "one of new, active, closed"),
    (sa.Enum("x", "y"), ["z", 1, []], "one of x, y"),
    (sa.DateTime(timezone=True), ["", "2024-13-01", "yesterday", "12", "\x00"], "ISO 8601 timestamp"),
    (sa.DateTime(timezone=True), [1, 1.5, time(1), None, []], "a timestamp"),
    (sa.DateTime(timezone=True), ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"], "years 1 and 9999"),
    (sa.Date(), ["x", 1], "ISO 8601"),
    (sa.Date(), [datetime(2024, 1, 1, 1, tzinfo=UTC), "2024-01-01T01:00"], "ISO 8601 date"),
    (sa.Time(), ["25:00", "", 1, date(2024, 1, 1)], "time"),
    (sa.Interval(), ["1 day", True, None, []], "a duration"),
    (sa.Interval(), [1e300, math.nan, math.inf], "seconds"),
    (sa.Interval(), [timedelta.max, timedelta.min], "calendar"),
    (sa.LargeBinary(), ["text", 5, None, [1]], "bytes"),
    (sa.JSON(), [{1, 2}, object(), math.nan, {"a": b""}, "\ud800", {"\ud800": 1}], "a JSON value"),
    (sa.JSON(), ["\x00", {"a": ["\x00"]}, {"\x00": 1}], "NUL"),
    (sa.ARRAY(sa.Integer), ["12", b"12", {}, 1], "a list"),
    (sa.ARRAY(sa.Integer), [["x"], [1.5]], "an integer"),
]


@pytest.mark.parametrize(("type_", "value", "expected"), GOOD)
def test_a_value_becomes_its_columns_type(type_: sa.TypeEngine[Any], value: Any, expected: Any) -> None:
    made = coercer(type_)(value)
    assert made == expected
    assert type(made) is type(expected)


@pytest.mark.parametrize(
    ("type_", "values", "expected"), BAD, ids=[f"{type_}-{expected}" for type_, _, expected in BAD]
)
def test_what_does_not_fit_is_refused_with_what_was_expected(
    type_: sa.TypeEngine[Any], values: list[Any], expected: str
) -> None:
    for value in values:
        with pytest.raises(ValueError, match=expected):
            coercer(type_)(value)


def test_storing_holds_to_length_and_scale() -> None:
    with pytest.raises(ValueError, match="at most 3 characters"):
        coercer(sa.String(3), storing=True)("four")
    decimals = coercer(sa.Numeric(4, 2), storing=True)
    assert [decimals(each) for each in ("1.005", "-1.005", 99.994)] == [
        Decimal("1.01"),
        Decimal("-1.01"),
        Decimal("99.99"),
    ]
    for value in (100, "99.995", 10**30):
        with pytest.raises(ValueError, match="at most 4 digits, 2 after the point"):
            decimals(value)


def test_a_decorator_that_converts_is_left_alone_and_a_plain_one_is_its_impl() -> None:
    class Plain(sa.TypeDecorator[int]):
        impl = sa.Integer
        cache_ok = True

    class Converting(Plain):
        def process_bind_param(self, value: Any, dialect: Any) -> Any:
            return value

    assert coercer(Plain())("5") == 5
    assert coercer(Converting())("5") == "5"


def test_deep_json_is_refused_not_a_crash() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueError, match="a JSON value"):
        json_text(value)
    while value:  # taken apart piece by piece: freeing it whole would recurse
        value = value.pop()


ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.decimals(),
        st.text(),
        st.characters(),
        st.binary(),
        st.datetimes(),
        st.dates(),
        st.times(),
        st.timedeltas(),
        st.uuids(),
        st.sampled_from(Status),
        st.complex_numbers(),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)


@given(st.sampled_from([type_ for type_, _, _ in GOOD]), ANYTHING, st.booleans())
def test_nothing_but_a_value_error_leaves_and_what_is_coerced_stays(
    type_: sa.TypeEngine[Any], value: Any, storing: bool
) -> None:
    coerce = coercer(type_, storing=storing)
    try:
        once = coerce(value)
    except ValueError:
        return
    assert coerce(once) == once
