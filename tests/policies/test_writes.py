"""Every way of writing for every actor: the whole table afterwards is what the policy, as plain Python, says.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import sqlalchemy as sa

from dotmac_database import (
    DatabaseTransaction,
    DuplicateEntityError,
    EntityNotFoundError,
    MisuseError,
    PermissionDeniedError,
    QueryFilter,
    async_first_missing_reference,
    async_missing_references,
    bind_policies,
    first_missing_reference,
    missing_references,
)
from tests.conftest import Face, counted
from tests.policies.write_models import (
    ACTORS,
    AUDITOR,
    MEMBER,
    NOBODY,
    OWNER,
    Actor,
    Base,
    Checked,
    Note,
    Tag,
    Team,
    rules,
)

PLACES = [(owner, state) for owner in ("ann", "bob") for state in ("open", "shared")]
"""The rows of each tenant, which look alike; their keys are 1 to 4 in the tenant t1, and 11 to 14 in t2."""


@pytest.fixture(scope="module")
def tables() -> sa.MetaData:
    return Base.metadata


@pytest.fixture(params=["sync", pytest.param("async", marks=pytest.mark.matrix)])
def face(request: pytest.FixtureRequest, database: Any, _runner: Any) -> Face:
    return Face(request.param, database, _runner)


@pytest.fixture
def rows(face: Face) -> Face:
    with face.database.engine.begin() as connection:
        for start, tenant in ((1, "t1"), (11, "t2")):
            connection.execute(
                sa.insert(Team.__table__),
                [{"id": start + place, "tenant_id": tenant, "lead": name} for place, name in enumerate(("ann", "bob"))],
            )
            connection.execute(
                sa.insert(Tag.__table__),
                [
                    {"id": start + place, "tenant_id": tenant, "owner": name}
                    for place, name in enumerate(("ann", "bob"))
                ],
            )
            for model in (Note, Checked):
                for place, (owner, state) in enumerate(PLACES):
                    row = {"id": start + place, "tenant_id": tenant, "slug": f"{owner}-{state}", "owner": owner}
                    row |= {"state": state, "text": "old"}
                    if model is Note:
                        row |= {
                            "is_deleted": False,
                            "version": 1,
                            "secret": "hush",
                            "team_id": start + (owner == "bob"),
                        }
                    connection.execute(sa.insert(model.__table__), [row])
        if connection.dialect.name == "postgresql":
            for table in ("ruled_notes", "ruled_checked"):
                connection.exec_driver_sql(f"SELECT setval('{table}_id_seq', 100)")
    return face


def stored(face: Face, model: Any) -> dict[int, dict[str, Any]]:
    names = ("id", "tenant_id", "slug", "owner", "state", "text", *(("is_deleted",) if model is Note else ()))
    with face.database.engine.connect() as connection:
        found = connection.execute(sa.select(*(model.__table__.c[name] for name in names))).mappings().all()
    return {row["id"]: {**row} for row in found}


@contextmanager
def ruled(face: Face, actor: Actor, *policies: Any, guarded: bool = False) -> Iterator[Any]:
    with face.guarded() if guarded else face.session() as session:
        bind_policies(session, policies or (rules(Note), rules(Checked)), actor=actor)
        yield session


def may_read(actor: Actor, row: dict[str, Any]) -> bool:
    return actor.role == "auditor" or (
        actor.role == "member" and (row["owner"] == actor.id or row["state"] == "shared")
    )


def may_write(actor: Actor, row: dict[str, Any]) -> bool:
    return actor.role == "member" and row["owner"] == actor.id


Expected = tuple[type[Exception] | None, dict[int, dict[str, Any]]]


def one(method: str) -> Callable[[dict[int, Any], Actor, int], Expected]:
    """The expected result of a write to one row by its key."""

    def expected(before: dict[int, Any], actor: Actor, key: int) -> Expected:
        row = before.get(key)
        if row is None or row["tenant_id"] != "t1" or row.get("is_deleted") or not may_read(actor, row):
            return (None if method == "delete" else EntityNotFoundError), before
        if not may_write(actor, row):
            return PermissionDeniedError, before
        if method == "give":
            return PermissionDeniedError, before
        if method != "delete":
            return None, {**before, key: {**row, "text": "new"}}
        if "is_deleted" in row:
            return None, {**before, key: {**row, "is_deleted": True}}
        return None, {each: value for each, value in before.items() if each != key}

    return expected


ONE: dict[str, Callable[[Any, int], tuple[Any, ...]]] = {
    "update": lambda repository, key: (repository.update, key, {"text": "new"}),
    "give": lambda repository, key: (repository.update, key, {"owner": "zoe"}),
    "delete": lambda repository, key: (repository.delete, key),
}
WAYS = ("plain", pytest.param("block", marks=pytest.mark.matrix), "bare block")


def block(session: Any, way: str) -> Any:
    if way == "plain":
        return nullcontext()
    make = getattr(DatabaseTransaction, "async_transaction" if hasattr(session, "run_sync") else "sync_transaction")
    return make(session, savepoints=way == "block")


@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize("model", [Note, Checked])
@pytest.mark.parametrize("way", WAYS)
def test_one_row(rows: Face, model: Any, actor: str, way: str) -> None:
    face, who = rows, ACTORS[actor]
    guarded = way == "bare block"
    for method, call in ONE.items():
        for key in (1, 2, 3, 4, 12, 99):
            before = stored(face, model)
            error, after = one(method)(before, who, key)
            with ruled(face, who, guarded=guarded) as session:
                repository = face.repository(session, model, "t1")
                expecting = pytest.raises(error) if error else nullcontext()
                with expecting, block(session, way) if way == "plain" else face.entered(block(session, way)):
                    function, *arguments = call(repository, key)
                    face(function, *arguments)
            assert stored(face, model) == after, (method, key)


@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize("model", [Note, Checked])
@pytest.mark.parametrize("many", [1, pytest.param(30, marks=pytest.mark.matrix), 600])
@pytest.mark.parametrize("returning", [True, False])
def test_new_rows(rows: Face, model: Any, actor: str, many: int, returning: bool) -> None:
    face, who = rows, ACTORS[actor]
    for owner in ("ann", "bob"):
        before = stored(face, model)
        data = [{"slug": f"{owner}-{place}", "owner": who.id, "text": None} for place in range(many)]
        data[-1]["owner"] = owner
        fails = who.role != "member" or owner != who.id
        with ruled(face, who) as session:
            repository = face.repository(session, model, "t1")
            with pytest.raises(PermissionDeniedError) if fails else nullcontext() as refused:
                face(repository.bulk_create, data, returning=returning)
        if fails:
            assert stored(face, model) == before
            assert refused is not None
            assert refused.value.index in (0, many - 1)
        else:
            assert len(stored(face, model)) == len(before) + many


@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize("model", [Note, Checked])
def test_rows_by_filters_and_lists(rows: Face, model: Any, actor: str) -> None:
    face, who = rows, ACTORS[actor]
    before = stored(face, model)
    mine = [key for key, row in before.items() if row["tenant_id"] == "t1" and may_write(who, row)]
    with ruled(face, who) as session:
        repository = face.repository(session, model, "t1")
        assert face(repository.update_where, [], {"text": "new"}, allow_all=True) == len(mine)
        after = {key: {**row, "text": "new"} if key in mine else row for key, row in before.items()}
        assert stored(face, model) == after
        seen = [key for key, row in after.items() if row["tenant_id"] == "t1" and may_read(who, row)]
        fails = sorted({*seen} - {*mine})
        data = [{"id": key, "text": "list"} for key in sorted(after)]
        with pytest.raises(PermissionDeniedError) if fails else nullcontext() as refused:
            face(repository.bulk_update, data)
        if fails:
            assert refused is not None
            assert data[refused.value.index or 0]["id"] == fails[0]
            assert stored(face, model) == after
        data = [{"id": key, "text": "list"} for key in mine]
        assert face(repository.bulk_update, data) == len(mine)
        with pytest.raises(PermissionDeniedError) if mine else nullcontext():
            assert face(repository.update_where, [], {"owner": "zoe"}, allow_all=True) == 0
        assert face(repository.delete_where, [], soft_delete=False, allow_all=True) == len(mine)
    assert stored(face, model).keys() == before.keys() - {*mine}


@pytest.mark.parametrize("actor", ACTORS)
def test_upserts(rows: Face, actor: str) -> None:
    face, who = rows, ACTORS[actor]
    for slug in ("ann-open", "ann-shared", "bob-open", "bob-shared", "fresh"):
        before = stored(face, Note)
        row = next((each for each in before.values() if each["slug"] == slug and each["tenant_id"] == "t1"), None)
        error: type[Exception] | None = None
        if who.role != "member":
            error = PermissionDeniedError
        elif row is not None and not may_write(who, row):
            error = PermissionDeniedError if may_read(who, row) else DuplicateEntityError
        with ruled(face, who) as session:
            repository = face.repository(session, Note, "t1")
            with pytest.raises(error) if error else nullcontext():
                face(repository.upsert, {"slug": slug, "owner": who.id, "text": "up"}, ["slug"])
        after = stored(face, Note)
        if error:
            assert after == before, slug
        else:
            assert [each["slug"] for each in after.values() if each["text"] == "up" and each["slug"] == slug] == [slug]
            assert len(after) == len(before) + (row is None)


def test_an_upsert_through_a_relationship(rows: Face) -> None:
    face = rows
    policy = rules(Note, read=True, create=True, update=lambda actor: QueryFilter("team.lead", "eq", actor.id))
    with ruled(face, MEMBER, policy) as session:
        repository = face.repository(session, Note, "t1")
        with pytest.raises(PermissionDeniedError):
            face(repository.upsert, {"slug": "ann-open", "owner": "ann", "text": "up"}, ["slug"])
        face(repository.upsert, {"slug": "bob-open", "owner": "bob", "text": "up"}, ["slug"])
    assert [key for key, row in stored(face, Note).items() if row["text"] == "up"] == [3]


def test_check_through_a_relationship_is_verified_after_the_write(rows: Face) -> None:
    face = rows
    lead = lambda actor: QueryFilter("team.lead", "eq", actor.id)  # noqa: E731
    policy = rules(Note, read=True, create=lead, update=True, check=lead)
    for many in (1, 30):
        with ruled(face, MEMBER, policy) as session:
            repository = face.repository(session, Note, "t1")
            before = stored(face, Note)
            with pytest.raises(PermissionDeniedError):
                face(repository.update, 3, {"team_id": 1})
            with pytest.raises(PermissionDeniedError):
                face(repository.update_where, [], {"team_id": 1}, allow_all=True)
            with pytest.raises(PermissionDeniedError):
                face(repository.bulk_update, [{"id": 3, "team_id": 1}, {"id": 4, "team_id": 2}])
            for returning in (True, False):
                data = [{"slug": f"n{many}-{each}", "owner": "bob", "team_id": 2} for each in range(many)]
                data[-1]["team_id"] = 1
                with pytest.raises(PermissionDeniedError) as refused:
                    face(repository.bulk_create, data, returning=returning)
                assert refused.value.index == many - 1
            with pytest.raises(PermissionDeniedError):
                face(repository.create, {"slug": "x", "owner": "bob", "team_id": 1})
            assert stored(face, Note) == before
            face(repository.update, 3, {"team_id": 2})
            face(repository.create, {"slug": f"x{many}", "owner": "bob", "team_id": 2})


def test_links(rows: Face) -> None:
    face = rows
    with ruled(face, OWNER, rules(Note), rules(Tag, read=lambda a: QueryFilter("owner", "eq", a.id))) as session:
        repository = face.repository(session, Note, "t1")
        assert face(repository.link, 1, "tags", [1]) == 1
        with pytest.raises(EntityNotFoundError):
            face(repository.link, 1, "tags", [2])  # a tag that she can't read
        with pytest.raises(PermissionDeniedError):
            face(repository.link, 4, "tags", [1])  # a note that she can only read
        with pytest.raises(EntityNotFoundError):
            face(repository.link, 3, "tags", [1])
    with face.database.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO ruled_note_tags VALUES (1, 2)")
    with ruled(face, OWNER, rules(Note), rules(Tag, read=lambda a: QueryFilter("owner", "eq", a.id))) as session:
        assert face(face.repository(session, Note, "t1").set_links, 1, "tags", []) == (0, 1)
    with face.database.engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT note_id, tag_id FROM ruled_note_tags").all() == [(1, 2)]
    open_team = rules(Team, read=True, update=True)
    with ruled(face, OWNER, rules(Note, check=True), open_team) as session:
        repository = face.repository(session, Team, "t1")
        assert face(repository.link, 2, "notes", [1]) == 1
        with pytest.raises(PermissionDeniedError):
            face(repository.link, 1, "notes", [4])
        with pytest.raises(EntityNotFoundError):
            face(repository.link, 1, "notes", [3])


def test_columns_that_are_read_only_or_hidden(rows: Face) -> None:
    face = rows
    policy = rules(Note, hidden=["secret"], read_only=["state"])
    with ruled(face, OWNER, policy) as session:
        repository = face.repository(session, Note, "t1")
        messages = []
        for name in ("secret", "secreu"):
            with pytest.raises(MisuseError) as unknown:
                face(repository.update, 1, {name: "x"})
            messages.append(str(unknown.value).replace(name, ""))
        assert messages[0] == messages[1]
        for call in (
            lambda: face(repository.update, 1, {"state": "open"}),
            lambda: face(repository.create, {"slug": "s", "owner": "ann", "state": "open"}),
            lambda: face(repository.bulk_create, [{"slug": "s", "owner": "ann", "state": "open"}]),
            lambda: face(repository.bulk_update, [{"id": 1, "state": "open"}]),
            lambda: face(repository.upsert, {"slug": "s", "owner": "ann", "state": "open"}, ["slug"]),
            lambda: face(repository.update_where, [QueryFilter("id", "eq", 1)], {"state": "open"}),
        ):
            with pytest.raises(PermissionDeniedError, match="state"):
                call()


@pytest.mark.parametrize("actor", [OWNER, AUDITOR, NOBODY])
def test_locking_reads_and_restoring(rows: Face, actor: Actor) -> None:
    face = rows
    with face.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE ruled_notes SET is_deleted = true")
    with ruled(face, actor) as session:
        repository = face.repository(session, Note, "t1")
        for key, row in stored(face, Note).items():
            error = None
            if row["tenant_id"] != "t1" or not may_read(actor, row):
                error = EntityNotFoundError
            elif not may_write(actor, row):
                error = PermissionDeniedError
            with pytest.raises(error) if error else nullcontext():
                face(repository.restore, key)
    with ruled(face, actor) as session, face.entered(block(session, "block")):
        found = face(face.repository(session, Note, "t1").for_update().list)
        assert sorted(note.id for note in found) == ([1, 2] if actor is OWNER else [])


def test_the_number_of_statements_is_that_of_the_plain_call(rows: Face) -> None:
    face = rows
    calls: list[Callable[[Any], Any]] = [
        lambda notes: face(notes.create, {"slug": "a", "owner": "ann"}),
        lambda notes: face(notes.bulk_create, [{"slug": f"b{each}", "owner": "ann"} for each in range(3)]),
        lambda notes: face(notes.update, 1, {"text": "x"}),
        lambda notes: face(notes.bulk_update, [{"id": 1, "text": "y"}, {"id": 2, "text": "z"}]),
        lambda notes: face(notes.update_where, [QueryFilter("id", "eq", 1)], {"text": "x"}),
        lambda notes: face(notes.upsert, {"slug": "ann-open", "owner": "ann", "text": "z"}, ["slug"]),
        lambda notes: face(notes.link, 1, "tags", [1]),
        lambda notes: face(notes.delete, 2),
        lambda notes: face(notes.restore, 2),
        lambda notes: face(notes.delete, 2, soft_delete=False),
    ]
    numbers = []
    for policies in ((), (rules(Note), rules(Tag, read=True))):
        with face.session() as session:
            bind_policies(session, policies, actor=OWNER)
            notes = face.repository(session, Note, "t1")
            for call in calls:
                with counted(face.engine) as sent:
                    call(notes)
                numbers.append([each.split()[0] for each in sent])
        with face.database.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM ruled_note_tags")
            connection.exec_driver_sql("DELETE FROM ruled_notes WHERE slug IN ('a', 'b0', 'b1', 'b2')")
            connection.exec_driver_sql(
                "INSERT INTO ruled_notes (id, tenant_id, slug, owner, state, is_deleted, version) VALUES"
                " (2, 't1', 'ann-shared', 'ann', 'shared', false, 1)"
            )
    half = len(numbers) // 2
    assert numbers[:half] == numbers[half:]


def test_a_subselect_of_a_condition_is_confined_to_the_tenant(rows: Face) -> None:
    """In t2 alone, the team with the lead "cid" exists: nobody of t1 may write anything because of it."""
    face = rows
    with face.database.engine.begin() as connection:
        connection.execute(sa.insert(Team.__table__), [{"id": 50, "tenant_id": "t2", "lead": "cid"}])
    exists = lambda actor: sa.exists(sa.select(Team.id).where(Team.lead == actor.id))  # noqa: E731
    policy = rules(Note, read=True, create=exists, update=exists, delete=exists)
    before = stored(face, Note)
    for guarded in (False, True):
        with ruled(face, Actor("cid"), policy, guarded=guarded) as session:
            notes = face.repository(session, Note, "t1")
            for call in (
                (notes.update, 1, {"text": "new"}),
                (notes.delete, 1),
                (notes.delete, 1, False),
                (notes.create, {"slug": "x", "owner": "cid"}),
                (notes.bulk_create, [{"slug": "x", "owner": "cid"}]),
                (notes.bulk_update, [{"id": 1, "text": "new"}]),
                (notes.upsert, {"slug": "ann-open", "owner": "ann"}, ["slug"]),
                (notes.link, 1, "tags", [1]),
            ):
                with pytest.raises(PermissionDeniedError):
                    face(*call)
            assert face(notes.update_where, [], {"text": "new"}, allow_all=True) == 0
            assert face(notes.delete_where, [], allow_all=True) == 0
    assert stored(face, Note) == before


def test_a_reference_to_a_row_that_is_not_readable_is_missing(rows: Face) -> None:
    face = rows
    led = rules(Team, read=lambda actor: QueryFilter("lead", "eq", actor.id))
    with ruled(face, OWNER, rules(Note), led) as session:
        missing = async_missing_references if face.is_async else missing_references
        first = async_first_missing_reference if face.is_async else first_missing_reference
        assert face(missing, session, Note, {"team_id": 1}, tenant_id="t1") == ()
        assert [each.target for each in face(missing, session, Note, {"team_id": 2}, tenant_id="t1")] == ["Team"]
        found = face(first, session, Note, [{"team_id": 1}, {"team_id": 2}], tenant_id="t1")
        assert found[0] == 1


def test_new_related_rows_need_their_own_right(rows: Face) -> None:
    face = rows
    before = stored(face, Note)
    with ruled(face, OWNER, rules(Note), rules(Team, read=True, create=True)) as session:
        teams = face.repository(session, Team, "t1")
        with pytest.raises(PermissionDeniedError):
            face(teams.create, {"lead": "ann", "id": 90, "notes": [Note(slug="n", owner="bob", tenant_id="t1")]})
        assert stored(face, Note) == before
        face(teams.create, {"lead": "ann", "id": 91, "notes": [Note(slug="n", owner="ann", tenant_id="t1")]})
    assert len(stored(face, Note)) == len(before) + 1
