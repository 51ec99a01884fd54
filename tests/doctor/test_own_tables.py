"""The toolkit's own tables, which the models do not have: no difference, and nothing that a migration drops."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from alembic.autogenerate import produce_migrations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData, text

from dotmac_database import Database, create_database, idempotency_metadata, outbox_table
from dotmac_database.doctor import examine
from dotmac_database.history.alembic import compare_history
from dotmac_database.tenancy.alembic import compare_tenant_rls
from dotmac_database.transfers import transfer_metadata

from .models import Base

OUTBOX = MetaData()
outbox_table(OUTBOX)
OWN = (idempotency_metadata, transfer_metadata, OUTBOX)


@pytest.fixture
def target(dialect: str, database_url: str) -> Iterator[Database]:
    database = create_database(database_url)
    Base.metadata.create_all(database.engine)
    yield database
    for metadata in OWN:
        metadata.drop_all(database.engine)
    database.dispose()


def test_they_are_no_drift(target: Database) -> None:
    for metadata in OWN:
        metadata.create_all(target.engine)
    report = examine(target, Base.metadata, only=["schema-drift"])
    assert (report.findings, report.ran) == ((), ("schema-drift",))
    with target.engine.begin() as connection:
        connection.execute(text("DROP INDEX ix_dotmac_idempotency_keys_created_at"))
    every = [Base.metadata, *OWN]
    report = examine(target, every, only=["schema-drift"])  # where the models have them, a gap is one
    assert [each.object.rpartition(".")[2] for each in report] == ["ix_dotmac_idempotency_keys_created_at"]


@pytest.mark.parametrize("compare", [compare_history, compare_tenant_rls])
def test_no_migration_drops_them(target: Database, compare: Callable[[MetaData], Callable[..., None]]) -> None:
    kept = (idempotency_metadata, transfer_metadata)
    for metadata in kept:
        metadata.create_all(target.engine)
    with target.engine.begin() as connection:
        connection.execute(text("CREATE TABLE forgotten (id int)"))
    try:
        with target.engine.connect() as connection:
            context = MigrationContext.configure(connection)
            script = produce_migrations(context, Base.metadata)
            compare(Base.metadata)(context, None, [script])
        upgrade, downgrade = script.upgrade_ops, script.downgrade_ops
        assert upgrade is not None
        assert downgrade is not None
        dropped = [getattr(each, "table_name", None) for each in upgrade.ops if type(each).__name__ == "DropTableOp"]
        created = [
            getattr(each, "table_name", None) for each in downgrade.ops if type(each).__name__ == "CreateTableOp"
        ]
        assert (dropped, created) == (["forgotten"], ["forgotten"])
    finally:
        with target.engine.begin() as connection:
            connection.execute(text("DROP TABLE forgotten"))


def test_a_migration_creates_them(target: Database) -> None:
    with target.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        script = produce_migrations(context, [Base.metadata, idempotency_metadata])  # type: ignore[arg-type]  # Alembic also compares a list
        compare_history(Base.metadata)(context, None, [script])
    assert script.upgrade_ops is not None
    assert "dotmac_idempotency_keys" in [getattr(each, "table_name", None) for each in script.upgrade_ops.ops]
