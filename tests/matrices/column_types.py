"""The column types of the type matrix: types of SQLAlchemy, of the dialects, of SQLModel, and of users."""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import total_ordering
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.dialects import sqlite
from sqlmodel.sql.sqltypes import AutoString

from dotmac_database import UTCDateTime

SQLITE, POSTGRESQL = "sqlite", "postgresql"
BOTH = (SQLITE, POSTGRESQL)


@dataclass(frozen=True)
class Kind:
    """A column type with ``values`` to store, and ``raw`` SQL that stores other forms of such values.

    ``sorts``: rows can be sorted by the column. ``ranges``: Python and the database order the values in the same way.
    ``equals``: the column can be filtered by ``eq``. ``lists``: it can be filtered by ``in``. ``routes``: the generated
    routes can show it.
    """

    name: str
    type: Callable[[], Any]
    values: tuple[Any, ...]
    raw: tuple[str, ...] = ()
    on: tuple[str, ...] = BOTH
    sorts: bool = True
    ranges: bool = True
    equals: bool = True
    lists: bool = True
    routes: bool = True

    def __repr__(self) -> str:
        return self.name


class Color(enum.Enum):
    """An enum with members that are not declared in alphabetical order, and with values that differ from the names."""

    RED = "r"
    BLUE = "b"
    GREEN = "g"


class Level(enum.IntEnum):
    """An enum of numbers."""

    LOW = 10
    HIGH = 2


def _values(members: type[enum.Enum]) -> list[str]:
    return [str(member.value) for member in members]


@total_ordering
class Money:
    """An amount of money as an object of the user's own class."""

    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and self.cents == other.cents

    def __lt__(self, other: Money) -> bool:
        return self.cents < other.cents

    def __hash__(self) -> int:
        return hash(self.cents)

    def __repr__(self) -> str:
        return f"Money({self.cents})"


class MoneyInCents(sa.TypeDecorator[Money]):
    """`Money` that is stored as an integer."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.cents

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else Money(value)


class MoneyAsText(MoneyInCents):
    """`Money` that is stored as text of fixed length."""

    impl = sa.String(20)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else f"{value.cents:010d} EUR"

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else Money(int(value.partition(" ")[0]))


class MoneyAsNumber(MoneyInCents):
    """`Money` that is stored as a decimal number."""

    impl = sa.Numeric(12, 2)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else Decimal(value.cents) / 100

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else Money(int(value * 100))


class Stripped(sa.TypeDecorator[str]):
    """Text that loses the spaces around it when it is read."""

    impl = sa.String(40)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.strip()


class Lowered(Stripped):
    """Text that is stored and read in lower case."""

    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.lower()

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.lower()


class Rounded(sa.TypeDecorator[float]):
    """A number that is rounded to two decimal places when it is read."""

    impl = sa.Double
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else round(value, 2)


class Minutes(sa.TypeDecorator[datetime]):
    """A timestamp that loses its seconds when it is read."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.replace(second=0, microsecond=0)


class Passed(sa.TypeDecorator[datetime]):
    """A type decorator that changes nothing."""

    impl = sa.DateTime
    cache_ok = True


class Guid(sa.TypeDecorator[UUID]):
    """The old recipe in SQLAlchemy's documentation: UUID on PostgreSQL, 32 characters on other databases."""

    impl = sa.CHAR(32)
    cache_ok = True

    def load_dialect_impl(self, dialect: Any) -> Any:
        return dialect.type_descriptor(pg.UUID() if dialect.name == POSTGRESQL else sa.CHAR(32))

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        if value is None or dialect.name == POSTGRESQL:
            return value
        return value.hex

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return value if value is None or isinstance(value, UUID) else UUID(value)


class Address(sa.TypeDecorator[Any]):
    """An IP address object that is stored as text."""

    impl = sa.String(45)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else ipaddress.ip_address(value)


