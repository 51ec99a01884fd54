"""The table of the outbox is one of the user's metadata: for migrations, row-level security and checks of keys."""

from __future__ import annotations

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from dotmac_database import check_tenant_keys

from .models import OUTBOX, RLS, Base


@pytest.mark.parametrize("name", ["sqlite3-plain", "psycopg-plain"])
def test_autogenerate_finds_the_table_as_it_is(places: Any, name: str) -> None:
    with places[name].admin.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_row_level_security_protects_the_table(places: Any) -> None:
    assert (OUTBOX, "tenant_id") in RLS.tables()
    with places["psycopg-rls"].engine.connect() as connection:
        assert RLS.verify(connection) == []


def test_the_table_has_no_loose_keys() -> None:
    assert check_tenant_keys(Base.metadata) == []
