"""A history in a real upgrade, a second revision that finds nothing to do, and a downgrade."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import String, inspect, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import HistoryMixin, SoftDeleteMixin, TenantMixin, create_repository
from dotmac_database.engines import Database
from tests.migration_scripts import env_of, run, write_scripts


class Base(DeclarativeBase):
    """The tables of the migrations."""


class Order(HistoryMixin, TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str] = mapped_column(String(20))
    card: Mapped[str | None] = mapped_column(info={"private": True})


ENV = env_of(
    "compare_history(Base.metadata, compare_tenant_rls(Base.metadata))",
    "from dotmac_database.history.alembic import compare_history",
    "from dotmac_database.tenancy.alembic import compare_tenant_rls",
    f"from {__name__} import Base",
)


@pytest.fixture(scope="module")
def tables() -> Any:
    return Base.metadata


def test_the_triggers_are_part_of_the_migrations(database: Database, tmp_path: Path) -> None:
    engine = database.engine
    with engine.begin() as connection:
        Base.metadata.drop_all(connection)
    write_scripts(tmp_path, ENV)
    run(engine, tmp_path, "revision", "first", autogenerate=True, rev_id="0001")
    script = next((tmp_path / "versions").glob("0001*")).read_text()
    line = "op.enable_history('orders', keys=['id'], tenant='tenant_id', mark='is_deleted', private=['card'])"
    assert script.count(line) == 1
    run(engine, tmp_path, "upgrade", "head")
    with database.sessions() as session:
        orders = create_repository(session, Order, "t")
        orders.create({"id": 1, "note": "a", "card": "4111"})
        orders.delete(1)
        assert [each.operation for each in orders.history(1)] == ["create", "soft_delete"]
    run(engine, tmp_path, "check")
    with engine.begin() as connection:
        dropped = "DROP TRIGGER orders_history_create"
        if connection.dialect.name == "postgresql":
            dropped = "DROP TRIGGER dotmac_history_insert ON orders"
        connection.execute(text(dropped))
    run(engine, tmp_path, "revision", "second", autogenerate=True, rev_id="0002")
    script = next((tmp_path / "versions").glob("0002*")).read_text()
    assert script.count(line) == 1
    assert "drop_table" not in script
    run(engine, tmp_path, "upgrade", "head")
    run(engine, tmp_path, "check")
    run(engine, tmp_path, "downgrade", "base")
    assert not {"orders", "orders_history"} & {*inspect(engine).get_table_names()}
    Base.metadata.create_all(engine)  # the fixture empties the tables
