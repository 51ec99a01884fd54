"""Row-level security in a real upgrade and downgrade."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, MetaData, inspect, text

from dotmac_database import RowLevelSecurity
from dotmac_database.engines import make_engine
from tests.migration_scripts import env_of, run, write_scripts

from .models import Base

_ENV = env_of(
    "compare_tenant_rls(Base.metadata)",
    "from dotmac_database.tenancy.alembic import compare_tenant_rls",
    "from tests.tenancy.models import Base",
)
_BY_HAND = """
import sqlalchemy as sa
from alembic import op

import dotmac_database.tenancy.alembic

revision = "0001"
down_revision = None


def upgrade():
    op.create_table("users", sa.Column("id", sa.Integer, primary_key=True), sa.Column("tenant_id", sa.Integer))
    op.enable_tenant_rls("users", column_type="integer")


def downgrade():
    op.disable_tenant_rls("users")
    op.drop_table("users")
"""


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    return write_scripts(tmp_path, _ENV)


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    engine = make_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    yield engine
    engine.dispose()


def _protected(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(
            connection.scalars(
                text(
                    "SELECT c.relname FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid "
                    "WHERE c.relrowsecurity AND c.relforcerowsecurity ORDER BY 1"
                )
            )
        )


def test_operations_by_hand(engine: Engine, scripts: Path) -> None:
    (scripts / "versions" / "0001.py").write_text(_BY_HAND)
    run(engine, scripts, "upgrade", "head")
    assert _protected(engine) == ["users"]
    with engine.begin() as connection:
        assert "INTEGER" in str(connection.scalar(text("SELECT upper(pg_get_expr(polqual, polrelid)) FROM pg_policy")))
    run(engine, scripts, "downgrade", "base")
    assert _protected(engine) == []
    assert not inspect(engine).has_table("users")


def test_autogenerate_upgrade_and_downgrade(engine: Engine, scripts: Path) -> None:
    """Tables first; the policies come by themselves, and once they are there nothing is left to do."""
    Base.metadata.create_all(engine)
    run(engine, scripts, "revision", "policies", autogenerate=True)
    source = next((scripts / "versions").glob("*.py")).read_text()
    assert re.search(r"op\.enable_tenant_rls\('devices', column_type='UUID'\)", source)
    assert "op.enable_tenant_rls('org_seats', 'org', column_type='INTEGER')" in source
    assert "op.disable_tenant_rls('accounts')" in source
    run(engine, scripts, "upgrade", "head")
    rls = RowLevelSecurity(Base.metadata)
    assert _protected(engine) == sorted(table.name for table, _ in rls.tables())
    with engine.connect() as connection:
        findings = rls.verify(connection)
    assert [each.object for each in findings] == ["role postgres"]  # the migrations' role, not the application's
    run(engine, scripts, "revision", "nothing", autogenerate=True)
    assert "tenant_rls" not in max((scripts / "versions").glob("*nothing.py")).read_text()
    run(engine, scripts, "downgrade", "base")
    assert _protected(engine) == []


def test_the_policies_of_a_migration_are_those_of_the_metadata(engine: Engine, scripts: Path) -> None:
    Base.metadata.create_all(engine)
    run(engine, scripts, "revision", "policies", autogenerate=True)
    run(engine, scripts, "upgrade", "head")
    sql = text(
        "SELECT polrelid::regclass::text, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid) "
        "FROM pg_policy ORDER BY 1"
    )
    with engine.begin() as connection:
        migrated = connection.execute(sql).all()
        RowLevelSecurity(Base.metadata).apply(connection)
        assert connection.execute(sql).all() == migrated


_SIGNED_ENV = _ENV.replace(
    "compare_tenant_rls(Base.metadata)", "compare_tenant_rls(Base.metadata, signed=True)"
).replace("target_metadata=Base.metadata,", "target_metadata=Base.metadata,\n    include_schemas=True,")
_POLICIES = text(
    "SELECT polrelid::regclass::text, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid) "
    "FROM pg_policy ORDER BY 1"
)


@pytest.mark.parametrize("before", ["nothing", "unsigned"])
def test_signed_policies(engine: Engine, scripts: Path, before: str) -> None:
    """From nothing and from policies that believe any setting; once they are there nothing is left to do."""
    signed = RowLevelSecurity(Base.metadata, secret="a secret of the metadata")
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA IF EXISTS dotmac CASCADE")
        if before == "unsigned":
            RowLevelSecurity(Base.metadata).apply(connection)
        first = connection.execute(_POLICIES).all()
    (scripts / "env.py").write_text(_SIGNED_ENV)
    run(engine, scripts, "revision", "policies", autogenerate=True)
    source = next((scripts / "versions").glob("*.py")).read_text()
    assert "op.enable_tenant_rls('devices', column_type='UUID', signed=True)" in source
    assert "op.enable_tenant_rls('org_seats', 'org', column_type='INTEGER', signed=True)" in source
    assert ("op.disable_tenant_rls('accounts')" in source) is (before == "nothing")
    assert ("op.enable_tenant_rls('accounts')" in source) is (before == "unsigned")
    assert "a secret of the metadata" not in source
    run(engine, scripts, "upgrade", "head")
    with engine.begin() as connection:
        migrated = connection.execute(_POLICIES).all()
        assert all("dotmac." in using for _, using, _ in migrated)
        assert any("signing_keys" in each.object for each in signed.verify(connection))
        signed.install_secret(connection)
        with connection.begin_nested() as applied:
            signed.apply(connection)
            assert connection.execute(_POLICIES).all() == migrated
            applied.rollback()
    run(engine, scripts, "revision", "nothing", autogenerate=True)
    nothing = max((scripts / "versions").glob("*nothing.py")).read_text()
    assert "op." not in nothing.replace("from alembic import op", "")
    run(engine, scripts, "downgrade", "base")
    with engine.begin() as connection:
        assert connection.execute(_POLICIES).all() == first


def test_a_tables_name_may_hold_anything(engine: Engine, scripts: Path) -> None:
    script = _BY_HAND.replace('"users"', "'50% o:ff'").replace(
        'column_type="integer"', 'column_type="integer", signed=True'
    )
    (scripts / "versions" / "0001.py").write_text(script)
    run(engine, scripts, "upgrade", "head")
    assert _protected(engine) == ["50% o:ff"]
    run(engine, scripts, "downgrade", "base")
    assert _protected(engine) == []


def test_other_databases_are_left_alone(scripts: Path, tmp_path: Path) -> None:
    (scripts / "versions" / "0001.py").write_text(_BY_HAND)
    engine = make_engine(f"sqlite:///{tmp_path}/test.db")
    run(engine, scripts, "upgrade", "head")
    assert inspect(engine).has_table("users")
    run(engine, scripts, "downgrade", "base")
    engine.dispose()


def test_metadata_without_tenants_generates_nothing() -> None:
    assert RowLevelSecurity(MetaData()).drop_statements() == []
