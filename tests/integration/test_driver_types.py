"""The values of every column type are the same by the driver and by SQLAlchemy.

The table of cases is driver x outside or inside of a transaction x create or update. Each case writes and reads the
rows by both ways, and compares what is stored, the values, their types, and all that SQLAlchemy knows of the objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import DeclarativeBase, InstanceState, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from dotmac_database.engines import sync_url
from tests.conftest import DRIVERS, Face, Faces
from tests.matrices.column_types import KINDS, POSTGRESQL, SQLITE, Kind, Money, MoneyInCents
from tests.ways import WAYS, block, create_tables, way_of

# SQLAlchemy's types MONEY and DOMAIN cause this warning in comparisons.
pytestmark = pytest.mark.filterwarnings("ignore:Type object .* does not refer to an OperatorClass")


class Reversed(sa.TypeDecorator[str]):
    """Text that is stored backwards."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value[::-1]

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value[::-1]


class NeverNone(sa.TypeDecorator[str]):
    """Text for which None is stored and read as another value."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return "nothing" if value is None else value

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return "read as nothing" if value == "nothing" else value


MORE_KINDS = (
    Kind("double_decimal", lambda: sa.Double(asdecimal=True), (Decimal("0.25"), Decimal("-7.5"))),
    Kind("numeric_unscaled", lambda: sa.Numeric(30, 0), (Decimal(10**14), Decimal(-3))),
    Kind("json_null", lambda: sa.JSON(none_as_null=True), ({"a": [None, 1.5, "ü"]}, [], "")),
    Kind("reversed", Reversed, ("abc", "ü€😀", "")),
    Kind("never_none", NeverNone, ("some", "other")),
    Kind("odd_text", sa.Text, ("'quoted' \"twice\"", "%(percent)s %s :colon $1 ?", "line\nline\t\\")),
    Kind("pg_hstore", pg.HSTORE, ({"a": "1", "b": None}, {}), on=(POSTGRESQL,)),
    Kind("pg_hstore_text", lambda: pg.HSTORE(text_type=sa.Text()), ({"ü": "€"},), on=(POSTGRESQL,)),
    Kind("pg_array_of_arrays", lambda: pg.ARRAY(sa.Integer, dimensions=2), ([[1, 2], [3, 4]],), on=(POSTGRESQL,)),
    Kind("pg_array_of_json", lambda: pg.ARRAY(pg.JSONB), ([{"a": 1}, {"b": [None]}],), on=(POSTGRESQL,)),
    Kind("pg_array_of_money", lambda: pg.ARRAY(MoneyInCents), ([Money(5), Money(-7)],), on=(POSTGRESQL,)),
    Kind("pg_tuples", lambda: pg.ARRAY(sa.String, as_tuple=True), (("a", "b"),), on=(POSTGRESQL,)),
    Kind("pg_int8range", pg.INT8RANGE, (pg.Range(1, 2**40), pg.Range(empty=True)), on=(POSTGRESQL,)),
    Kind("pg_open_range", pg.NUMRANGE, (pg.Range(None, Decimal("1.5"), bounds="(]"),), on=(POSTGRESQL,)),
)
"""The kinds that the type matrix does not have."""

MOST_COLUMNS = 60
"""The most columns of a class. The kinds of a database are divided into groups of this size."""


class Base(DeclarativeBase):
    """The base class of the tables."""


@dataclass(frozen=True)
class Group:
    """A class with a column for each of some kinds."""

    model: Any
    kinds: tuple[Kind, ...]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows with every value of every kind, and a last row in which each value is None."""
        count = max(len(kind.values) for kind in self.kinds)
        rows = [{kind.name: kind.values[n % len(kind.values)] for kind in self.kinds} for n in range(count)]
        return [*rows, dict.fromkeys((kind.name for kind in self.kinds), None)]


@cache
def groups_on(dialect: str) -> tuple[Group, ...]:
    """All kinds of a database that have values, divided into groups."""
    kinds = [kind for kind in (*KINDS, *MORE_KINDS) if dialect in kind.on and kind.values]
    size = MOST_COLUMNS - 1  # and the primary key
    parts = [tuple(kinds[start : start + size]) for start in range(0, len(kinds), size)]
    return tuple(Group(model_of(f"types_{dialect}_{number}", part), part) for number, part in enumerate(parts))


