"""Whether rows exist is asked without counting them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dotmac_database import Database
from dotmac_database.transfers import has_rows, import_tenant
from tests.conftest import counted

from . import models


@pytest.mark.parametrize(("tenant", "expected"), [("ours", True), ("theirs", True), ("nobody", False)])
def test_whether_a_tenant_has_rows(source: Database, tenant: str, expected: bool) -> None:
    with counted(source.engine) as sent:
        assert has_rows(source, models.METADATA, tenant) is expected
    looks = [each for each in sent if each.startswith("SELECT EXISTS")]
    assert (len(looks) == 1) is expected
    assert not any("count(*)" in each for each in sent)


def test_an_import_counts_no_whole_table(exported: Path, empty: Database) -> None:
    with counted(empty.engine) as sent:
        import_tenant(empty, models.METADATA, "ours", exported, dry_run=True)
    whole = [each.partition(" FROM ")[0] for each in sent if each.rstrip(")").endswith(("WHERE true", "WHERE 1"))]
    assert set(whole) == {"SELECT EXISTS (SELECT 1"}