class Point(sa.types.UserDefinedType[Any]):
    """A user-defined type: two numbers that are stored as text."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "VARCHAR(40)"

    def bind_processor(self, dialect: Any) -> Any:
        return lambda value: None if value is None else f"{value[0]:05d},{value[1]:05d}"

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        return lambda value: None if value is None else tuple(map(int, value.split(",")))


_AWARE = tuple(datetime(2024, 5, 6, *clock, tzinfo=UTC) for clock in ((7, 8, 9), (7, 8, 9, 120000), (0, 0)))
_MOMENTS = tuple(each.replace(tzinfo=None) for each in _AWARE)
_SQLITE_MOMENTS = ("'2024-05-06 07:08:09'", "'2024-05-06 07:08:09.120'", "'2024-05-06 00:00:00'", "CURRENT_TIMESTAMP")
_TIMES = (time(7, 8, 9), time(7, 8, 9, 120000), time(0, 0))
_FLOATS = (0.1, 1 / 3, 2.5, 1e10 / 3, -0.7)
_DECIMALS = (Decimal("0.10"), Decimal("12.34"), Decimal("-5.00"), Decimal("999.99"))
_WORDS = ("ab", "abc", "zz", "ab ")
_UUIDS = (UUID(int=5), UUID(int=2**127 + 3), UUID(int=77))
_BYTES = (b"\x00\xff", b"text", b"\x80\x81\x82")
_SPANS = (timedelta(seconds=5), timedelta(days=400, microseconds=3), timedelta(0))
_DATES = (date(2024, 5, 6), date(1999, 12, 31), date(2024, 2, 29))


def _both() -> Iterable[Kind]:
    for name, make in (
        ("string", lambda: sa.String(20)), ("text", sa.Text), ("unicode", lambda: sa.Unicode(20)),
        ("unicode_text", sa.UnicodeText), ("varchar", lambda: sa.VARCHAR(20)), ("nvarchar", lambda: sa.NVARCHAR(20)),
        ("auto_string", AutoString), ("clob", sa.CLOB),
    ):  # fmt: skip
        on = (SQLITE,) if name in ("nvarchar", "clob") else BOTH
        yield Kind(name, make, _WORDS, on=on)
    yield Kind("char", lambda: sa.CHAR(5), ("ab", "abc", "zz", "abcde"))
    yield Kind("nchar", lambda: sa.NCHAR(5), ("ab", "abc", "zz", "abcde"), on=(SQLITE,))
    for name, make in (
        ("integer", sa.Integer), ("big_integer", sa.BigInteger), ("small_integer", sa.SmallInteger),
    ):  # fmt: skip
        yield Kind(name, make, (3, -2, 300, 0))
    yield Kind("big_numbers", sa.BigInteger, (2**62, 2**53 + 1, -(2**63)), routes=False)
    yield Kind("boolean", sa.Boolean, (True, False))
    yield Kind("float", sa.Float, (*_FLOATS, float("inf")), ("1.0/3", "'1e300'"), routes=False)
    yield Kind("double", sa.Double, _FLOATS)
    yield Kind("real", sa.REAL, _FLOATS, ("1.0/3",))
    yield Kind("float24", lambda: sa.Float(24), _FLOATS, ("1.0/3",))
    yield Kind("float53", lambda: sa.Float(53), _FLOATS, ("1.0/3",))
    yield Kind("numeric_rounded", lambda: sa.Numeric(10, 2), _DECIMALS, ("1.0/3", "2.0/3"), (SQLITE,))
    yield Kind("float_decimal", lambda: sa.Float(asdecimal=True), _DECIMALS, ("1.0/3", "2.0/3"))
    yield Kind("float24_decimal", lambda: sa.Float(24, asdecimal=True), _DECIMALS, ("1.0/3", "2.0/3"))
    yield Kind("numeric", sa.Numeric, (*_DECIMALS, Decimal("0.12345678901234")), ("1.0/3", "2.0/3", "100000.0/3"))
    yield Kind("numeric_scaled", lambda: sa.Numeric(10, 2), _DECIMALS)
    yield Kind("decimal_scaled", lambda: sa.DECIMAL(14, 6), _DECIMALS)
    yield Kind("numeric_whole", lambda: sa.Numeric(12), (Decimal(5), Decimal(-3), Decimal(10**11)))
    yield Kind("numeric_float", lambda: sa.Numeric(asdecimal=False), _FLOATS, ("1.0/3", "2.0/3"))
    yield Kind("numeric_scaled_float", lambda: sa.Numeric(14, 4, asdecimal=False), (0.1, 12.34, -5.0))
    yield Kind("uuid", sa.Uuid, _UUIDS, ranges=False)
    yield Kind("uuid_text", lambda: sa.Uuid(as_uuid=False), tuple(map(str, _UUIDS)), ranges=False)
    yield Kind("uuid_characters", lambda: sa.Uuid(native_uuid=False), _UUIDS, ranges=False)
    yield Kind("date", sa.Date, _DATES, ("CURRENT_DATE",))
    yield Kind("interval", sa.Interval, _SPANS)
    yield Kind("interval_of_dates", lambda: sa.Interval(native=False), _SPANS)
    yield Kind("large_binary", sa.LargeBinary, _BYTES, sorts=False)
    yield Kind("json", sa.JSON, ({"a": 1}, [1, "x"], "text", 5), sorts=False, equals=False)
    yield Kind("json_variant", lambda: sa.JSON().with_variant(pg.JSONB(), POSTGRESQL), ({"a": 1}, [1]), sorts=False,
               equals=False)  # fmt: skip
    yield Kind("pickle", sa.PickleType, ({"a": (1, 2)}, ["x"]), ranges=False, routes=False)


def _moments() -> Iterable[Kind]:
    for on, raw, times in (
        ((SQLITE,), _SQLITE_MOMENTS, ("'07:08:09'", "CURRENT_TIME")),
        ((POSTGRESQL,), ("timestamp '2024-05-06 07:08:09.12'", "localtimestamp"), ("time '07:08:09'",)),
    ):
        end = "" if on == (SQLITE,) else "_pg"
        yield Kind(f"datetime{end}", sa.DateTime, _MOMENTS, raw, on)
        yield Kind(f"datetime_aware{end}", lambda: sa.DateTime(timezone=True), _AWARE, raw, on)
        yield Kind(f"timestamp{end}", sa.TIMESTAMP, _MOMENTS, raw, on)
        yield Kind(f"utc{end}", UTCDateTime, _AWARE, raw, on)
        yield Kind(f"minutes{end}", Minutes, _MOMENTS, raw, on, equals=False, routes=False)
        yield Kind(f"passed{end}", Passed, _MOMENTS, raw, on)
        yield Kind(f"time{end}", sa.Time, _TIMES, times, on)


def _enums() -> Iterable[Kind]:
    members = tuple(Color)
    for native in (True, False):
        end = "" if native else "_text"
        yield Kind(f"enum{end}", lambda n=native: sa.Enum(Color, native_enum=n, name="color_by_name"), members,
                   ranges=False)  # fmt: skip
        yield Kind(f"enum_by_value{end}",
                   lambda n=native: sa.Enum(Color, native_enum=n, values_callable=_values, name="color_by_value"),
                   members, ranges=False)  # fmt: skip
        yield Kind(f"enum_words{end}", lambda n=native: sa.Enum("zz", "aa", "mm", native_enum=n, name="words"),
                   ("zz", "aa", "mm"), ranges=False)  # fmt: skip
        yield Kind(f"enum_of_int{end}", lambda n=native: sa.Enum(Level, native_enum=n, name="level"), tuple(Level),
                   ranges=False)  # fmt: skip


def _decorators() -> Iterable[Kind]:
    amounts = (Money(5), Money(1234), Money(99))
    yield Kind("money", MoneyInCents, amounts, routes=False)
    yield Kind("money_text", MoneyAsText, amounts, routes=False)
    yield Kind("money_number", MoneyAsNumber, amounts, routes=False)
    yield Kind("stripped", Stripped, (" ab", "ab", "b ", "a"), equals=False, ranges=False, routes=False)
    yield Kind("lowered", Lowered, ("Ab", "ab", "b"))
    yield Kind("rounded", Rounded, (0.123, 0.124, 0.5), equals=False, ranges=False, routes=False)
    yield Kind("guid", Guid, _UUIDS, ranges=False, routes=False)
    yield Kind("address", Address, tuple(map(ipaddress.ip_address, ("10.0.0.1", "10.0.0.2", "9.9.9.9"))),
               ranges=False, routes=False)  # fmt: skip
    yield Kind("point", Point, ((1, 2), (30, 4), (5, 6)), routes=False)


def _sqlite() -> Iterable[Kind]:
    def kind(name: str, make: Callable[[], Any], values: tuple[Any, ...], raw: tuple[str, ...] = ()) -> Kind:
        return Kind(f"sqlite_{name}", make, values, raw, (SQLITE,))

    compact = "%(year)04d%(month)02d%(day)02d%(hour)02d%(minute)02d%(second)02d"
    yield kind("datetime", sqlite.DATETIME, _MOMENTS, _SQLITE_MOMENTS)
    yield kind("datetime_short", lambda: sqlite.DATETIME(truncate_microseconds=True), (_MOMENTS[0], _MOMENTS[2]),
               ("'2024-05-06 07:08:09.000000'", "CURRENT_TIMESTAMP"))  # fmt: skip
    yield kind("datetime_compact",
               lambda: sqlite.DATETIME(storage_format=compact, regexp=r"(\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})"),
               (_MOMENTS[0], _MOMENTS[2]))  # fmt: skip
    yield kind("date", sqlite.DATE, _DATES)
    yield kind("date_compact", lambda: sqlite.DATE(storage_format="%(year)04d%(month)02d%(day)02d",
                                                   regexp=r"(\d{4})(\d{2})(\d{2})"), _DATES)  # fmt: skip
    yield kind("time", sqlite.TIME, _TIMES, ("'07:08:09'", "CURRENT_TIME"))


def _postgresql() -> Iterable[Kind]:
    def kind(name: str, make: Callable[[], Any], values: tuple[Any, ...], raw: tuple[str, ...] = (), **k: Any) -> Kind:
        return Kind(f"pg_{name}", make, values, raw, (POSTGRESQL,), **k)

    east = timezone(timedelta(hours=3))
    yield kind("timestamp_seconds", lambda: pg.TIMESTAMP(precision=0), _MOMENTS)
    yield kind("timestamptz_milliseconds", lambda: pg.TIMESTAMP(timezone=True, precision=3), _AWARE, ("now()",))
    yield kind("time_seconds", lambda: pg.TIME(precision=0), _TIMES)
    yield kind("timetz", lambda: sa.Time(timezone=True), (time(7, 8, 9, tzinfo=UTC), time(7, 8, 9, tzinfo=east)),
               ranges=False)  # fmt: skip
    yield kind("interval", pg.INTERVAL, _SPANS, ("interval '1 month'", "interval '2 days 3 hours'"))
    yield kind("interval_seconds", lambda: pg.INTERVAL(precision=0), _SPANS)
    yield kind("double", pg.DOUBLE_PRECISION, _FLOATS, ("1.0/3",))
    yield kind("real", pg.REAL, _FLOATS, ("1.0/3", "1e30"))
    yield kind("uuid", pg.UUID, _UUIDS, ("gen_random_uuid()",), ranges=False)
    yield kind("uuid_text", lambda: pg.UUID(as_uuid=False), tuple(map(str, _UUIDS)), ranges=False)
    yield kind("bytea", pg.BYTEA, _BYTES, sorts=False)
    yield kind("jsonb", pg.JSONB, ({"a": 1}, [1, "x"], "text", 5), sorts=False, equals=False)
    yield kind("enum", lambda: pg.ENUM(Color, name="color_pg"), tuple(Color), ranges=False)
    yield kind("array", lambda: pg.ARRAY(sa.Integer), ([1, 2], [3], []), sorts=False, lists=False)
    yield kind("array_text", lambda: sa.ARRAY(sa.String), (["a"], ["b", "c"]), sorts=False, lists=False)
    yield kind("array_real", lambda: pg.ARRAY(sa.REAL), ([0.1], [1 / 3]), sorts=False, lists=False)
    yield kind("array_numeric", lambda: pg.ARRAY(sa.Numeric(10, 2)), ([Decimal("0.10")],), sorts=False, lists=False)
    yield kind("array_enum", lambda: pg.ARRAY(sa.Enum(Color, name="color_listed")), ([Color.RED, Color.BLUE],),
               sorts=False, lists=False)  # fmt: skip
    yield kind("inet", pg.INET, ("10.0.0.1", "10.0.0.2"), ("inet '10.1.0.0/16'",), ranges=False, routes=False)
    yield kind("cidr", pg.CIDR, ("10.0.0.0/8", "11.1.0.0/16"), ranges=False, routes=False)
    yield kind("macaddr", pg.MACADDR, ("08:00:2b:01:02:03", "08:00:2b:01:02:04"), ranges=False)
    yield kind("macaddr8", pg.MACADDR8, ("08:00:2b:01:02:03:04:05", "08:00:2b:01:02:03:04:06"), ranges=False)
    yield kind("money", pg.MONEY, ("$1.50", "$1,234.00"), ranges=False)
    yield kind("oid", pg.OID, (5, 77))
    yield kind("bit", lambda: pg.BIT(4), (), ("B'0101'", "B'1111'"), ranges=False, routes=False)
    yield kind("varbit", lambda: pg.BIT(varying=True), (), ("B'0101'", "B'11'"), ranges=False, routes=False)
    yield kind("int4range", pg.INT4RANGE, (pg.Range(1, 5), pg.Range(2, 9)), ranges=False, routes=False)
    yield kind("numrange", pg.NUMRANGE, (pg.Range(Decimal(1), Decimal(5)),), ranges=False, routes=False)
    yield kind("tsrange", pg.TSRANGE, (pg.Range(_MOMENTS[2], _MOMENTS[0]),), ranges=False, routes=False)
    yield kind("daterange", pg.DATERANGE, (pg.Range(_DATES[1], _DATES[0]),), ranges=False, routes=False)
    yield kind("int4multirange", pg.INT4MULTIRANGE, ([pg.Range(1, 5), pg.Range(7, 9)],), ranges=False, routes=False,
               lists=False)  # fmt: skip
    yield kind("tsvector", pg.TSVECTOR, ("'a' 'b'",), equals=False, ranges=False)
    yield kind("domain", lambda: pg.DOMAIN("short_text", sa.String(20)), _WORDS, ranges=False)
    yield kind("collated", lambda: sa.String(20, collation="C"), ("B", "a", "b"))


KINDS: tuple[Kind, ...] = (*_both(), *_moments(), *_enums(), *_decorators(), *_sqlite(), *_postgresql())

SAMPLE = (
    "char", "real", "float_decimal", "numeric_float", "datetime", "minutes", "money", "pg_interval", "pg_int4range",
)  # fmt: skip
"""The kinds that every run tests."""
