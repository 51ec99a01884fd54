"""What is refused, before anything is written: damaged files, other tenants' rows, other schemas, conflicts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table
from sqlalchemy.ext.asyncio import create_async_engine

from dotmac_database import (
    ALL_TENANTS,
    Database,
    DatabaseError,
    DuplicateEntityError,
    MisuseError,
    TenantIsolationError,
    TenantNotGivenError,
    ValidationError,
)
from dotmac_database.dialects.history_triggers import RETENTION
from dotmac_database.dialects.settings import send_settings
from dotmac_database.transfers import delete_tenant, export_tenant, import_tenant, verify_export
from dotmac_database.transfers.files import checksum

from . import models

Edit = Callable[[dict[str, Any], Path], None]


def rewrite(manifest: dict[str, Any], folder: Path, table: str, old: str, new: str) -> None:
    """Change a table's rows, and the checksums in the manifest, as one does who wants to deceive."""
    for each in manifest["tables"]:
        for part in each["parts"] if each["name"] == table else ():
            content = (folder / part["file"]).read_text().replace(old, new).encode()
            (folder / part["file"]).write_bytes(content)
            part.update(size=len(content), sha256=checksum(content))


def damage(name: str) -> Edit:
    def edit(_: dict[str, Any], folder: Path) -> None:
        path = next(folder.glob("*-tags/*.ndjson"))
        content = path.read_bytes()
        changed = {"flipped": content.replace(b"tag 1", b"tag 9", 1), "cut": content[:-5], "longer": content + b"{}\n"}
        path.write_bytes(changed[name]) if name in changed else path.unlink()

    return edit


def set_tables(**values: Any) -> Edit:
    return lambda manifest, _: next(t for t in manifest["tables"] if t["name"] == "tags").update(values)


def set_part(**values: Any) -> Edit:
    return lambda manifest, _: next(t for t in manifest["tables"] if t["name"] == "tags")["parts"][0].update(values)


FILES: dict[str, tuple[Edit, str]] = {
    "a flipped byte": (damage("flipped"), "checksum differs"),
    "a cut file": (damage("cut"), "checksum differs"),
    "a longer file": (damage("longer"), "checksum differs"),
    "a missing file": (damage("missing"), "is missing"),
    "a file outside": (set_part(file="../secret"), "outside of its folder"),
    "another number of rows": (set_part(rows=2), "number of rows"),
    "no number": (set_part(rows=True), "a number is missing"),
    "no columns": (set_tables(columns=None), "a list is missing"),
    "a newer format": (lambda manifest, _: manifest["head"].update(format=2), "newer"),
    "another column": (
        lambda manifest, folder: rewrite(manifest, folder, "tags", '"word"', '"words"'),
        "is no row with the columns of tags",
    ),
    "no JSON": (
        lambda manifest, folder: rewrite(manifest, folder, "tags", "{", "["),
        "is no row with the columns of tags",
    ),
}


SOME = ("a flipped byte", "a file outside", "another column")


@pytest.mark.parametrize(
    "case", [each if each in SOME else pytest.param(each, marks=pytest.mark.matrix) for each in FILES]
)
def test_damaged_exports_are_refused(exported: Path, target: Database, tmp_path: Path, case: str) -> None:
    folder = tmp_path / "export"
    shutil.copytree(exported, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    edit, message = FILES[case]
    edit(manifest, folder)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValidationError, match=message):
        verify_export(folder)
    with pytest.raises(ValidationError, match=message):
        import_tenant(target, models.METADATA, "ours", folder)
    nothing_is_there(target)


def nothing_is_there(database: Database) -> None:
    with database.engine.connect() as connection:
        assert not any("ours" in repr(rows) for rows in models.every_row(connection).values())


TAMPERED: dict[str, tuple[str, str, str]] = {
    "the tenant column": ("tags", '"tenant_id":"ours"', '"tenant_id":"theirs"'),
    "one row of many": ("teams", '"leader_id":101,"tenant_id":"ours"', '"leader_id":101,"tenant_id":"theirs"'),
    "a key with the tenant": ("orders", '"tenant_id":"ours","number":3', '"tenant_id":"theirs","number":3'),
    "a row found by its parent": ("lines", '"account":"ours"', '"account":"theirs"'),
    "an association": ("customer_tags", '"tag_id":100', '"tag_id":200'),
    "the tenant itself": ("accounts", '"id":"ours"', '"id":"others"'),
    "no tenant": ("tags", '"tenant_id":"ours"', '"tenant_id":null'),
    "the outbox": ("dotmac_outbox", '"tenant_id":"ours"', '"tenant_id":"theirs"'),
    "history": ("customers_history", '"tenant_id":"ours"', '"tenant_id":"theirs"'),
}


