"""Test each column type with each way of writing and each driver, when no rows, some rows or all rows have no value.

A plain SELECT must return the values that were written.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Identity, MetaData, delete, func, insert, null, select, text
from sqlalchemy import types as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, mapped_column, sessionmaker
from sqlalchemy.sql.elements import Null

from dotmac_database import create_async_repository, create_database, create_repository
from dotmac_database.engines import Database

from .column_types import KINDS, SQLITE, Guid
from .rings import DRIVERS


class Mood(enum.Enum):
    GLAD = "glad"
    SAD = "sad"


class Reversed(sa.TypeDecorator[str]):
    """Text that is stored backwards."""

    impl = sa.String(20)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value if value is None else value[::-1]

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return value if value is None else value[::-1]


class Sealed(sa.TypeDecorator[Any]):
    """A document that is stored within another one."""

    impl = sa.JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return {"sealed": value}

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return value if value is None else value["sealed"]


class Shown(sa.TypeDecorator[Any]):
    """A document that is only read in another form."""

    impl = sa.JSON
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return value


class Quiet(sa.TypeDecorator[str]):
    """Text that the database converts to lower case."""

    impl = sa.String(20)
    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> Any:
        return func.lower(bindvalue)


class Base(DeclarativeBase):
    """The base class of tables that every database supports."""


class PostgresqlBase(DeclarativeBase):
    metadata = MetaData()


NOON = datetime(2024, 5, 6, 12, 30, 15, 250, tzinfo=UTC)
TYPES: dict[str, tuple[Any, list[Any]]] = {
    "integer": (sa.Integer(), [1, -7]),
    "small": (sa.SmallInteger(), [1, -7]),
    "big": (sa.BigInteger(), [2**40, -(2**62)]),
    "float": (sa.Float(), [0.1, -2.5]),
    "double": (sa.Double(), [1e300, -2.5]),
    "real": (sa.REAL(), [0.5, -2.25]),
    "numeric": (sa.Numeric(10, 2), [Decimal("1.25"), Decimal("-3.50")]),
    "numeric_as_float": (sa.Numeric(10, 2, asdecimal=False), [1.25, -3.5]),
    "boolean": (sa.Boolean(), [True, False]),
    "string": (sa.String(5), ["ab", "a%_:'"]),
    "text": (sa.Text(), ["ab", "line\n\t\\N"]),
    "char": (sa.CHAR(5), ["abcde", "vwxyz"]),
    "native_enum": (sa.Enum(Mood, name="typed_mood"), [Mood.GLAD, Mood.SAD]),
    "plain_enum": (sa.Enum(Mood, native_enum=False), [Mood.GLAD, Mood.SAD]),
    "text_enum": (sa.Enum("x", "y", name="typed_letters"), ["x", "y"]),
    "date": (sa.Date(), [date(2024, 1, 2), date(1999, 12, 31)]),
    "time": (sa.Time(), [time(1, 2, 3), time(23, 59)]),
    "aware": (sa.DateTime(timezone=True), [NOON, NOON + timedelta(days=400)]),
    "interval": (sa.Interval(), [timedelta(days=3, seconds=5), timedelta(hours=-2)]),
    "binary": (sa.LargeBinary(), [b"\x00\\\xff", b"plain"]),
    "uuid": (sa.Uuid(), [UUID(int=1), UUID(int=2**100)]),
    "guid": (Guid(), [UUID(int=1), UUID(int=2**100)]),
    "json": (sa.JSON(none_as_null=True), [{"a": [1, None]}, "text"]),
    "decorated": (Reversed(), ["abc", "de"]),
}
POSTGRESQL_TYPES: dict[str, tuple[Any, list[Any]]] = {
    "jsonb": (pg.JSONB(none_as_null=True), [{"a": [1, None]}, "text"]),
    "integers": (pg.ARRAY(sa.Integer()), [[1, 2], []]),
    "strings": (pg.ARRAY(sa.String(5)), [["a", "b,\"'"], []]),
    "moods": (pg.ARRAY(sa.Enum(Mood, name="typed_feelings")), [[Mood.SAD], []]),
    "timestamps": (pg.ARRAY(sa.DateTime(timezone=True)), [[NOON], []]),
    "native_interval": (pg.INTERVAL(precision=6), [timedelta(days=40, microseconds=5), timedelta(0)]),
}


def mapped(base: Any, name: str, type_: Any) -> type[Any]:
    return type(
        f"Typed_{name}",
        (base,),
        {
            "__tablename__": f"typed_{name}",
            "__annotations__": {},
            "id": mapped_column(sa.Integer, Identity(), primary_key=True),
            "code": mapped_column(sa.Integer, unique=True),
            "value": mapped_column(type_, nullable=True),
        },
    )


MODELS = {name: mapped(Base, name, type_) for name, (type_, _) in TYPES.items()}
MODELS |= {name: mapped(PostgresqlBase, name, type_) for name, (type_, _) in POSTGRESQL_TYPES.items()}
VALUES = {name: values for name, (_, values) in (*TYPES.items(), *POSTGRESQL_TYPES.items())}

PATTERNS: dict[str, Callable[[int], bool]] = {
    "all": lambda place: True,
    "none": lambda place: False,
    "some": lambda place: place % 3 == 1,
    "first": lambda place: place == 0,
}
"""For each pattern, whether the row at an index has a value."""


def values_of(name: str, pattern: str, size: int) -> list[Any]:
    values = VALUES[name]
    return [values[place % len(values)] if PATTERNS[pattern](place) else None for place in range(size)]


def create(repository: Any, values: list[Any], keys: list[int]) -> Iterator[Any]:
    for code, value in list(enumerate(values))[:3]:
        yield repository.create({"code": 10_000 + code, "value": value})


def bulk_create(repository: Any, values: list[Any], keys: list[int]) -> Iterator[Any]:
    yield repository.bulk_create([{"code": 10_000 + code, "value": value} for code, value in enumerate(values)])


def bulk_create_counted(repository: Any, values: list[Any], keys: list[int]) -> Iterator[Any]:
    rows = [{"code": 10_000 + code, "value": value} for code, value in enumerate(values)]
    yield repository.bulk_create(rows, returning=False)


def upsert(repository: Any, values: list[Any], keys: list[int]) -> Iterator[Any]:
    for code, value in list(enumerate(values))[:3]:
        yield repository.upsert({"code": code, "value": value}, ["code"])


def bulk_upsert(repository: Any, values: list[Any], keys: list[int]) -> Iterator[Any]:
    yield repository.bulk_upsert([{"code": code, "value": value} for code, value in enumerate(values)], ["code"])


def update(repository: Any, values: list[Any], keys: list[int]) -> Iterator[Any]:
    for key, value in list(zip(keys, values, strict=True))[:3]:
        yield repository.update(key, {"value": value})


def update_all(repository: Any, values: list[Any], keys: list[int]) -> Iterator[Any]:
    for key, value in zip(keys, values, strict=True):
        yield repository.update(key, {"value": value})


def bulk_update(repository: Any, values: list[Any], keys: list[int]) -> Iterator[Any]:
    yield repository.bulk_update([{"id": key, "value": value} for key, value in zip(keys, values, strict=True)])


def update_where(repository: Any, values: list[Any], keys: list[int]) -> Iterator[Any]:
    for code, value in list(enumerate(values))[:3]:
        yield repository.update_where([{"field": "code", "value": code}], {"value": value})


METHODS = (create, bulk_create, bulk_create_counted, upsert, bulk_upsert, update, bulk_update, update_where)
OF_EACH = (create, upsert, update, update_where)
"""The methods that write one row, or one value, in a call."""


_DOCUMENTS = [{"ü": "é☃😀", "n": [None, 1.5]}, [], [[1], []], "", "ü\n\\", 0, False, {}, None, null()]
_SEALED = [each for each in _DOCUMENTS if not isinstance(each, Null)]
_MOODS = [Mood.GLAD, Mood.SAD, None]
_CENTURIES = [timedelta(days=-400_000, microseconds=7), timedelta(microseconds=-1), timedelta(days=31), None]
COMPARED: dict[str, tuple[Any, list[Any]]] = {
    **{kind.name: (kind.type(), [*kind.values, None]) for kind in KINDS if kind.values and kind.on != (SQLITE,)},
    "json": (sa.JSON(), _DOCUMENTS),
    "json_without_null": (sa.JSON(none_as_null=True), _DOCUMENTS),
    "json_varied": (sa.JSON().with_variant(pg.JSONB(), "postgresql"), _DOCUMENTS),
    "pg_json": (pg.JSON(), _DOCUMENTS),
    "pg_jsonb": (pg.JSONB(), _DOCUMENTS),
    "json_shown": (Shown(), _DOCUMENTS),
    "json_sealed": (Sealed(), _SEALED),
    "json_or_text": (sa.String(20).with_variant(pg.JSONB(), "postgresql"), ["1", '"ü"', None]),
    "native_mood": (sa.Enum(Mood, name="compared_mood"), _MOODS),
    "mood_by_value": (
        sa.Enum(Mood, name="compared_value", values_callable=lambda kind: [e.value for e in kind]),
        _MOODS,
    ),
    "plain_mood": (sa.Enum(Mood, native_enum=False, length=12), _MOODS),
    "words": (sa.Enum("ü b", "a,'\"{}", "NULL", "", name="compared_words"), ["ü b", "a,'\"{}", "NULL", "", None]),
    "plain_words": (sa.Enum("ü b", "a,'\"{}", "NULL", native_enum=False), ["ü b", "a,'\"{}", "NULL", None]),
    "interval_long": (sa.Interval(), _CENTURIES),
    "interval_native": (pg.INTERVAL(), _CENTURIES),
    "interval_days": (pg.INTERVAL(fields="DAY"), _CENTURIES),
    "interval_milliseconds": (pg.INTERVAL(precision=3), _CENTURIES),
    "interval_of_dates": (sa.Interval(native=False), [timedelta(days=3, microseconds=5), timedelta(0), None]),
    "scaled": (sa.Numeric(12, 4), [Decimal("1.5"), Decimal("1.5000"), Decimal("0E+3"), Decimal("-0.0001"), None]),
    "unscaled": (sa.Numeric(), [Decimal("1.5"), Decimal("1.5000"), Decimal("12E+3"), Decimal("1E-30"), None]),
    "lower": (Quiet(), ["Ab", "Ü", None]),
    "text_arrays": (pg.ARRAY(sa.Text()), [["a", None, "ü,{}\"'\\", "NULL"], [], None]),
    "nested_arrays": (pg.ARRAY(sa.Integer(), dimensions=2), [[[1, 2], [3, None]], [], None]),
    "mood_arrays": (pg.ARRAY(sa.Enum(Mood, name="compared_moods")), [[Mood.GLAD], [], None]),
    "json_arrays": (pg.ARRAY(pg.JSONB()), [[{"a": [1]}, "ü"], [], None]),
}
"""For each name: a column type, and the values with which rows are updated."""


_POSTGRESQL_KINDS = {kind.name for kind in KINDS if SQLITE not in kind.on}


def _is_generic(name: str) -> bool:
    """Whether every database has the type."""
    type_ = COMPARED[name][0]
    own = isinstance(type_, sa.ARRAY) or type(type_).__module__.startswith("sqlalchemy.dialects.postgresql")
    return not own and name not in _POSTGRESQL_KINDS


COMPARED_MODELS = {
    name: mapped(Base if _is_generic(name) else PostgresqlBase, f"compared_{name}", type_)
    for name, (type_, _) in COMPARED.items()
}


class Typed:
    """One driver, on a database with a table for each type."""

    def __init__(self, url: Any, driver: str) -> None:
        self.plain = create_database(url)
        name = "postgresql+psycopg" if driver == "psycopg_async" else None
        self.database: Database = create_database(self.plain.url.set(drivername=name) if name else self.plain.url)
        self.is_async = DRIVERS[driver][1]
        self.runner = asyncio.Runner()
        postgresql = DRIVERS[driver][0] == "postgresql"
        self.names = [*TYPES, *(POSTGRESQL_TYPES if postgresql else ())]
        for base in (Base, PostgresqlBase) if postgresql else (Base,):
            base.metadata.create_all(self.plain.engine)
        self.compared = [name for name in COMPARED if postgresql or _is_generic(name)]
        maker: Any = async_sessionmaker if self.is_async else sessionmaker
        self.maker = maker(self.database.async_engine if self.is_async else self.database.engine)

    def close(self) -> None:
        self.runner.run(self.database.dispose_async())
        self.runner.close()
        self.plain.dispose()

    def fault(self, name: str, method: Any, pattern: str, size: int) -> str | None:
        model, given = MODELS[name], values_of(name, pattern, size)
        old = VALUES[name][0]
        with self.plain.sessions() as session:
            session.execute(delete(model))
            session.execute(insert(model), [{"code": code, "value": old} for code in range(size)])
            session.commit()
            keys = list(session.scalars(select(model.id).order_by(model.code)))
        many = min(3, size) if method in OF_EACH else size
        first = 10_000 if method in (create, bulk_create, bulk_create_counted) else 0
        expected = dict.fromkeys(range(size), old) | {first + code: given[code] for code in range(many)}
        try:
            self._run(model, method, given, keys)
        except Exception as error:  # noqa: BLE001 - every exception is an error of the cell
            return f"{type(error).__name__}: {str(error)[:150]}"
        with self.plain.sessions() as session:
            stored = {row.code: row.value for row in session.execute(select(model.code, model.value))}
        wrong = [code for code in expected if code not in stored or stored[code] != expected[code]]
        if wrong or len(stored) != len(expected):
            code = next(iter(wrong), -1)
            return f"{len(wrong)} rows, of which {code} is {stored.get(code)!r} and not {expected.get(code)!r}"
        return None

    def differences(self, name: str, size: int) -> list[str]:
        """How the rows that `bulk_update` has written differ from those that `update` has written, as text."""
        model, (_, each) = COMPARED_MODELS[name], COMPARED[name]
        values = [each[place % len(each)] for place in range(size)]
        many = len(each)
        with self.plain.sessions() as session:
            session.execute(delete(model))
            session.execute(insert(model), [{"code": code} for code in range(many + size)])
            session.commit()
            keys = list(session.scalars(select(model.id).order_by(model.code)))
        for method, written, given in ((update_all, keys[:many], each), (bulk_update, keys[many:], values)):
            try:
                self._run(model, method, given, written)
            except Exception as error:  # noqa: BLE001 - every exception is an error of the cell
                return [f"{name}, {method.__name__}: {type(error).__name__}: {str(error)[:150]}"]
        sqlite = self.plain.engine.dialect.name == "sqlite"
        shown = "typeof(value) || quote(value)" if sqlite else "value::text"
        with self.plain.engine.connect() as connection:
            stored = [
                row[0] for row in connection.execute(text(f"SELECT {shown} FROM {model.__tablename__} ORDER BY code"))
            ]
        return [
            f"{name}, {values[place]!r}: {stored[many + place]!r} instead of {stored[place % many]!r}"
            for place in range(size)
            if stored[many + place] != stored[place % many]
        ]

    def _run(self, model: Any, method: Any, values: list[Any], keys: list[int]) -> None:
        if not self.is_async:
            with self.maker() as session:
                list(method(create_repository(session, model), values, keys))
            return

        async def run() -> None:
            async with self.maker() as session:
                for each in method(create_async_repository(session, model), values, keys):
                    await each

        self.runner.run(run())


@pytest.fixture(scope="module", params=DRIVERS)
def typed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Typed]:
    driver = str(request.param)
    if DRIVERS[driver][0] == "sqlite":
        made = Typed(f"sqlite:///{tmp_path_factory.mktemp('typed')}/test.db", driver)
    else:
        made = Typed(request.getfixturevalue("postgres_url"), driver)
    yield made
    made.close()


def faults(typed: Typed, sizes: dict[Any, int], patterns: tuple[str, ...]) -> str:
    """A line for each wrong cell."""
    found = []
    for name in typed.names:
        for method, size in sizes.items():
            for pattern in patterns:
                fault = typed.fault(name, method, pattern, size)
                if fault is not None:
                    found.append(f"{name}, {method.__name__}, {pattern}, {size} rows: {fault}")
    return "\n".join(found)


def test_a_sample(typed: Typed) -> None:
    wrong = faults(typed, {bulk_update: 3}, ("none", "some"))
    assert not wrong, wrong


def test_rows_enough_for_copy(typed: Typed) -> None:
    if typed.plain.engine.dialect.name == "sqlite":
        pytest.skip("COPY is PostgreSQL's")
    wrong = faults(typed, {bulk_create_counted: 501}, ("some",))
    assert not wrong, wrong


def test_bulk_update_writes_what_update_writes(typed: Typed) -> None:
    """With enough rows for arrays, for each value of each type."""
    wrong = [line for name in typed.compared for line in typed.differences(name, 30)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.matrix
@pytest.mark.parametrize("size", [1, 3, 40, 501])
def test_every_cell(typed: Typed, size: int) -> None:
    methods = METHODS if size < 100 else tuple(each for each in METHODS if each not in OF_EACH)
    wrong = faults(typed, dict.fromkeys(methods, size), tuple(PATTERNS))
    assert not wrong, wrong
