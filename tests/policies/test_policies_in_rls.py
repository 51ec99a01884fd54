"""The rules of an actor as PostgreSQL's policies: each command, by raw SQL and by the ORM, for each actor.

What a cell must do is computed from the rows in Python. Repositories on the same rows must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from dotmac_database import (
    EntityNotFoundError,
    QueryFilter,
    RowLevelSecurity,
    UnscopedStatementError,
    bind_policies,
    bind_tenant,
    create_repository,
    unscoped,
)
from dotmac_database.engines import Database
from dotmac_database.policies import Right
from dotmac_database.row_policies import exercising
from tests.conftest import Face
from tests.tenancy.conftest import Guarded

from .row_models import ACTORS, NOTES, POLICY, Actor, Base, Note

PLAIN = RowLevelSecurity(Base.metadata, policies=[POLICY])
SIGNED = RowLevelSecurity(Base.metadata, policies=[POLICY], secret="a secret of the tests")
REFUSED = "refused"
Row = dict[str, Any]


WAYS = [
    pytest.param(("plain", "async"), id="plain asyncpg"),
    pytest.param(("signed", "sync"), id="signed psycopg"),
    pytest.param(("plain", "sync"), id="plain psycopg", marks=pytest.mark.matrix),
    pytest.param(("signed", "async"), id="signed asyncpg", marks=pytest.mark.matrix),
]


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Whether settings are signed, and the driver's face."""
    found: tuple[str, str] = request.param
    return found


@pytest.fixture(scope="module")
def rls(way: tuple[str, str], owner_engine: Engine) -> RowLevelSecurity:
    made = SIGNED if way[0] == "signed" else PLAIN
    with owner_engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA IF EXISTS dotmac CASCADE")  # the functions of signed settings
        made.apply(connection)
        made.apply(connection)
    return made


@pytest.fixture
def guarded(app: Database, rls: RowLevelSecurity, way: tuple[str, str]) -> Iterator[Guarded]:
    face = Face(way[1], app)
    made = Guarded(face, rls=rls)
    yield made
    made.close()
    if face.is_async:
        face.runner.run(app.async_engine.dispose())
        del app.__dict__["async_engine"]
        app.__dict__.pop("async_sessions", None)
    face.runner.close()


def reads(row: Row, actor: Actor) -> bool:
    return row["owner_id"] == actor.id or actor.role == "auditor"


def updates(row: Row, actor: Actor) -> bool:
    return reads(row, actor) and row["owner_id"] == actor.id


def deletes(row: Row, actor: Actor) -> bool:
    return updates(row, actor) and row["title"] != "kept"


def admitted(rule: Callable[[Row, Actor], bool], actor: Actor | None, tenant: str = "a") -> list[int]:
    """The keys of the rows that a rule admits."""
    return [row["id"] for row in NOTES if row["tenant_id"] == tenant and actor is not None and rule(row, actor)]


def may(condition: bool) -> object:
    return 1 if condition else REFUSED


def _changed(sql: str) -> Callable[[Session, str], object]:
    def run(session: Session, _tenant: str) -> object:
        return sorted(session.execute(text(f"{sql} RETURNING id")).scalars())

    return run


def _count(sql: str) -> Callable[[Session, str], object]:
    return lambda session, tenant: session.execute(text(sql), {"tenant": tenant}).rowcount  # type: ignore[attr-defined]


def _orm(change: Callable[[Note], object]) -> Callable[[Session, str], object]:
    """Change the objects that the actor can read, each by a flush; the keys of those that were changed."""

    def run(session: Session, _tenant: str) -> object:
        changed = []
        for entity in session.scalars(select(Note).order_by(Note.id)).all():
            number = entity.id
            try:
                with session.begin_nested():
                    session.delete(entity) if change(entity) == "delete" else None
                    session.flush()
                changed.append(number)
            except Exception as error:  # noqa: BLE001 - a warning is an error here, too
                assert "expected to" in str(error) or "row-level security" in str(error), error  # noqa: PT017 - not each cell raises
        return changed

    return run


def _orm_insert(owner: int) -> Callable[[Session, str], object]:
    def run(session: Session, tenant: str) -> object:
        session.add(Note(id=50, owner_id=owner, title="new"))
        session.flush()
        return 1

    return run


def _with_delete(run: Callable[[Session, str], object]) -> Callable[[Session, str], object]:
    def exercised(session: Session, tenant: str) -> object:
        with exercising(session, Right.DELETE):
            return run(session, tenant)

    return exercised


INSERT = (
    "INSERT INTO notes (id, tenant_id, owner_id, title, level, is_deleted) VALUES (50, :tenant, {}, 'n', 'LOW', false)"
)
UPSERT = (
    "INSERT INTO notes (id, tenant_id, owner_id, title, level, is_deleted) VALUES ({}, :tenant, {}, 'n', 'LOW', false) "
    "ON CONFLICT (id) DO UPDATE SET title = 'upserted'"
)
SOFTLY = "UPDATE notes SET is_deleted = true"
Cell = tuple[Callable[[Session, str], object], Callable[[Actor | None], object]]