def model_of(name: str, kinds: tuple[Kind, ...]) -> Any:
    """A class with a column for each of the kinds."""
    columns = {kind.name: mapped_column(kind.type(), nullable=True) for kind in kinds}
    fixed = {
        "__tablename__": name,
        "__module__": __name__,
        "__annotations__": {"id": Mapped[int], **dict.fromkeys(columns, Mapped[Any])},
        "id": mapped_column(primary_key=True, autoincrement=False),
    }
    return type(name, (Base,), {**fixed, **columns})


WIDE = tuple(Kind(f"column_{number}", sa.Integer, (number,)) for number in range(21))
Wide = model_of("types_wide", WIDE)


@pytest.fixture(params=DRIVERS)
def face(request: pytest.FixtureRequest, faces: Faces) -> Face:
    face: Face = faces[request.param]
    dialect = face.engine.dialect.name
    if dialect == POSTGRESQL:
        with sa.create_engine(sync_url(face.database.url), poolclass=NullPool).begin() as connection:
            connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS hstore")
    tables = sa.MetaData()
    for model in (Wide, *(group.model for group in groups_on(dialect))):
        model.__table__.to_metadata(tables)
    create_tables(face, tables)
    return face


def described(value: Any) -> Any:
    """A value with all that can differ between two equal values: its type, its digits, and the types of its parts."""
    if isinstance(value, (list, tuple)):
        return type(value), [described(each) for each in value]
    if isinstance(value, dict):
        return type(value), [(described(key), described(each)) for key, each in value.items()]
    return type(value), repr(value)


def state_of(entity: Any, session: Any) -> dict[str, Any]:
    """All that SQLAlchemy knows of an object."""
    state: InstanceState[Any] = sa.inspect(entity)
    return {
        "values": {key: described(value) for key, value in state.dict.items() if key != "_sa_instance_state"},
        "key": state.identity_key,
        "persistent": state.persistent,
        "modified": state.modified,
        "changes": dict(state.committed_state),
        "expired": state.expired,
        "expired attributes": set(state.expired_attributes),
        "unloaded": set(state.unloaded),
        "of the session": entity in session,
        "dirty": entity in session.dirty,
    }


def stored(face: Face, group: Group) -> list[dict[str, Any]]:
    """The rows as the database stores them. Deletes them."""
    table = group.model.__table__
    names = [column.name for column in table.columns]
    form = 'typeof("{0}") || quote("{0}")' if face.engine.dialect.name == SQLITE else '"{0}"::text'
    selected = ", ".join(form.format(name) for name in names)
    with own_connection(face) as connection:
        rows = connection.exec_driver_sql(f"SELECT {selected} FROM {table.name} ORDER BY id").all()
        connection.execute(table.delete())
    return [dict(zip(names, row, strict=True)) for row in rows]


@contextmanager
def own_connection(face: Face) -> Iterator[sa.Connection]:
    """A connection of the test's own, which commits at the end."""
    with sa.create_engine(sync_url(face.database.url), poolclass=NullPool).begin() as connection:
        yield connection


@contextmanager
def repository_of(face: Face, group: Group, *, inside: bool) -> Iterator[tuple[Any, Any]]:
    """A new session with a repository. With ``inside`` its transaction is open, and commits at the end."""
    with face.session(expire_on_commit=False) as session:
        repository = face.repository(session, group.model)
        if not inside:
            yield session, repository
            return
        with block(face, session):
            face(session.execute, sa.text("SELECT 1"))
            yield session, repository


def written(face: Face, group: Group, write: str, *, inside: bool) -> list[dict[str, Any]]:
    """Write all rows; the states of the objects."""
    states: list[dict[str, Any]] = []
    with repository_of(face, group, inside=inside) as (session, repository):
        for number, row in enumerate(group.rows):
            if write == "create":
                entity = face(repository.create, {"id": number, **row})
            else:
                before = group.rows[-1 - number]  # so that each column changes to a value from None, and the reverse
                face(repository.create, {"id": number, **before})
                entity = face(repository.update, number, row)
            states.append(state_of(entity, session))
    return states


