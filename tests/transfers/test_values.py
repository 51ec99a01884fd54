"""Each type of column, with its hardest values: what an import writes is what the database had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, select, text
from sqlalchemy.types import PickleType, TypeDecorator

from dotmac_database import Database, create_database
from dotmac_database.transfers import Manifest, export_tenant, import_tenant
from tests.conftest import DRIVERS, Face

from .conftest import new_database

POSTGRESQL: dict[str, list[str]] = {
    "smallint": ["-32768", "32767"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "numeric": ["'NaN'", "'Infinity'", "1e-200", "123456789012345678901234567890.0100", "0.10"],
    "numeric(10,3)": ["'NaN'", "1.100", "-0.001"],
    "real": ["'NaN'", "'-Infinity'", "0.1", "1e-45", "16777217"],
    "double precision": [
        "'NaN'",
        "'Infinity'",
        "0.1",
        "5e-324",
        "'-0'",
        "1.7976931348623157e308",
        "0.30000000000000004",
    ],
    "money": ["1234.56", "-0.01"],
    "boolean": ["true", "false"],
    "text": ["''", "' a '", "E'\\t\\n\\r\\\\ \"\\'{}\\u2028'", "'null'", "U&'\\+01F600'", "'\\N'"],
    "varchar(5)": ["'abc  '", "'äöüß€'"],
    "char(5)": ["'a'", "'abcde'"],
    "bpchar": ["'a  '"],
    '"char"': ["'x'"],
    "name": ["'relation'"],
    "bytea": ["''", "'\\x00ff0a5c'"],
    "timestamp": [
        "'0001-01-01 00:00'",
        "'infinity'",
        "'2026-01-02 03:04:05.678901'",
        "'0044-03-15 12:00 BC'",
    ],
    "timestamptz": ["'-infinity'", "'2026-10-25 02:30+02'", "'2026-10-25 02:30+01'", "'12000-01-01'"],
    "timestamptz(0)": ["'2026-01-02 03:04:05.6'"],
    "date": ["'infinity'", "'0044-03-15 BC'", "'99999-01-01'"],
    "time": ["'24:00'", "'00:00:00.000001'"],
    "timetz": ["'12:00+05:30:07'"],
    "interval": ["'1 year -2 days 03:04:05.000006'", "'-1 mons +2 days -00:00:01'", "'178000000 years'"],
    "uuid": ["'00000000-0000-0000-0000-00000000000a'"],
    "json": ["'null'", '\'{"b":  1, "a": 1, "a": 2}\'', "'\"text\"'", "'1.0'"],
    "jsonb": ["'null'", '\'{"a": [1, null, {"b": "\\u00e4"}]}\'', "'1.10'"],
    "integer[]": ["'{}'", "'{1,NULL,3}'", "'[0:1]={1,2}'", "'{{1,2},{3,4}}'"],
    "text[]": ["ARRAY[NULL, 'NULL', '', 'a,b', E'c\\\\\"{}', 'ä', E'\\n']"],
    "char(3)[]": ["'{a,b}'"],
    "bytea[]": ["ARRAY['\\x00ff'::bytea]"],
    "jsonb[]": ["ARRAY['{\"a\": 1}'::jsonb, 'null'::jsonb]"],
    "int4range": ["'empty'", "'[1,5)'", "'(,3]'"],
    "tstzrange": ["'[2026-01-01 00:00+01,infinity)'"],
    "nummultirange": ["'{[1.0,2.0),[3,)}'"],
    "inet": ["'10.0.0.1'", "'10.0.0.0/8'", "'::1/128'", "'fe80::/10'"],
    "cidr": ["'10.0.0.0/8'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "bit(3)": ["B'101'"],
    "bit varying(5)": ["B''", "B'10'"],
    "point": ["'(0.1,-0)'"],
    "polygon": ["'((0,0),(1,1),(1,0.30000000000000004))'"],
    "tsvector": ["'a:1 ''b c'':2A'"],
    "tsquery": ["'''a b'' & !c:*'"],
    "mood": ["'sad'", "'very ''happy'''"],
    "mood[]": ["'{sad,NULL}'"],
    "pair": ["ROW(1, 'a,\"b')", "ROW(NULL, '')"],
    "short": ["'abc'"],
    "pg_lsn": ["'16/B374D848'"],
    "oid": ["4294967295"],
    "regclass": ["'pg_class'"],
}
SQLITE: dict[str, list[str]] = {
    "INTEGER": ["-9223372036854775808", "9223372036854775807", "'text'", "1.5", "x'00ff'"],
    "REAL": ["0.1", "9e999", "-9e999", "5e-324", "-0.0", "1", "'text'", "9007199254740993"],
    "NUMERIC": ["0.1", "1e20", "'1.0'", "12345678901234567890", "'abc'"],
    "TEXT": ["''", "' a '", "char(0, 10, 8232, 128512)", "1.0", "x'ff'", '\'{"blob":"AA=="}\''],
    "BLOB": ["x''", "x'00ff'", "'text'", "1", "1.0"],
    "DATETIME": ["'2026-01-02 03:04:05.678901'", "'2026-01-02'", "1.0"],
    "BOOLEAN": ["0", "1", "2"],
    "VARCHAR(3)": ["'longer'"],
    "": ["1", "1.0", "'1'", "x'31'"],
}
TYPES = """CREATE TYPE mood AS ENUM ('sad', 'very ''happy''');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN short AS varchar(3) CHECK (length(VALUE) > 1);"""


def make(database: Database, kind: str) -> Table:
    """A table with a column of each type, and a row for each value. ``kind``: what its key is."""
    values = SQLITE if database.engine.dialect.name == "sqlite" else POSTGRESQL
    names = [f"c{place}" for place in range(len(values))]
    key = {"key": "PRIMARY KEY (id)", "composite": "PRIMARY KEY (tenant_id, id)", "none": "UNIQUE (id)"}[kind]
    columns = ", ".join(f"{name} {type_}" for name, type_ in zip(names, values, strict=True))
    with database.engine.begin() as connection:
        if database.engine.dialect.name == "postgresql":
            connection.exec_driver_sql(TYPES)
        connection.exec_driver_sql(f"CREATE TABLE things (id integer, tenant_id varchar(9), {columns}, {key})")
    # The models need not know the types.
    own = (
        Column("id", Integer, primary_key=kind != "none"),
        Column("tenant_id", String(9), primary_key=kind == "composite"),
    )
    return Table("things", MetaData(), *own)


def fill(database: Database) -> None:
    values = SQLITE if database.engine.dialect.name == "sqlite" else POSTGRESQL
    number = 0
    with database.engine.begin() as connection:
        for place, (type_, each) in enumerate(values.items()):
            for value in each:
                number += 1
                cast = value if database.engine.dialect.name == "sqlite" else f"CAST({value} AS {type_})"
                sql = f"INSERT INTO things (id, tenant_id, c{place}) VALUES ({number}, 'ours', {cast})"
                connection.exec_driver_sql(sql.replace("%", "%%"))
        connection.exec_driver_sql(f"INSERT INTO things (id, tenant_id) VALUES ({number + 1}, 'ours'), (-1, 'theirs')")


def stored(database: Database) -> list[tuple[Any, ...]]:
    """All values in a form that shows each bit of them."""
    with database.engine.connect() as connection:
        if database.engine.dialect.name == "postgresql":
            # The binary form of each value, which the drivers' Python types can't show. In an array it has the number
            # of the type, which differs between databases.
            shown = ", ".join(
                ["id", *(f"c{n}::text" if each == "mood[]" else f"c{n}" for n, each in enumerate(POSTGRESQL))]
            )
            query = f"COPY (SELECT {shown} FROM things WHERE tenant_id = 'ours' ORDER BY id) TO STDOUT (FORMAT binary)"
            raw: Any = connection.connection.driver_connection
            with raw.cursor() as cursor, cursor.copy(query) as copy:
                return [(bytes(each),) for each in copy]
        names = [row[1] for row in connection.exec_driver_sql("PRAGMA table_info(things)")]
        shown = ", ".join(f"typeof({name}), hex({name}), printf('%!.17g', {name})" for name in names)
        rows = connection.exec_driver_sql(f"SELECT {shown} FROM things WHERE tenant_id = 'ours' ORDER BY id")
        return [tuple(row) for row in rows]


@pytest.mark.parametrize("kind", ["key", pytest.param("composite", marks=pytest.mark.matrix), "none"])
def test_each_value_is_the_same(dialect: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with new_database(dialect, request, tmp_path) as source, new_database(dialect, request, tmp_path) as target:
        things = make(source, kind)
        make(target, kind)
        fill(source)
        before = stored(source)
        export_tenant(source, things.metadata, "ours", tmp_path / "export", part_rows=7)
        assert stored(source) == before
        import_tenant(target, things.metadata, "ours", tmp_path / "export")
        assert stored(target) == before
        assert len(before[0]) > 0


SETTINGS = {
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "TimeZone": "Asia/Kolkata",
    "extra_float_digits": "-15",
}


def test_the_servers_settings_change_nothing(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with (
        new_database("postgresql", request, tmp_path) as source,
        new_database("postgresql", request, tmp_path) as target,
    ):
        things = make(source, "key")
        make(target, "key")
        fill(source)
        for database in (source, target):
            with database.engine.begin() as connection:
                for name, value in SETTINGS.items():
                    if database is source or name in ("DateStyle", "TimeZone"):
                        connection.exec_driver_sql(f"ALTER DATABASE {database.url.database} SET {name} = '{value}'")
            database.dispose()
        odd, plain = create_database(source.url), target
        export_tenant(odd, things.metadata, "ours", tmp_path / "export")
        import_tenant(plain, things.metadata, "ours", tmp_path / "export")
        assert stored(target) == stored(source)
        odd.dispose()


class Shouting(TypeDecorator[str]):
    """Loses something each time that a value is read."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:
        return value

    def process_result_value(self, value: str | None, dialect: object) -> str | None:
        raise AssertionError("the model's types take no part")


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_each_driver_has_written_is_the_same(
    driver: str, faces: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    face: Face = faces[driver]
    things = Table(
        f"things_{driver.replace('-', '_')}",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("tenant_id", String(9)),
        Column("pickled", PickleType),
        Column("shouted", Shouting(20)),
    )
    plain = create_database(face.database.url)
    things.metadata.create_all(plain.engine)
    with face.session() as session:
        row = {"id": 1, "tenant_id": "ours", "pickled": {"a": 1.5}, "shouted": "x"}
        if face.is_async:
            face(session.execute, things.insert(), [row])
        else:
            session.execute(things.insert(), [row])
        face(session.commit)
    manifest = export_tenant(plain, things.metadata, "ours", tmp_path / "export")
    plain.dispose()
    assert manifest.rows == 1
    with new_database(face.engine.dialect.name, request, tmp_path) as target:
        things.metadata.create_all(target.engine)
        import_tenant(target, things.metadata, "ours", tmp_path / "export")
        with target.engine.connect() as connection:
            assert connection.execute(select(things.c.pickled)).scalar_one() == {"a": 1.5}
            assert connection.execute(select(text("shouted")).select_from(things)).scalar_one() == "x"
    assert Manifest.read(tmp_path / "export").tables[0].columns[-1].name == "shouted"