CELLS: dict[str, Cell] = {
    "select": (
        lambda session, _: sorted(session.execute(text("SELECT id FROM notes")).scalars()),
        lambda actor: admitted(reads, actor),
    ),
    "count": (
        lambda session, _: session.execute(text("SELECT count(*) FROM notes")).scalar(),
        lambda actor: len(admitted(reads, actor)),
    ),
    "for update": (
        lambda session, _: sorted(session.execute(text("SELECT id FROM notes FOR UPDATE")).scalars()),
        lambda actor: admitted(updates, actor),
    ),
    "insert": (_count(INSERT.format(1)), lambda actor: may(actor is not None and actor.id == 1)),
    "insert returning": (
        _count(INSERT.format(2) + " RETURNING id"),
        lambda actor: may(actor is not None and actor.id == 2),
    ),
    "insert of a row that is nobody's": (_count(INSERT.format("NULL")), lambda _: REFUSED),
    "update": (_changed("UPDATE notes SET title = 'y'"), lambda actor: admitted(updates, actor)),
    "update without reading": (
        _count("UPDATE notes SET title = 'y'"),
        lambda actor: len(admitted(updates, actor)),
    ),
    "give away": (
        _count("UPDATE notes SET owner_id = 9"),
        lambda actor: REFUSED if admitted(updates, actor) else 0,
    ),
    "delete": (_changed("DELETE FROM notes"), lambda actor: admitted(deletes, actor)),
    "delete without reading": (_count("DELETE FROM notes"), lambda actor: len(admitted(deletes, actor))),
    "upsert of one's own": (_count(UPSERT.format(1, 1)), lambda actor: may(actor is not None and actor.id == 1)),
    "upsert of another's": (_count(UPSERT.format(2, 1)), lambda _: REFUSED),
    "soft delete by hand": (_changed(SOFTLY), lambda actor: admitted(updates, actor)),
    "soft delete": (_with_delete(_changed(SOFTLY)), lambda actor: admitted(deletes, actor)),
    "restore": (
        _with_delete(_changed("UPDATE notes SET is_deleted = false WHERE is_deleted")),
        lambda actor: [each for each in admitted(deletes, actor) if each == 4],
    ),
    "foreign key to an unreadable row": (
        _count("INSERT INTO remarks (id, tenant_id, note_id) VALUES (1, :tenant, 5)"),
        lambda _: 1,
    ),
    "flush: insert": (_orm_insert(1), lambda actor: may(actor is not None and actor.id == 1)),
    "flush: update": (_orm(lambda row: setattr(row, "title", "z")), lambda actor: admitted(updates, actor)),
    "flush: give away": (_orm(lambda row: setattr(row, "owner_id", 9)), lambda _: []),
    "flush: delete": (_orm(lambda _: "delete"), lambda actor: admitted(deletes, actor)),
}


@pytest.mark.parametrize("who", ACTORS)
def test_each_command_for_each_actor(guarded: Guarded, who: str) -> None:
    actor = ACTORS[who]
    session = guarded.session()
    bind_tenant(session, "a")
    if actor is not None:
        bind_policies(session, [], actor=actor)

    def attempt(sync: Session, run: Callable[[Session, str], object]) -> object:
        try:
            return run(sync, "a")
        except DBAPIError as error:
            assert getattr(error.orig, "sqlstate", None) == "42501", error  # noqa: PT017 - as above
            return REFUSED
        finally:
            sync.rollback()

    def attempts(sync: Session) -> dict[str, object]:
        return {name: attempt(sync, run) for name, (run, _) in CELLS.items()}

    assert guarded.run(session, attempts) == {name: expected(actor) for name, (_, expected) in CELLS.items()}


@pytest.mark.parametrize("who", ["owner", "other", "auditor"])
def test_repositories_and_the_database_agree(guarded: Guarded, owner_engine: Engine, who: str) -> None:
    actor = ACTORS[who]
    with Session(owner_engine) as plain:  # a superuser, whom the policies do not bind
        bind_policies(plain, [POLICY], actor=actor)
        by_repository = sorted(each.id for each in create_repository(plain, Note, tenant_id="a").list())
    session = guarded.session()
    bind_tenant(session, "a")
    bind_policies(session, [], actor=actor)
    statement = text("SELECT id FROM notes WHERE NOT is_deleted ORDER BY id")
    assert guarded.run(session, lambda sync: list(sync.execute(statement).scalars())) == by_repository