def read(face: Face, group: Group, *, inside: bool) -> dict[str, Any]:
    """Read all rows in four forms, each on a new session; the states of the objects."""
    order = {"sorts": [{"field": "id"}]}
    paged = {**order, "pagination": {"page": 1, "per_page": 50}}
    results: dict[str, Any] = {}
    with repository_of(face, group, inside=inside) as (session, repository):
        entities = [face(repository.get_by_id, number) for number in range(len(group.rows))]
        results["get_by_id"] = [state_of(each, session) for each in entities]
    with repository_of(face, group, inside=inside) as (session, repository):
        results["list"] = [state_of(each, session) for each in face(repository.list, order)]
    with repository_of(face, group, inside=inside) as (session, repository):
        page = face(repository.list_paginated, paged)
        results["page"] = [state_of(each, session) for each in page.items]
        assert page.total == len(group.rows)
    with repository_of(face, group, inside=inside) as (_, repository):
        listed = face(repository.values(*repository.traits.columns).list, order)
        results["values"] = [{key: described(value) for key, value in row.items()} for row in listed]
    return results


def outcome(face: Face, group: Group, way: str, write: str, *, inside: bool) -> dict[str, Any]:
    """All that one way writes and reads, after a check that each statement was sent that way."""
    with way_of(face.engine, way) as sent:
        result = {"written": written(face, group, write, inside=inside), **read(face, group, inside=inside)}
    if way == "driver":
        of_each_row = 2 if write == "create" else 3  # the writes, and get_by_id
        assert [each.is_within for each in sent] == [inside] * (len(group.rows) * of_each_row + 3)
    return {**result, "stored": stored(face, group)}


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """The parts that differ, each with its path."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [line for key in one for line in differences(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [line for place, (each, its) in pairs for line in differences(each, its, f"{path}.{place}")]
    return [] if one == other else [f"{path}: {one!r} is not {other!r}"]


# The oldest SQLAlchemy that is allowed warns of its own HSTORE.
@pytest.mark.fast_way("driver", "autocommit", "update-statements")
@pytest.mark.filterwarnings("ignore:Type object .*HSTORE.* does not include operator")
@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])
@pytest.mark.parametrize("write", ["create", "update"])
def test_every_type_is_the_same_by_both_ways(face: Face, write: str, inside: bool) -> None:
    wrong: list[str] = []
    for group in groups_on(face.engine.dialect.name):
        by_driver, by_sqlalchemy = (outcome(face, group, way, write, inside=inside) for way in WAYS)
        if write == "create":
            use_values_as_read(by_driver, by_sqlalchemy)
        wrong += differences(by_driver, by_sqlalchemy)
        check_states(by_driver)
    assert not wrong, "\n".join(wrong)


def use_values_as_read(by_driver: dict[str, Any], by_sqlalchemy: dict[str, Any]) -> None:
    """Compare a created object of the driver with the object that is read.

    It has the stored values, and an object of SQLAlchemy's flush has those that were passed to ``create``. They can
    differ, for example in the digits of a Decimal.
    """
    for created, stored_row in zip(by_driver["written"], by_driver["get_by_id"], strict=True):
        assert differences(created, stored_row) == []
    for created, stored_row in zip(by_sqlalchemy["written"], by_sqlalchemy["get_by_id"], strict=True):
        assert created["values"].keys() == stored_row["values"].keys()
        created["values"] = stored_row["values"]


def check_states(result: dict[str, Any]) -> None:
    """Check that the objects are as if freshly loaded, and that no value was lost."""
    *full, empty = result["values"]
    none = described(None)
    assert [key for row in full for key, value in row.items() if value == none] == []
    assert {key for key, value in empty.items() if value != none} <= {"id", "never_none"}
    for state in (*result["written"], *result["get_by_id"], *result["list"], *result["page"]):
        wrong = ("modified", "dirty", "changes", "expired", "expired attributes", "unloaded")
        assert [key for key in wrong if state[key]] == []
        assert [key for key in ("persistent", "of the session") if not state[key]] == []
        assert set(state["values"]) == set(empty)


@pytest.mark.fast_way("driver", "autocommit")
@pytest.mark.parametrize("write", ["create", "update"])
def test_a_wide_class_is_written_by_the_driver(face: Face, write: str) -> None:
    """A statement with many filters is not cached, and therefore SQLAlchemy's. Columns are no filters."""
    with face.session(expire_on_commit=False) as session:
        repository = face.repository(session, Wide)
        row = {kind.name: kind.values[0] for kind in WIDE}
        with way_of(face.engine, "driver") as sent:
            face(repository.create, {"id": 1, **(row if write == "create" else {})})
            if write == "update":
                sent.clear()
                face(repository.update, 1, row)
