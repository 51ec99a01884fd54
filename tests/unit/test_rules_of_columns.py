"""Rules about columns that several modules share: SQLite's rowid, deleted rows, and types without their decorators."""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.types import TypeEngine, UserDefinedType

from dotmac_database import FullText, LivingUnique, SoftDeleteMixin, ValidationError, traits_of
from dotmac_database.dialects.base import enum_of
from dotmac_database.dialects.catalogue import IndexesOf, existing
from dotmac_database.dialects.rowid import rowid_alias
from dotmac_database.models.living import living_condition
from dotmac_database.statements.paths import is_json, is_text
from dotmac_database.statements.scope import not_deleted_conditions
from dotmac_database.tenancy.values import kind_of
from dotmac_database.types import UTCDateTime, undecorated


def decorated(inner: Any) -> Any:
    """A type decorator of ``inner``, which is a type or another decorator."""

    class Decorator(sa.TypeDecorator[Any]):
        impl = inner
        cache_ok = True

    return Decorator


class Loaded(sa.TypeDecorator[Any]):
    """A decorator that chooses its type by the dialect."""

    impl = sa.BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(sa.Integer() if dialect.name == "sqlite" else sa.BigInteger())


class Short(UserDefinedType[int]):
    def get_col_spec(self, **_: Any) -> str:
        return "INT"


KEYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Integer": (sa.Integer(), {}),
    "SmallInteger": (sa.SmallInteger(), {}),
    "BigInteger": (sa.BigInteger(), {}),
    "INT": (Short(), {}),
    "String": (sa.String(), {}),
    "decorated": (decorated(sa.Integer)(), {}),
    "decorated twice": (decorated(decorated(sa.Integer))(), {}),
    "decorated BigInteger": (decorated(sa.BigInteger)(), {}),
    "loaded by the dialect": (Loaded(), {}),
    "INTEGER on SQLite alone": (sa.BigInteger().with_variant(sa.Integer(), "sqlite"), {}),
    "BIGINT on SQLite alone": (sa.Integer().with_variant(sa.BIGINT(), "sqlite"), {}),
    "without a rowid": (sa.Integer(), {"sqlite_with_rowid": False}),
}


