"""Values of an actor in PostgreSQL's policies, for each type of column: the rows are those of the repositories."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine, text
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from dotmac_database import (
    Policy,
    PolicyNotExpressibleError,
    QueryFilter,
    RowLevelSecurity,
    TenantMixin,
    ValidationError,
    bind_policies,
    bind_tenant,
    create_repository,
    guard_tenants,
)
from dotmac_database.engines import Database

from .conftest import APP


class Base(DeclarativeBase):
    """The table of these tests."""


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Reversed(sa.types.TypeDecorator[str]):
    """A text that the application reads backwards."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value and value[::-1]

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return value and value[::-1]


class Upper(sa.types.TypeDecorator[str]):
    """A text that is stored in capital letters."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value and value.upper()

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return value and value.lower()


class Scaled(sa.types.TypeDecorator[int]):
    """A number that is stored as a multiple of itself."""

    impl = sa.Integer
    cache_ok = True

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value and value * self.factor

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return value and value // self.factor


TYPES: dict[str, tuple[Any, Any, Any]] = {
    "smallint": (sa.SmallInteger(), 1, 2),
    "integer": (sa.Integer(), 1, 2),
    "bigint": (sa.BigInteger(), 1, 2**40),
    "boolean": (sa.Boolean(), True, False),
    "float": (sa.Float(), 0.1, 1e300),
    "numeric": (sa.Numeric(6, 2), Decimal("1.50"), Decimal("2.25")),
    "string": (sa.String(6), "one", 'a"b\\c'),
    "text": (sa.Text(), "it's", "two, {three}"),
    "date": (sa.Date(), date(2026, 1, 2), date(1999, 12, 31)),
    "moment": (sa.DateTime(timezone=True), datetime(2026, 1, 2, 3, 4, 5, 6, UTC), datetime(2000, 1, 1, tzinfo=UTC)),
    "local": (sa.DateTime(), datetime(2026, 1, 2, 3, 4, 5, 6), datetime(2000, 1, 1)),  # noqa: DTZ001 - no zone
    "time": (sa.Time(), time(1, 2, 3), time(23, 59)),
    "interval": (sa.Interval(), timedelta(days=1, seconds=2, microseconds=3), timedelta(days=-40)),
    "uuid": (sa.Uuid(), UUID(int=1), UUID(int=2**127)),
    "bytes": (sa.LargeBinary(), b"a\x00b", b"\xff"),
    "colour": (sa.Enum(Colour, name="value_colour"), Colour.RED, Colour.BLUE),
    "paint": (sa.Enum(Colour, native_enum=False, length=10), Colour.RED, Colour.BLUE),
    "word": (sa.Enum("up", "down", name="value_word"), "up", "down"),
    "backwards": (Reversed(8), "abc", "xyz"),
    "upper": (Upper(8), "abc", "xyz"),
    "tens": (Scaled(10), 10, 100),
    "hundreds": (Scaled(100), 1, 10),
    "address": (INET(), ip_address("10.0.0.1"), ip_address("::1")),
}
NOT_ORDERED = ("boolean", "bytes", "colour", "paint", "word", "backwards", "upper", "string", "text")


class Value(TenantMixin, Base):
    """A row has one value of each type; the third has none."""

    __tablename__ = "actors_values"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


for name, (type_, _, _) in TYPES.items():
    setattr(Value, name, mapped_column(name, type_, nullable=True))


@dataclass
class Actor:
    one: Any = None
    many: Any = ()


OPERATORS = ("eq", "ne", "in", "not_in", "lt")
CASES = [(name, operator) for name in TYPES for operator in OPERATORS if operator != "lt" or name not in NOT_ORDERED]
WRONG = {
    "nothing": None,
    "an object": object(),
    "NUL": "\x00",
    "a large number": 10**40,
    "a list": ["x"],
    "a dict": {"a": 1},
    "no number": float("nan"),
}


@pytest.fixture(scope="module")
def filled(owner_engine: Engine, app: Database) -> Iterator[Engine]:
    Base.metadata.create_all(owner_engine)
    with Session(owner_engine) as session:
        for tenant, shift in (("a", 0), ("b", 100)):
            for number in (1, 2):
                values = {name: values[number] for name, values in TYPES.items()}
                session.add(Value(id=shift + number, tenant_id=tenant, **values))
            session.add(Value(id=shift + 3, tenant_id=tenant))
        session.execute(text(f"GRANT SELECT ON actors_values TO {APP}"))
        session.commit()
    yield owner_engine
    Base.metadata.drop_all(owner_engine)


def by_repository(engine: Engine, policy: Policy[Value], actor: Actor) -> list[int]:
    with Session(engine) as session:
        bind_policies(session, [policy], actor=actor)
        return sorted(each.id for each in create_repository(session, Value, tenant_id="a").list())


def by_sql(app: Database, rls: RowLevelSecurity, actor: Actor) -> list[int]:
    with guard_tenants(sessionmaker(app.engine), rls=rls)() as session:
        bind_tenant(session, "a")
        bind_policies(session, [], actor=actor)
        return list(session.execute(text("SELECT id FROM actors_values ORDER BY id")).scalars())


@pytest.mark.parametrize(("name", "operator"), CASES)
def test_the_database_admits_the_rows_of_the_repository(
    filled: Engine, app: Database, name: str, operator: str
) -> None:
    policy = Policy(Value, read=lambda a: [QueryFilter(name, operator, a.many if "in" in operator else a.one)])
    rls = RowLevelSecurity(Base.metadata, policies=[policy])
    with filled.begin() as connection:
        rls.apply(connection)
    _, first, second = TYPES[name]
    for actor in (Actor(first, [first]), Actor(second, (second, first)), Actor(second, {second}), Actor(first, [])):
        assert by_sql(app, rls, actor) == by_repository(filled, policy, actor), actor
    for kind, wrong in WRONG.items():
        actor = Actor(wrong, [wrong, second])
        try:
            expected = by_repository(filled, policy, actor)
        except ValidationError:
            expected = None
        if expected is None or wrong is None:
            # Only the members of a list that are right count, and for a comparison that excludes values, nothing does.
            expected = [2] if operator == "in" else []
        assert by_sql(app, rls, actor) == expected, kind
    if "in" in operator:
        for wrong in (None, "xyz", b"xyz", {"xyz": 1}, 5):
            assert by_sql(app, rls, Actor(many=wrong)) == [], wrong


@pytest.mark.parametrize("operator", ["eq", "in"])
def test_two_types_of_the_users_have_values_of_their_own(filled: Engine, app: Database, operator: str) -> None:
    """Both columns are compared with the same value of the actor, which is written in the way of each."""

    def rule(a: Any) -> Any:
        value = a.many if operator == "in" else a.one
        return [QueryFilter("backwards", operator, value), QueryFilter("upper", operator, value)]

    policy = Policy(Value, read=rule)
    rls = RowLevelSecurity(Base.metadata, policies=[policy])
    with filled.begin() as connection:
        rls.apply(connection)
    for word, expected in (("abc", [1]), ("xyz", [2]), ("cba", []), ("ABC", [])):
        actor = Actor(word, [word])
        assert by_sql(app, rls, actor) == by_repository(filled, policy, actor) == expected


@pytest.mark.parametrize("operator", ["eq", "in"])
def test_types_of_one_name_that_write_differently_are_refused(operator: str) -> None:
    """The value would be written in the way of one of them for both, and admit other rows."""

    def rule(*names: str) -> Any:
        return lambda a: [QueryFilter(name, operator, a.many if operator == "in" else a.one) for name in names]

    message = "two types that have one name and convert values differently"
    alone = Policy(Value, read=rule("tens"), update=rule("tens"))
    assert RowLevelSecurity(Base.metadata, policies=[alone]).create_statements()
    with pytest.raises(PolicyNotExpressibleError, match=message):
        RowLevelSecurity(Base.metadata, policies=[Policy(Value, read=rule("tens", "hundreds"))]).create_statements()
    mixed = RowLevelSecurity(Base.metadata, policies=[Policy(Value, read=rule("tens"), update=rule("hundreds"))])
    with pytest.raises(PolicyNotExpressibleError, match=message):
        mixed.create_statements()
