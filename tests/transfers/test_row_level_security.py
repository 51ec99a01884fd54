"""Roles to which row-level security applies: they see all of the tenant's rows, or the transfer is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dotmac_database import (
    Database,
    MisuseError,
    PermissionDeniedError,
    RowLevelSecurity,
    create_database,
    idempotency_metadata,
)
from dotmac_database.transfers import Manifest, delete_tenant, export_tenant, import_tenant, transfer_metadata

from . import models
from .conftest import new_database

ROLES = (f"transfer_owner_{os.getpid()}", f"transfer_app_{os.getpid()}")
OWNER, APP = ROLES
SECRET = "a secret of sixteen bytes"


@pytest.fixture(params=[pytest.param(None, marks=pytest.mark.matrix), SECRET], ids=["plain", "signed"])
def secret(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def rls(secret: Any) -> RowLevelSecurity:
    return RowLevelSecurity(models.Base.metadata, secret=secret)


@pytest.fixture
def protected(rls: RowLevelSecurity, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database of PostgreSQL with two tenants and policies, whose tables belong to a role that is no superuser."""
    with new_database("postgresql", request, tmp_path) as database:
        with database.engine.begin() as connection:
            for role in ROLES:
                connection.exec_driver_sql(f"DROP ROLE IF EXISTS {role}")
                connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
            connection.exec_driver_sql(f"GRANT CREATE ON DATABASE {database.url.database} TO {OWNER}")
            connection.exec_driver_sql(f"GRANT ALL ON SCHEMA public TO {OWNER}")
            connection.exec_driver_sql(f"SET LOCAL ROLE {OWNER}")
            models.create(connection)
            transfer_metadata.create_all(connection)
            connection.exec_driver_sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {APP}")
            connection.exec_driver_sql(f"GRANT USAGE, UPDATE ON ALL SEQUENCES IN SCHEMA public TO {APP}")
        with database.engine.begin() as connection:
            models.fill(connection, "ours", 100)
            models.fill(connection, "theirs", 200)
        with database.engine.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL ROLE {OWNER}")
            rls.apply(connection)
            RowLevelSecurity(idempotency_metadata, secret=rls.signer and SECRET).apply(connection)
        yield database
        with database.engine.begin() as connection:
            for role in ROLES:
                connection.exec_driver_sql(f"DROP OWNED BY {role} CASCADE")
                connection.exec_driver_sql(f"DROP ROLE {role}")


def as_role(database: Database, role: str) -> Database:
    return create_database(database.url.set(username=role))


def content(folder: Path) -> list[tuple[str, str]]:
    return [(part.file, part.sha256) for each in Manifest.read(folder).tables for part in each.parts]


@pytest.mark.parametrize("role", ROLES, ids=["owner", "app"])
def test_the_tenants_rows_are_all_seen_and_no_others(
    protected: Database, rls: RowLevelSecurity, role: str, tmp_path: Path
) -> None:
    export_tenant(protected, models.METADATA, "ours", tmp_path / "superuser")
    confined = as_role(protected, role)
    other = RowLevelSecurity(models.Base.metadata, secret="another secret of the app")
    for wrong in (None, other) if rls.signer else ():
        with pytest.raises(PermissionDeniedError, match="Row-level security hides rows of"):
            export_tenant(confined, models.METADATA, "ours", tmp_path / "never", rls=wrong)
        with pytest.raises(PermissionDeniedError, match="tags"):
            delete_tenant(confined, models.METADATA, "ours", rls=wrong)
    export_tenant(confined, models.METADATA, "ours", tmp_path / "confined", rls=rls)
    assert content(tmp_path / "confined") == content(tmp_path / "superuser")
    with protected.engine.connect() as connection:
        before = models.every_row(connection)
    report = delete_tenant(confined, models.METADATA, "ours", rls=rls)
    assert all(report.rows.values())
    with protected.engine.connect() as connection:
        left = models.every_row(connection)
    assert not any("ours" in repr(rows) for rows in left.values())
    if role == APP:  # the triggers of histories pause for their owner only
        with pytest.raises(MisuseError, match="import as the owner"):
            import_tenant(confined, models.METADATA, "ours", tmp_path / "superuser", rls=rls)
    else:
        import_tenant(confined, models.METADATA, "ours", tmp_path / "superuser", rls=rls)
        with protected.engine.connect() as connection:
            assert models.every_row(connection) == before
    confined.dispose()


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("CREATE POLICY of_rights ON tags AS RESTRICTIVE USING (word <> 'tag 100')", "tags"),
        ("DROP POLICY dotmac_tenant ON visits", "visits"),
        ("DROP POLICY dotmac_tenant ON customer_tags", "customer_tags"),
        ("DROP POLICY dotmac_tenant ON dotmac_idempotency_keys", "dotmac_idempotency_keys"),
    ],
)
def test_another_policy_that_hides_rows_is_noticed(
    statement: str, table: str, protected: Database, rls: RowLevelSecurity, tmp_path: Path
) -> None:
    with protected.engine.begin() as connection:
        connection.exec_driver_sql(statement)
    confined = as_role(protected, APP)
    for transfer in (
        lambda: export_tenant(confined, models.METADATA, "ours", tmp_path / "never", rls=rls),
        lambda: delete_tenant(confined, models.METADATA, "ours", rls=rls),
    ):
        with pytest.raises(PermissionDeniedError, match=f"hides rows of {table} from the role"):
            transfer()
    confined.dispose()