@pytest.fixture(scope="module")
def without_history(target: Database) -> Database:
    """The other tenant's entries are deleted, since their numbers are those of the export's entries."""
    with target.engine.begin() as connection:
        send_settings(connection, {RETENTION: "on"})
        for name in ("customers", "lines", "people"):
            connection.exec_driver_sql(f"DELETE FROM {name}_history")
    return target


@pytest.mark.parametrize("case", TAMPERED)
def test_rows_of_another_tenant_are_refused(
    exported: Path, without_history: Database, tmp_path: Path, case: str
) -> None:
    folder, target = tmp_path / "export", without_history
    shutil.copytree(exported, folder)
    with target.engine.connect() as connection:
        before = models.every_row(connection)
    manifest = json.loads((folder / "manifest.json").read_text())
    table, old, new = TAMPERED[case]
    sums = [p["sha256"] for t in manifest["tables"] for p in t["parts"]]
    rewrite(manifest, folder, table, old, new)
    assert sums != [p["sha256"] for t in manifest["tables"] for p in t["parts"]], "nothing was changed"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TenantIsolationError, match=f"row of {table} that belongs to another tenant"):
        import_tenant(target, models.METADATA, "ours", folder)
    with target.engine.connect() as connection:
        after = models.every_row(connection)
    for name, rows in before.items():
        assert set(rows) <= set(after[name])
    if table in ("lines", "customer_tags"):  # they are compared when they are written, and what came before is ours
        delete_tenant(target, models.METADATA, "ours")
        with target.engine.connect() as connection:
            after = models.every_row(connection)
    assert after == before


def test_a_tenant_that_is_there_is_refused(source: Database, exported: Path) -> None:
    with pytest.raises(DuplicateEntityError, match="The tenant has 1 row in accounts already"):
        import_tenant(source, models.METADATA, "ours", exported)
    with pytest.raises(TenantIsolationError, match="another tenant"):
        import_tenant(source, models.METADATA, "theirs", exported)


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("INSERT INTO tags (id, tenant_id, word) VALUES (102, 'x', 'w')", "tags"),
        ("INSERT INTO emails (id, tenant_id, address) VALUES ('other', 'x', '101@example.com')", "emails"),
        ("INSERT INTO lines (id, account, order_number, data) VALUES (100, 'x', 1, 'x')", "lines"),
    ],
)
def test_a_key_of_another_tenant_is_refused(exported: Path, empty: Database, statement: str, table: str) -> None:
    with empty.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO accounts (id, title) VALUES ('x', 'x')")
        connection.exec_driver_sql(
            "INSERT INTO customers (tenant_id, \"the {}name\", credit, is_deleted) VALUES ('x', 'x', 1, {})".format(
                *(("%%", "false") if connection.dialect.name == "postgresql" else ("%", "0"))
            )
        )
        connection.exec_driver_sql("INSERT INTO orders (tenant_id, number, customer_id) VALUES ('x', 1, 1)")
        connection.exec_driver_sql(statement)
        send_settings(connection, {RETENTION: "on"})
        connection.exec_driver_sql("DELETE FROM customers_history")
    with pytest.raises(DuplicateEntityError, match=f"rows of another tenant in {table} have the same") as caught:
        import_tenant(empty, models.METADATA, "ours", exported)
    assert "101@" not in str(caught.value)
    assert sum(delete_tenant(empty, models.METADATA, "ours", dry_run=True).rows.values()) == 0


def test_a_dry_run_writes_nothing(exported: Path, empty: Database) -> None:
    report = import_tenant(empty, models.METADATA, "ours", exported, dry_run=True)
    assert report.dry_run
    assert report.rows["tags"] == 3
    nothing_is_there(empty)
    with empty.engine.connect() as connection:
        assert not connection.dialect.has_table(connection, "dotmac_transfers")


@pytest.mark.parametrize(
    ("ddl", "message"),
    [
        ("ALTER TABLE tags ADD COLUMN colour varchar(9)", "the export has no column tags.colour"),
        ("ALTER TABLE emails RENAME COLUMN address TO mail", "the database has no column emails.address"),
        ("DROP TABLE visits", "the database has no table visits"),
    ],
)
def test_another_schema_is_named(exported: Path, empty: Database, ddl: str, message: str) -> None:
    with empty.engine.begin() as connection:
        connection.exec_driver_sql(ddl)
    with pytest.raises(MisuseError, match=message):
        import_tenant(empty, models.METADATA, "ours", exported)
    with empty.engine.connect() as connection:
        assert models.count(connection, models.Account.__table__) == 0