@pytest.mark.parametrize("who", ["owner", "other", "auditor"])
def test_a_repository_deletes_and_restores_by_the_right_to_delete(guarded: Guarded, who: str) -> None:
    actor = ACTORS[who]
    assert actor is not None
    session = guarded.session()
    bind_tenant(session, "a")
    bind_policies(session, [], actor=actor)

    def attempts(sync: Session) -> dict[str, list[int]]:
        repository = create_repository(sync, Note, tenant_id="a", auto_commit=False)
        done: dict[str, list[int]] = {"delete": [], "restore": []}
        for number in (1, 2, 3):
            if repository.delete(number):
                done["delete"].append(number)
        done["delete where"] = [repository.delete_where([QueryFilter("id", "in", [1, 2, 3, 5])])]
        with suppress(EntityNotFoundError):
            done["restore"].append(repository.restore(4).id)
        done["by hand"] = sorted(sync.execute(text("UPDATE notes SET is_deleted = true RETURNING id")).scalars())
        sync.rollback()
        return done

    expected = admitted(deletes, actor)
    assert guarded.run(session, attempts) == {
        "delete": [each for each in expected if each != 4],
        "delete where": [0],
        "restore": [each for each in expected if each == 4],
        "by hand": admitted(updates, actor),
    }


def test_another_actor_or_tenant_is_announced_anew(guarded: Guarded) -> None:
    ids = text("SELECT id FROM notes ORDER BY id")
    for tenant, who in (("a", "owner"), ("b", "other"), ("b", "auditor"), ("a", "nobody")):
        session = guarded.session()
        bind_tenant(session, tenant)
        actor = ACTORS[who]
        if actor is not None:
            bind_policies(session, [], actor=actor)
        assert guarded.run(session, lambda sync: list(sync.execute(ids).scalars())) == admitted(reads, actor, tenant)
        guarded.face(session.close)


def test_an_actor_who_comes_after_the_first_statement(guarded: Guarded) -> None:
    ids = text("SELECT id FROM notes ORDER BY id")
    session = guarded.session()
    bind_tenant(session, "a")
    assert guarded.run(session, lambda sync: list(sync.execute(ids).scalars())) == []
    bind_policies(session, [], actor=ACTORS["owner"])
    assert guarded.run(session, lambda sync: list(sync.execute(ids).scalars())) == [1, 3, 4]


def test_an_unscoped_block_needs_no_actor(guarded: Guarded) -> None:
    session = guarded.session()
    with unscoped(session, reason="test"):
        count = guarded.run(session, lambda sync: sync.execute(text("SELECT count(*) FROM notes")).scalar())
    assert count == len(NOTES)


def test_a_value_that_is_missing_admits_nothing(guarded: Guarded) -> None:
    session = guarded.session()
    bind_tenant(session, "a")
    bind_policies(session, [], actor=object())
    assert guarded.run(session, lambda sync: list(sync.execute(text("SELECT id FROM notes")).scalars())) == []


def test_verify_is_silent_and_finds_what_was_changed(
    app: Database, rls: RowLevelSecurity, owner_engine: Engine
) -> None:
    def found() -> list[str]:
        with app.engine.connect() as connection:
            return sorted(each.object for each in rls.verify(connection))

    assert found() == []
    read = next(each for each in rls.create_statements() if each.startswith("CREATE POLICY dotmac_read"))
    for change, expected in (
        ("DROP POLICY dotmac_update ON notes", "dotmac_update"),
        ("ALTER POLICY dotmac_delete ON notes USING (true)", "dotmac_delete"),
        ("ALTER POLICY dotmac_create ON notes TO postgres", "dotmac_create"),
        (f"DROP POLICY dotmac_read ON notes; {read.replace('RESTRICTIVE', 'PERMISSIVE')}", "dotmac_read"),
    ):
        with owner_engine.begin() as connection:
            for each in change.split("; "):
                connection.exec_driver_sql(each)
        try:
            assert f"public.notes, policy {expected}" in found()
        finally:
            with owner_engine.begin() as connection:
                rls.apply(connection)
    assert found() == []


def test_a_forged_actor_is_not_accepted_if_settings_are_signed(guarded: Guarded, rls: RowLevelSecurity) -> None:
    forge = text("SELECT set_config('dotmac.actor', :value, true)")
    session = guarded.session()
    bind_tenant(session, "a")
    bind_policies(session, [], actor=ACTORS["other"])

    def forged(sync: Session) -> object:
        own = sync.execute(text("SELECT current_setting('dotmac.actor')")).scalar()
        assert own is not None
        sync.execute(forge, {"value": own.replace('"2"', '"1"')})
        return sync.execute(text("SELECT id FROM notes")).scalars().all()

    if rls is PLAIN:
        with pytest.raises(UnscopedStatementError):  # it is refused before it is sent
            guarded.run(session, forged)
        return
    assert guarded.run(session, forged) == []
    other = guarded.session()
    bind_tenant(other, "b")
    signed = "".join(SIGNED.signer.sign("dotmac.actor", '{"tenant": "a", "actor.role as str": "auditor"}'))  # type: ignore[union-attr]

    def replayed(sync: Session) -> object:
        sync.execute(forge, {"value": signed})
        return sync.execute(text("SELECT id FROM notes")).scalars().all()

    assert guarded.run(other, replayed) == []
