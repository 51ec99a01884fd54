"""What Python decides about a new row is what the database decides, for each operator and type of column."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dotmac_database import (
    PermissionDeniedError,
    Policy,
    QueryFilter,
    TenantMixin,
    ValidationError,
    all_of,
    any_of,
    create_database,
    create_repository,
    none_of,
)
from dotmac_database.engines import Database


class Base(DeclarativeBase):
    """The table of these tests."""


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Thing(TenantMixin, Base):
    __tablename__ = "judged_things"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int | None]
    word: Mapped[str | None]
    flag: Mapped[bool | None]
    day: Mapped[date | None]
    key: Mapped[UUID | None]
    colour: Mapped[Colour | None]
    ratio: Mapped[float | None]
    given: Mapped[int | None] = mapped_column(default=7)
    stored: Mapped[int | None] = mapped_column(server_default="7")


VALUES: dict[str, tuple[Any, ...]] = {
    "number": (1, 2, None),
    "word": ("a", "B", None),
    "flag": (True, False, None),
    "day": (date(2026, 1, 1), date(2026, 1, 2), None),
    "key": (UUID(int=1), UUID(int=2), None),
    "colour": (Colour.RED, Colour.BLUE, None),
    "ratio": (0.5, 1.0, None),
}
LISTS = ("in", "not_in")


def rules_of(name: str) -> Iterator[QueryFilter]:
    first, second, _ = VALUES[name]
    for operator in ("eq", "ne", "gt", "gte", "lt", "lte"):
        yield QueryFilter(name, operator, first)
    for operator in ("eq", "ne"):
        yield QueryFilter(name, operator, None)
    for operator, members in itertools.product(LISTS, ([], [first], [first, second], [None], [first, None])):
        yield QueryFilter(name, operator, members)
    for operator, operand in itertools.product(("is_null", "is_not_null"), (None, True, False)):
        yield QueryFilter(name, operator, operand)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path_factory.mktemp('judged')}/x.db"
    made = create_database(url if request.param == "sqlite" else request.getfixturevalue("postgres_url"))
    Base.metadata.create_all(made.engine)
    yield made
    Base.metadata.drop_all(made.engine)
    made.dispose()


def admitted(session: Session, rule: Any, rows: list[dict[str, Any]]) -> list[bool | None]:
    """Whether the database finds each row by the rule's filters; None: they are refused."""
    things = create_repository(session, Thing, tenant_id="a")
    with session.begin_nested() as savepoint:
        keys = [each.id for each in things.bulk_create(rows)]
        try:
            found = {each.id for each in things.list(rule)}
            return [key in found for key in keys]
        except ValidationError:
            return [None for _ in rows]
        finally:
            savepoint.rollback()


def may_create(session: Session, rule: Any, row: dict[str, Any]) -> bool | None:
    """Whether a policy with this rule lets the row be created; None: the rule is refused."""
    policy = Policy(Thing, read=True, create=lambda actor: rule)
    things = create_repository(session, Thing, tenant_id="a").with_policy(policy, actor="ada")
    with session.begin_nested() as savepoint:
        try:
            things.create(row)
        except PermissionDeniedError:
            return False
        except ValidationError:
            return None
        finally:
            savepoint.rollback()
        return True


def check(database: Database, rule: Any, rows: list[dict[str, Any]]) -> None:
    with database.sessions() as session:
        expected = admitted(session, [rule], rows)
        assert [may_create(session, [rule], row) for row in rows] == expected, rule


@pytest.mark.parametrize("name", VALUES)
def test_a_filter_decides_alike(database: Database, name: str) -> None:
    for rule in rules_of(name):
        check(database, rule, [{name: value} for value in VALUES[name]])


IS_ONE, IS_A, IS_RATIO = QueryFilter("number", "eq", 1), QueryFilter("word", "eq", "a"), QueryFilter("ratio", "gt", 0.6)
MEMBERS = ((IS_ONE,), (IS_ONE, IS_A), (IS_ONE, IS_RATIO))
GROUPS = [make(*members) for make in (all_of, any_of, none_of) for members in MEMBERS]


@pytest.mark.parametrize("number", range(len(GROUPS)))
def test_a_group_decides_alike(database: Database, number: int) -> None:
    chosen = itertools.product((1, 2, None), ("a", "b", None), (0.5, 1.0))
    rows = [dict(zip(("number", "word", "ratio"), each, strict=True)) for each in chosen]
    for group in (GROUPS[number], none_of(GROUPS[number])):
        check(database, group, rows)


DEFAULTS = [QueryFilter(name, "eq", value) for name in ("given", "stored", "number") for value in (7, 8, None)]


@pytest.mark.parametrize("rule", [*DEFAULTS, QueryFilter("id", "gt", 0), QueryFilter("tenant_id", "eq", "a")], ids=repr)
def test_a_value_that_is_not_set_decides_alike(database: Database, rule: QueryFilter) -> None:
    """Such as a default, of Python or of the database, and a generated key."""
    for row in ({}, {"given": 8, "stored": 8}, {"given": None}):
        check(database, rule, [row])