@pytest.mark.parametrize("name", KEYS)
def test_the_rowid_s_alias_is_what_sqlite_makes_of_the_table(name: str) -> None:
    type_, options = KEYS[name]
    table = sa.Table("t", sa.MetaData(), sa.Column("id", type_, primary_key=True), **options)
    engine = sa.create_engine("sqlite://")
    table.create(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO t (id) VALUES (77)")
        try:
            is_alias = connection.exec_driver_sql("SELECT rowid FROM t").scalar() == 77
        except sa.exc.OperationalError:
            is_alias = False  # there is no rowid
    engine.dispose()
    assert (rowid_alias(table) is table.c.id) is is_alias
    assert (rowid_alias(table) is None) is not is_alias


def test_a_key_of_two_columns_and_no_key_are_no_alias() -> None:
    columns = [sa.Column(name, sa.Integer, primary_key=True) for name in ("a", "b")]
    assert rowid_alias(sa.Table("t", sa.MetaData(), *columns)) is None
    assert rowid_alias(sa.Table("t", sa.MetaData(), sa.Column("a", sa.Integer))) is None
    assert rowid_alias(sa.Table("t", sa.MetaData(), sa.Column("a", sa.types.NullType(), primary_key=True))) is None


@pytest.mark.parametrize("name", KEYS)
def test_an_index_of_sqlite_ends_with_the_alias_unless_it_is_unique(name: str) -> None:
    type_, options = KEYS[name]
    columns = [sa.Column("id", type_, primary_key=True), sa.Column("a", sa.Integer), sa.Column("b", sa.Integer)]
    table = sa.Table("t", sa.MetaData(), *columns, **options)
    sa.Index("on_a", table.c.a)
    sa.Index("on_b", table.c.b, unique=True)
    engine = sa.create_engine("sqlite://")
    table.create(engine)
    with engine.connect() as connection:
        indexes = existing("sqlite", table, connection.execute(IndexesOf(table)).mappings().all())
    engine.dispose()
    keys = {index.name: [key.column for key in index.keys] for index in indexes}
    is_alias = rowid_alias(table) is not None
    assert keys["on_b"] == ["b"]
    assert keys["on_a"] == (["a", "id"] if is_alias else ["a"])
    assert keys.get("t") == (["id"] if is_alias else None)


@pytest.mark.parametrize("name", KEYS)
def test_a_full_text_table_needs_the_alias(name: str) -> None:
    type_, options = KEYS[name]
    text = sa.Column("text", sa.String)
    table = sa.Table("t", sa.MetaData(), sa.Column("id", type_, primary_key=True), text, FullText("text"), **options)
    assert bool(FullText.statements(table)) is (rowid_alias(table) is not None)
    connection = sqlite3.connect(":memory:")
    connection.execute(str(sa.schema.CreateTable(table).compile(dialect=sqlite.dialect())))
    for statement in FullText.statements(table):
        connection.execute(statement)
    connection.close()


MARKS: dict[str, Callable[[], dict[str, Any]]] = {
    "mixin": dict,
    "flag": lambda: {"is_deleted": mapped_column(sa.Boolean, nullable=False)},
    "nullable flag": lambda: {"is_deleted": mapped_column(sa.Boolean, nullable=True)},
    "decorated flag": lambda: {"is_deleted": mapped_column(decorated(sa.Boolean), nullable=False)},
    "number": lambda: {"is_deleted": mapped_column(sa.Integer, nullable=False)},
    "nullable number": lambda: {"is_deleted": mapped_column(sa.SmallInteger, nullable=True)},
    "decorated number": lambda: {"is_deleted": mapped_column(decorated(sa.Integer), nullable=False)},
    "time": lambda: {"deleted_at": mapped_column(UTCDateTime, nullable=True)},
    "flag in a column of another name": lambda: {
        "is_deleted": mapped_column("gone", sa.Boolean, nullable=False),
        "deleted_at": mapped_column(UTCDateTime, nullable=True),
        "unique": LivingUnique("name", deleted="gone"),
    },
    "role": lambda: {
        "gone": mapped_column(sa.Boolean, nullable=False),
        "__is_deleted_column__": "gone",
        "unique": LivingUnique("name", deleted="gone"),
    },
}


def mapped(attributes: dict[str, Any]) -> Any:
    class Fresh(DeclarativeBase):
        """A registry of its own."""

    unique = attributes.pop("unique", None) or LivingUnique("name")
    bases = (Fresh,) if attributes else (SoftDeleteMixin, Fresh)
    own = {"id": mapped_column(sa.Integer, primary_key=True), "name": mapped_column(sa.String)}
    return type("Item", bases, {"__tablename__": "items", "__table_args__": (unique,), **own, **attributes})


def as_sql(condition: Any, dialect: sa.Dialect) -> str:
    options = {"literal_binds": True, "include_table": False}
    return str(condition.compile(dialect=dialect, compile_kwargs=options))


@pytest.mark.parametrize("dialect", [postgresql.dialect(), sqlite.dialect()], ids=["postgresql", "sqlite"])
@pytest.mark.parametrize("name", MARKS)
def test_reads_and_the_index_agree_which_rows_are_deleted(name: str, dialect: sa.Dialect) -> None:
    model = mapped(MARKS[name]())
    (index,) = model.__table__.indexes
    (condition,) = not_deleted_conditions(traits_of(model), model)
    assert as_sql(condition, dialect) == as_sql(living_condition(index), dialect)
    assert as_sql(condition, dialect) in str(sa.schema.CreateIndex(index).compile(dialect=dialect))


@pytest.mark.parametrize("nullable", [False, True])
@pytest.mark.parametrize("type_", [sa.Boolean(), sa.Integer()], ids=["flag", "number"])
def test_a_flag_and_a_number_mark_the_same_rows(type_: TypeEngine[Any], nullable: bool) -> None:
    model = mapped({"is_deleted": mapped_column(type_, nullable=nullable)})
    engine = sa.create_engine("sqlite://")
    model.metadata.create_all(engine)
    values = [False, True, None] if nullable else [False, True]
    with engine.begin() as connection:
        connection.execute(sa.insert(model), [{"name": str(value), "is_deleted": value} for value in values])
        found = connection.scalars(sa.select(model.name).where(*not_deleted_conditions(traits_of(model), model)))
        assert set(found) == {str(value) for value in values if not value}
    engine.dispose()


DISAGREEING: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "a flag in a column of another name beside a time": (
        lambda: {
            "is_deleted": mapped_column("gone", sa.Boolean, nullable=False),
            "deleted_at": mapped_column(UTCDateTime, nullable=True),
        },
        "gone",
    ),
    "the time of a class with a flag": (
        lambda: {
            "is_deleted": mapped_column(sa.Boolean, nullable=False),
            "deleted_at": mapped_column(UTCDateTime, nullable=True),
            "unique": LivingUnique("name", deleted="deleted_at"),
        },
        "is_deleted",
    ),
}


@pytest.mark.parametrize("name", DISAGREEING)
def test_an_index_that_looks_at_another_column_than_reads_is_refused(name: str) -> None:
    make, expected = DISAGREEING[name]
    model = mapped(make())
    with pytest.raises(ValidationError, match=f"pass deleted='{expected}'") as refused:
        traits_of(model)
    assert refused.value.field == expected


def test_an_index_without_columns_is_refused() -> None:
    with pytest.raises(ValidationError, match="items: LivingUnique needs the name of a column"):
        mapped({"is_deleted": mapped_column(sa.Boolean), "unique": LivingUnique()})


class Colour(enum.Enum):
    RED = "red"


TYPES: dict[str, TypeEngine[Any]] = {
    "text": sa.String(9),
    "document": sa.JSON(),
    "enum": sa.Enum(Colour),
    "number": sa.Integer(),
    "time": sa.DateTime(),
}


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("name", TYPES)
def test_a_type_is_recognised_through_any_number_of_decorators(name: str, depth: int) -> None:
    type_: Any = TYPES[name]
    for _ in range(depth):
        type_ = decorated(type_)()
    assert type(undecorated(type_)) is type(TYPES[name])
    assert is_json(type_) is (name == "document")
    assert is_text(type_) is (name == "text")
    assert (enum_of(type_) is not None) is (name == "enum")
    assert kind_of(sa.Column("x", type_)) is TYPES[name].python_type
