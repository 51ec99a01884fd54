"""A history in a real upgrade, a second revision that finds nothing to do, and a downgrade."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, String, inspect, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import HistoryMixin, SoftDeleteMixin, TenantMixin, create_repository
from dotmac_database.engines import Database


class Base(DeclarativeBase):
    """The tables of the migrations."""


class Order(HistoryMixin, TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str] = mapped_column(String(20))
    card: Mapped[str | None] = mapped_column(info={"private": True})


ENV = f"""
from alembic import context
from dotmac_database.history.alembic import compare_history
from dotmac_database.tenancy.alembic import compare_tenant_rls
from {__name__} import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    process_revision_directives=compare_history(Base.metadata, compare_tenant_rls(Base.metadata)),
)
with context.begin_transaction():
    context.run_migrations()
"""
TEMPLATE = '''"""${message}"""
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade():
    ${upgrades if upgrades else "pass"}


def downgrade():
    ${downgrades if downgrades else "pass"}
'''


@pytest.fixture(scope="module")
def tables() -> Any:
    return Base.metadata


def run(engine: Engine, folder: Path, name: str, *args: Any, **options: Any) -> Any:
    config = Config()
    config.set_main_option("script_location", str(folder))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        return getattr(command, name)(config, *args, **options)


def test_the_triggers_are_part_of_the_migrations(database: Database, tmp_path: Path) -> None:
    engine = database.engine
    with engine.begin() as connection:
        Base.metadata.drop_all(connection)
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(ENV)
    (tmp_path / "script.py.mako").write_text(TEMPLATE)
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
