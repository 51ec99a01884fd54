"""The leak test kit on the example's own models: no country sees another's rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session, sessionmaker

from dotmac_database import Database, create_database, guard_tenants
from dotmac_database.testing.leaks import assert_no_leaks, find_leaks
from example_app.models import Base, Country


@pytest.fixture
def guarded(database_url: str) -> Iterator[sessionmaker[Session]]:
    database: Database = create_database(database_url)
    Base.metadata.drop_all(database.engine)
    Base.metadata.create_all(database.engine)
    with database.sessions() as session:
        session.add_all([Country(code=code, name=code, airports=0) for code in ("AA", "BB")])
        session.commit()
    yield guard_tenants(sessionmaker(database.engine))
    Base.metadata.drop_all(database.engine)
    database.dispose()


def test_no_country_sees_anothers_rows(guarded: sessionmaker[Session]) -> None:
    assert_no_leaks(Base.metadata, guarded, keys=False, tenants=("AA", "BB"))


def test_no_key_leaves_its_country(guarded: sessionmaker[Session]) -> None:
    loose = [str(leak) for leak in find_leaks(Base.metadata, guarded, tenants=("AA", "BB"))]
    assert loose == []