def test_columns_that_no_model_has_are_exported(copy: Database, tmp_path: Path) -> None:
    with copy.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE tags ADD COLUMN colour varchar(9)")
        connection.exec_driver_sql("UPDATE tags SET colour = 'red'")
    export_tenant(copy, models.METADATA, "ours", tmp_path / "export")
    delete_tenant(copy, models.METADATA, "ours")
    import_tenant(copy, models.METADATA, "ours", tmp_path / "export")
    with copy.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM tags WHERE colour = 'red'").scalar_one() == 6


def test_folders_with_something_else_are_refused(source: Database, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    with pytest.raises(ValidationError, match="other files"):
        export_tenant(source, models.METADATA, "ours", tmp_path / "other")
    assert (tmp_path / "other" / "file").read_text() == "mine"
    export_tenant(source, models.METADATA, "ours", tmp_path / "export")
    with pytest.raises(ValidationError, match="finished"):
        export_tenant(source, models.METADATA, "ours", tmp_path / "export")
    with pytest.raises(TenantIsolationError, match="another tenant"):
        export_tenant(source, models.METADATA, "theirs", tmp_path / "export")
    with pytest.raises(ValidationError, match="no export"):
        verify_export(tmp_path / "nothing")


def test_wrong_calls_are_refused(source: Database, tmp_path: Path) -> None:
    engine: Any = create_async_engine("sqlite+aiosqlite://")
    cases: list[tuple[Any, Any, Any, type[DatabaseError]]] = [
        (engine, models.METADATA, "ours", MisuseError),
        (source, models.METADATA, None, TenantNotGivenError),
        (source, models.METADATA, ALL_TENANTS, ValidationError),
        (source, models.METADATA, 1.5, ValidationError),
    ]
    for database, metadata, tenant, error in cases:
        with pytest.raises(error):
            export_tenant(database, metadata, tenant, tmp_path / "never")
        with pytest.raises(error):
            delete_tenant(database, metadata, tenant)
    with pytest.raises(ValidationError, match="part_rows"):
        export_tenant(source, models.METADATA, "ours", tmp_path / "never", part_rows=0)
    assert not (tmp_path / "never").exists()


def test_rows_of_others_that_reference_the_tenant_block_a_deletion(copy: Database) -> None:
    with copy.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO pointers (id, tag_id, email_id) VALUES (1, 100, 'e100'), (2, 200, 'e100')"
        )
        connection.exec_driver_sql("INSERT INTO categories (id, tenant_id, parent_id) VALUES (900, 'theirs', 100)")
        before = models.every_row(connection)
    report = delete_tenant(copy, models.METADATA, "ours", dry_run=True)
    assert report.blocked
    reasons = {(each.table, each.rows, each.blocks) for each in report.remaining if each.rows}
    assert reasons == {("pointers", 1, True), ("pointers", 2, False), ("categories", 1, True)}
    with pytest.raises(DatabaseError, match="1 row of categories: parent_id references categories"):
        delete_tenant(copy, models.METADATA, "ours")
    with copy.engine.begin() as connection:
        assert models.every_row(connection) == before
        connection.exec_driver_sql("UPDATE pointers SET tag_id = 200")
        connection.exec_driver_sql("DELETE FROM categories WHERE id = 900")
    report = delete_tenant(copy, models.METADATA, "ours")
    assert all(report.rows.values())
    with copy.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM pointers WHERE email_id IS NULL").scalar_one() == 2


def test_a_deletion_reports_what_nobody_knows(copy: Database) -> None:
    with copy.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE reports (tenant_id varchar(20))")
        connection.exec_driver_sql("ALTER TABLE visits RENAME TO visits_of_old")
        connection.exec_driver_sql("CREATE VIEW visits AS SELECT * FROM visits_of_old")
    remaining = {each.table: each.reason for each in delete_tenant(copy, models.METADATA, "ours").remaining}
    assert "no model has this table" in remaining["reports"]
    assert "name no tenant" in remaining["lines_history"]
    assert "if it is a view" in remaining["visits"]
    assert set(remaining) == {"reports", "lines_history", "visits", "visits_of_old"}


def test_a_cycle_that_can_not_be_written_is_named(dialect: str, tmp_path: Path) -> None:
    from dotmac_database.dialects.stored import stored_rows_of
    from dotmac_database.transfers.holdings import holdings_of
    from dotmac_database.transfers.order import order_of

    metadata = MetaData()
    for own, other in (("hens", "eggs"), ("eggs", "hens")):
        Table(
            own,
            metadata,
            Column("id", Integer, primary_key=True),
            Column("tenant_id", String(9)),
            Column("other", ForeignKey(f"{other}.id", name=f"fk_{own}", use_alter=True), nullable=False),
        )
    order = order_of(holdings_of(metadata), stored_rows_of(dialect).defers)
    groups = [{table.name for table in each} for each in order.unbreakable + order.together]
    assert groups == [{"hens", "eggs"}]
    assert bool(order.unbreakable) is (dialect == "postgresql")
