"""Tables in the order of their foreign keys: as SQLAlchemy has them, and without a warning if the keys form a cycle."""

from __future__ import annotations

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, create_engine
from sqlalchemy.exc import SAWarning

from dotmac_database import RowLevelSecurity, create_database
from dotmac_database.doctor import examine
from dotmac_database.models.sorted_tables import sorted_tables
from dotmac_database.usage.tables import tenant_tables
from tests.models import Base


def _cyclic() -> MetaData:
    metadata = MetaData()
    for name, other in (("a", "b"), ("b", "a")):
        columns = [Column("id", Integer, primary_key=True), Column("tenant_id", String(9), nullable=False)]
        Table(name, metadata, *columns, Column("other", Integer, ForeignKey(f"{other}.id"), index=True))
    Table("c", metadata, Column("id", Integer, ForeignKey("a.id"), primary_key=True))
    return metadata


def test_without_a_cycle_the_order_is_sqlalchemys() -> None:
    assert sorted_tables(Base.metadata) == Base.metadata.sorted_tables


def test_a_cycle_spoils_the_order_of_no_other_table() -> None:
    metadata = _cyclic()
    with pytest.warns(SAWarning, match="unresolvable cycles"):
        assert metadata.sorted_tables
    names = [table.name for table in sorted_tables(metadata)]
    assert sorted(names) == ["a", "b", "c"]
    assert names.index("a") < names.index("c")


def test_nothing_that_goes_through_all_tables_warns_of_a_cycle() -> None:
    """A warning would be an error here."""
    metadata = _cyclic()
    RowLevelSecurity(metadata).create_statements()
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        assert tenant_tables(connection, [metadata]).absent
    engine.dispose()
    database = create_database("sqlite://")
    assert examine(database, metadata, skip=["schema-drift"])  # Alembic sorts by itself, and warns
    database.dispose()
