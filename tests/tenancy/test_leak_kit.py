"""The leak test kit: silent on sound models, and it names each hole that is planted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import MetaData, Table, event
from sqlalchemy.orm import Session, sessionmaker

from dotmac_database import guard_tenants, unscoped
from dotmac_database.engines import Database
from dotmac_database.testing.leaks import assert_no_leaks, async_find_leaks, find_leaks
from tests.conftest import Face

from .models import Account, Base


@pytest.fixture
def maker(database: Database) -> Iterator[Any]:
    return guard_tenants(sessionmaker(database.engine))


def test_sound_models_have_no_leaks(maker: Any) -> None:
    assert [str(each) for each in find_leaks(Base.metadata, maker, keys=False)] == []
    assert_no_leaks(Base.metadata, maker, keys=False)


def test_loose_keys_are_named(maker: Any) -> None:
    with pytest.raises(AssertionError, match=r"notes: foreign key to accounts: \(account_id\)"):
        assert_no_leaks(Base.metadata, maker)


def test_nothing_stays_behind(maker: Any, database: Database) -> None:
    find_leaks(Base.metadata, maker)
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM accounts").scalar() == 0


def test_the_async_face(face: Face) -> None:
    if not face.is_async:
        pytest.skip("the sync face has its own tests")
    maker = guard_tenants(face.database.async_sessions)
    assert face(async_find_leaks, Base.metadata, maker, keys=False) == []


def test_an_unguarded_session_is_named(database: Database) -> None:
    found = find_leaks(Base.metadata, sessionmaker(database.engine), keys=False)
    assert [each.attack for each in found] == ["not guarded"]


def test_a_listener_that_opens_the_guard_is_named(maker: Any) -> None:
    """A listener of the project's own that lets each SELECT across."""

    def open_up(state: Any) -> Any:
        if not state.is_select:
            return None
        with unscoped(state.session, reason="a mistake"):
            return state.invoke_statement()

    event.listen(maker.class_, "do_orm_execute", open_up)
    found = {(each.object, each.attack) for each in find_leaks(Base.metadata, maker, keys=False)}
    assert ("Account", "select") in found
    assert ("Account", "select of columns") in found


def test_a_listener_that_moves_rows_is_named(maker: Any) -> None:
    def before_flush(session: Session, *_: Any) -> None:
        for entity in session.new:
            if isinstance(entity, Account) and entity.tenant_id == "leak-attacker":
                entity.tenant_id = "leak-victim"

    event.listen(maker.class_, "before_flush", before_flush)
    found = find_leaks(Base.metadata, maker, keys=False)
    assert any(each.object == "Account" for each in found)


def test_a_table_that_belongs_to_nobody_is_named(maker: Any, database: Database) -> None:
    """A hole in a model: rows that hang on a tenant's, and have no tenant."""
    from sqlalchemy import Column, ForeignKey, Integer

    metadata = MetaData()
    for table in Base.metadata.tables.values():
        table.to_metadata(metadata)
    Table("comments", metadata, Column("id", Integer, primary_key=True), Column("note_id", ForeignKey("notes.id")))
    found = find_leaks(metadata, maker, keys=False)
    assert ("comments", "no tenant") in {(each.object, each.attack) for each in found}


def test_a_row_that_can_not_be_made_is_named(maker: Any) -> None:
    def broken(tenant: Any) -> Account:
        return Account(name=None)

    found = find_leaks(Base.metadata, maker, make={Account: broken}, keys=False)
    assert ("Account", "not tested") in {(each.object, each.attack) for each in found}
