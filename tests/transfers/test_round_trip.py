"""An export that is imported gives the same rows, in tables of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dotmac_database import Database
from dotmac_database.transfers import Manifest, delete_tenant, export_tenant, import_tenant, verify_export

from . import models


def tenants_rows(database: Database, tenant: str, folder: Path) -> dict[str, list[bytes]]:
    """The tenant's rows by table, as an export of its own has them."""
    manifest = export_tenant(database, models.METADATA, tenant, folder)
    return {t.name: [(folder / part.file).read_bytes() for part in t.parts] for t in manifest.tables}


@pytest.mark.parametrize(("part_rows", "compress"), [(2, True), (5_000, False)])
def test_the_rows_are_the_same(
    source: Database, empty: Database, tmp_path: Path, compress: bool, part_rows: int
) -> None:
    folder = tmp_path / "export"
    manifest = export_tenant(source, models.METADATA, "ours", folder, compress=compress, part_rows=part_rows)
    assert verify_export(folder) == manifest == Manifest.read(folder)
    assert all(table.rows for table in manifest.tables), [table.name for table in manifest.tables if not table.rows]
    assert {table.name for table in manifest.tables} == {t.name for t in models.TABLES} - {"countries", "pointers"}
    report = import_tenant(empty, models.METADATA, "ours", folder)
    assert report.rows == {table.name: table.rows for table in manifest.tables}
    assert tenants_rows(empty, "ours", tmp_path / "a") == tenants_rows(source, "ours", tmp_path / "b")
    with empty.engine.connect() as ours, source.engine.connect() as both:
        rows, all_rows = models.every_row(ours), models.every_row(both)
    for name in rows:
        assert set(rows[name]) <= set(all_rows[name])
        assert len(rows[name]) == report.rows.get(name, len(rows[name]))


def test_another_tenants_rows_stay(copy: Database, tmp_path: Path) -> None:
    with copy.engine.connect() as connection:
        before = models.every_row(connection)
    export_tenant(copy, models.METADATA, "ours", tmp_path / "export")
    theirs = tenants_rows(copy, "theirs", tmp_path / "theirs")
    report = delete_tenant(copy, models.METADATA, "ours", batch_rows=2)
    assert all(report.rows.values()), report.rows
    assert not report.blocked
    assert tenants_rows(copy, "theirs", tmp_path / "again") == theirs
    assert sum(len(rows) for rows in tenants_rows(copy, "ours", tmp_path / "nothing").values()) == 0
    import_tenant(copy, models.METADATA, "ours", tmp_path / "export")
    with copy.engine.connect() as connection:
        assert models.every_row(connection) == before


def test_new_rows_get_keys_beyond_the_imported_ones(source: Database, empty: Database, tmp_path: Path) -> None:
    export_tenant(source, models.METADATA, "ours", tmp_path / "export")
    import_tenant(empty, models.METADATA, "ours", tmp_path / "export")
    tag: Any = models.Tag.__table__
    with empty.engine.begin() as connection:
        assert connection.execute(tag.insert().values(tenant_id="ours", word="new")).inserted_primary_key[0] > 102
        connection.exec_driver_sql(
            "INSERT INTO customers (tenant_id, \"the %%name\", credit, is_deleted) VALUES ('ours', 'x', 1, false)"
            if connection.dialect.name == "postgresql"
            else "INSERT INTO customers (tenant_id, \"the %name\", credit, is_deleted) VALUES ('ours', 'x', 1, 0)"
        )
        history = connection.exec_driver_sql("SELECT count(*) FROM customers_history").scalar_one()
    assert history == 5  # three rows and an update before the export, and the new one: the triggers work again
