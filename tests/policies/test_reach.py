"""What the rules of an actor reach: each way to load a row or a column that a policy forbids, on each driver."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy import MetaData, inspect, select, update
from sqlalchemy.orm import (
    Session,
    aliased,
    contains_eager,
    joinedload,
    selectinload,
    subqueryload,
    undefer,
)

from dotmac_database import (
    DatabaseTransaction,
    MisuseError,
    PermissionDeniedError,
    Policy,
    QueryFilter,
    bind_policies,
    policy_scope,
)
from dotmac_database.engines import Database
from dotmac_database.repositories import create_repository
from tests.conftest import Face, counted, empty
from tests.policies.reach_models import ANN, BOB, CHIEF, POLICIES, Actor, Base, Folder, Line, Note, Page, rows_of

OWN = {1: [11], 3: [31]}
ALL = {1: [11, 12], 2: [21, 22], 3: [31, 32]}


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture
def filled(_database: Database, tables: MetaData) -> Iterator[Database]:
    """A database with the rows of both tenants."""
    with Session(_database.engine) as session:
        for row in (*rows_of("one", 0), *rows_of("two", 100)):
            session.add(row)
            session.flush()
        session.commit()
    yield _database
    empty(_database, tables)


@pytest.fixture(params=["sync", "async"])
def reached(request: pytest.FixtureRequest, filled: Database, _runner: Any) -> Face:
    return Face(request.param, filled, _runner)


def acting(face: Face, actor: Actor, work: Callable[[Session], Any]) -> Any:
    """The result of ``work(session)`` in a session of the actor, whose statements the face's driver sends."""
    with face.session() as session:
        bind_policies(session, POLICIES, actor=actor)
        return face(session.run_sync, work) if face.is_async else work(session)


def folder_of(session: Session) -> Any:
    return create_repository(session, Folder, "one").get_by_id(1)


def pages_of(session: Session) -> Any:
    return create_repository(session, Page, "one")


def visible(pages: Iterable[Any]) -> dict[int, list[int]]:
    """The pages with their lines and notes, which a class loads by default, and which have the same keys."""
    seen = {}
    for page in pages:
        seen[page.id] = [line.id for line in page.lines]
        assert seen[page.id] == [note.id for note in page.notes]
        assert all(line.page is page for line in page.lines)
    return seen


def hides(entity: Any, key: str = "secret") -> bool:
    """Whether an attribute is hidden, also from those who look into the object."""
    state: Any = inspect(entity)
    if key in vars(entity):
        assert getattr(entity, key) == "s"
        return False
    for read in (lambda: getattr(entity, key), lambda: state.attrs[key].value, state.attrs[key].load_history):
        with pytest.raises(PermissionDeniedError, match=f"{type(entity).__name__}.{key} is hidden"):
            read()
    assert state.attrs[key].loaded_value is not None
    assert not state.attrs[key].history.sum()
    return True


def by_hand(session: Session, *options: Any, **execution_options: Any) -> Any:
    statement = select(Folder).where(Folder.id == 1).options(*options)
    return session.scalars(statement, execution_options=execution_options).unique().all()


def refused(call: Callable[[], Any]) -> None:
    with pytest.raises(PermissionDeniedError, match="hidden"):
        call()


def savepoint(session: Session, folder: Any) -> None:
    """A deletion by the ORM's own cascades, which loads what it needs, and is undone."""
    with session.begin_nested() as nested:
        session.delete(folder)
        session.flush()
        nested.rollback()


AGAIN: dict[str, Callable[[Session, Any], Any]] = {
    "by hand": lambda session, _: by_hand(session),
    "populate_existing": lambda session, _: by_hand(session, populate_existing=True),
    "undefer": lambda session, _: by_hand(session, undefer(Folder.secret), undefer(Folder.code)),
    "undefer all": lambda session, _: by_hand(session, undefer("*"), populate_existing=True),
    "several rows": lambda session, _: (
        session.execute(select(Folder, Page).join(Page, Page.folder_id == Folder.id)).unique().all()
    ),
    "yield_per": lambda session, _: list(session.scalars(select(Folder), execution_options={"yield_per": 1})),
    "through an alias": lambda session, _: session.scalars(select(aliased(Folder))).all(),
    "session.get": lambda session, _: session.get(Folder, 1, populate_existing=True),
    "expired": lambda session, folder: session.expire(folder),
    "all expired": lambda session, _: session.expire_all(),
    "commit": lambda session, _: session.commit(),
    "rollback": lambda session, _: session.rollback(),
    "refresh": lambda session, folder: session.refresh(folder),
    "refresh others": lambda session, folder: session.refresh(folder, ["name"]),
    "flush": lambda session, folder: (setattr(folder, "name", "other"), session.flush(), session.expire(folder)),
    "returning": lambda session, _: session.scalars(update(Folder).values(name="x").returning(Folder)).all(),
    "UPDATE by hand": lambda session, _: session.execute(
        update(Folder).values(secret="s").where(Folder.id == 1).execution_options(synchronize_session="evaluate")
    ),
    "eager by hand": lambda session, _: by_hand(session, selectinload(Folder.pages)),
    "as a related row": lambda session, _: (
        session.scalars(select(Page).options(joinedload(Page.folder))).unique().all()
    ),
    "repository": lambda session, _: folder_of(session),
    "savepoint": savepoint,
    "refresh by name": lambda session, folder: refused(lambda: session.refresh(folder, ["secret"])),
    "refresh by names": lambda session, folder: refused(lambda: session.refresh(folder, ["name", "code"])),
    "undefer later": lambda _, folder: refused(lambda: folder.code),
}


@pytest.mark.parametrize("way", AGAIN)
def test_whatever_loads_an_object_again_leaves_hidden_columns_hidden(reached: Face, way: str) -> None:
    def work(session: Session) -> Any:
        folder = folder_of(session)
        kept = AGAIN[way](session, folder)
        assert folder.name
        assert [hides(folder, "secret"), hides(folder, "code")] == [True, True]
        assert visible(folder.pages) == OWN
        assert all(hides(each) for page in folder.pages for each in (page, *page.lines))
        return kept

    acting(reached, ANN, work)


def joined(session: Session) -> Any:
    statement = create_repository(session, Folder, "one").select().join(Folder.pages)
    return session.scalars(statement.options(contains_eager(Folder.pages))).unique().one().pages


def held(session: Session) -> list[Any]:
    """All objects of the tables, by the user's own statements."""
    every = [session.scalars(select(model)).unique().all() for model in (Folder, Page, Line, Note)]
    assert [len(page.lines) for page in every[1]] == [2] * 6
    assert len(every[0][0].pages) == 3
    return every


def refreshed(session: Session) -> Any:
    folder = folder_of(session)
    session.refresh(folder, ["pages"])
    for page in folder.pages:
        session.refresh(page)
    return folder.pages


def eager(session: Session, load: Any, **options: Any) -> Any:
    folder = folder_of(session)
    kept = by_hand(session, load(Folder.pages), **options)
    assert kept == [folder]
    return folder.pages


ROWS: dict[str, Callable[[Session], Any]] = {
    "list": lambda session: pages_of(session).list(),
    "list, with what is held": lambda session: (held(session), pages_of(session).list())[1],
    "relationships": lambda session: create_repository(session, Folder, "one").get_by_id(1, False, ["pages"]).pages,
    "lazy": lambda session: folder_of(session).pages,
    "lazy, with what is held": lambda session: (held(session), folder_of(session).pages)[1],
    "lazy, of what was held": lambda session: (held(session), folder_of(session), folder_of(session).pages)[2],
    "refreshed": refreshed,
    "selectin by hand": lambda session: eager(session, selectinload),
    "joined by hand": lambda session: eager(session, joinedload),
    "subquery by hand": lambda session: eager(session, subqueryload),
    "eager by hand, again": lambda session: eager(session, selectinload, populate_existing=True),
    "dynamic": lambda session: folder_of(session).dynamic,
    "dynamic all": lambda session: folder_of(session).dynamic.all(),
    "dynamic filter": lambda session: folder_of(session).dynamic.filter(Page.id > 0),
    "dynamic index": lambda session: folder_of(session).dynamic[0:9],
    "dynamic, with what is held": lambda session: (held(session), folder_of(session).dynamic.all())[1],
    "write_only": lambda session: session.scalars(folder_of(session).written.select()).unique(),
    "write_only where": lambda session: session.scalars(
        folder_of(session).written.select().where(Page.id > 0)
    ).unique(),
    "write_only, with what is held": lambda session: (
        held(session),
        session.scalars(folder_of(session).written.select()).unique(),
    )[1],
    "select": lambda session: session.scalars(pages_of(session).select()).unique(),
    "select, with what is held": lambda session: (
        held(session),
        session.scalars(pages_of(session).select()).unique().all(),
    )[1],
    "select joined": joined,
    "select of folders": lambda session: (
        session.scalars(
            create_repository(session, Folder, "one").select().options(selectinload(Folder.pages))
        ).one()
    ).pages,
    "select of folders, joined": lambda session: (
        session.scalars(create_repository(session, Folder, "one").select().options(joinedload(Folder.pages)))
        .unique()
        .one()
    ).pages,
    "expired": lambda session: (pages_of(session).list(), session.expire_all())[0],
    "updated": lambda session: [pages_of(session).update(each, {"folder_id": 1}) for each in (1, 3)],
    "updated, with what is held": lambda session: (
        held(session),
        [pages_of(session).update(each, {"folder_id": 1}) for each in (1, 3)],
    )[1],
}  # fmt: skip


@pytest.mark.parametrize("way", ROWS)
@pytest.mark.parametrize("actor", [ANN, CHIEF], ids=lambda actor: actor.id)
def test_related_rows_are_those_that_the_actor_may_read(reached: Face, way: str, actor: Actor) -> None:
    def work(session: Session) -> None:
        found = [page for page in ROWS[way](session) if page.tenant_id == "one"]
        seen, expected = visible(found), ALL if actor is CHIEF else OWN
        assert seen == {key: expected[key] for key in seen}
        assert len(seen) == (2 if "updated" in way else len(expected))
        hidden = [hides(each) for page in found for each in (page, *page.lines)]
        assert set(hidden) == {actor is not CHIEF}

    acting(reached, actor, work)


def test_a_reference_that_the_session_holds_is_read_before_it_is_shown(reached: Face) -> None:
    """SQLAlchemy would send no statement for an object that the session holds."""

    def work(session: Session) -> None:
        kept = held(session)
        lines = {line.id: line for line in create_repository(session, Line, "one").list()}
        assert {key: line.page and line.page.id for key, line in lines.items()} == {11: 1, 21: None, 31: 3}
        assert hides(lines[11].page)
        assert visible([lines[11].page]) == {1: [11]}
        bobs = kept[1][1]
        assert (bobs.id, bobs.secret, len(bobs.lines)) == (2, "s", 2)  # what was read by hand alone is as it was

    acting(reached, ANN, work)


def test_the_user_adds_to_a_select_what_the_actor_may_read(reached: Face) -> None:
    def work(session: Session) -> None:
        other, again = aliased(Line), aliased(Page)
        rows = pages_of(session).select()
        assert [*session.scalars(rows.join(Page.lines).with_only_columns(Line.id))] == [11, 31]
        assert [*session.scalars(rows.join(other, other.page_id == Page.id).with_only_columns(other.id))] == [11, 31]
        assert [*session.scalars(rows.outerjoin(Page.notes).with_only_columns(Note.id))] == [11, 31]
        assert [*session.scalars(rows.where(Page.lines.any(Line.id == 12)).with_only_columns(Page.id))] == []
        pairs = rows.join(again, again.folder_id == Page.folder_id).with_only_columns(Page.id, again.id)
        assert [tuple(each) for each in session.execute(pairs)] == [(1, 1), (1, 3), (3, 1), (3, 3)]
        for page, line in session.execute(rows.join(Page.lines).add_columns(Line)).unique():
            assert (hides(page), hides(line)) == (True, True)

    acting(reached, ANN, work)


@pytest.mark.parametrize("actor", [ANN, BOB, CHIEF], ids=lambda actor: actor.id)
def test_a_select_that_is_cached_has_the_values_of_its_own_actor(reached: Face, actor: Actor) -> None:
    def work(session: Session) -> None:
        statement = pages_of(session).select().join(Page.lines).with_only_columns(Line.id)
        ids = {ANN: [11, 31], BOB: [22], CHIEF: [11, 12, 21, 22, 31, 32]}[actor]
        assert sorted(session.scalars(statement)) == ids
        assert folder_of(session).dynamic.count() == {ANN: 2, BOB: 1, CHIEF: 3}[actor]

    acting(reached, actor, work)


def test_the_statements_of_a_relationship_write_no_rows_with_a_policy(reached: Face) -> None:
    def work(session: Session) -> None:
        folder = folder_of(session)
        calls: list[Callable[[], Any]] = [
            folder.written.delete,
            folder.written.insert,
            folder.written.update,
            folder.dynamic.order_by(None).delete,
            lambda: folder.dynamic.order_by(None).filter(Page.id == 2).update({"owner": "ann"}),
        ]
        for call in calls:
            with pytest.raises(MisuseError, match="The rows of Page are ruled by a policy"):
                call()

    acting(reached, ANN, work)


def test_attributes_that_are_awaited_are_ruled(reached: Face) -> None:
    if not reached.is_async:
        return

    async def work() -> None:
        async with reached.database.async_sessions() as session:
            bind_policies(session, POLICIES, actor=ANN)
            folder = await reached.repository(session, Folder, "one").get_by_id(1)
            pages = await folder.awaitable_attrs.pages
            assert visible(pages) == OWN
            for entity, key in ((folder, "secret"), (folder, "code"), (pages[0], "secret")):
                with pytest.raises(PermissionDeniedError, match="hidden"):
                    await getattr(entity.awaitable_attrs, key)
                with pytest.raises(PermissionDeniedError, match="hidden"):
                    await session.refresh(entity, [key])
            await session.refresh(folder)
            await session.refresh(pages[0])
            assert visible(pages) == OWN
            assert hides(folder)

    reached.runner.run(work())


COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda entity: pickle.loads(pickle.dumps(entity)),
    "deepcopy": copy.deepcopy,
    "both": lambda entity: copy.deepcopy(pickle.loads(pickle.dumps(entity))),
}
READS: dict[str, Callable[[Session], Any]] = {
    "get": folder_of,
    "relationships": lambda session: create_repository(session, Folder, "one").get_by_id(1, False, ["pages"]),
    "select": lambda session: session.scalars(create_repository(session, Folder, "one").select()).one(),
    "lazy": lambda session: (folder := folder_of(session), folder.pages)[0],
    "detached": lambda session: (folder := folder_of(session), session.expunge(folder))[0],
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("read", READS)
def test_copies_keep_hidden_what_was_hidden(reached: Face, way: str, read: str) -> None:
    def work(session: Session) -> Any:
        folder = READS[read](session)
        return COPIES[way](folder), "pages" in vars(folder)

    folder, with_pages = acting(reached, ANN, work)
    assert folder.name == "first"
    assert (hides(folder, "secret"), hides(folder, "code")) == (True, True)
    if with_pages:
        assert [page.id for page in folder.pages] == [1, 3]
        assert all(map(hides, folder.pages))
    with Session(reached.database.engine) as session:  # also in a session without policies
        session.add(folder)
        session.expire(folder)
        assert folder.name == "first"
        assert (hides(folder, "secret"), hides(folder, "code")) == (True, True)


def test_a_copy_has_no_rules(reached: Face) -> None:
    """The rules contain functions, and values of the actor: none of them is in what is pickled."""

    def work(session: Session) -> Any:
        return pickle.dumps(folder_of(session))

    pickled = acting(reached, ANN, work)
    for word in (b"Policy", b"RulesInSql", b"ModelRules", b"ann"):
        assert word not in pickled
    folder = pickle.loads(pickled)

    def again(session: Session) -> None:
        session.add(folder)
        with pytest.raises(MisuseError, match="pickled or copied without its policies"):
            pages_of(session).list() and folder.pages
        assert folder_of(session) is folder
        assert visible(folder.pages) == OWN

    acting(reached, ANN, again)


@pytest.mark.parametrize("loaded", [False, True])
def test_an_object_belongs_to_one_actor(reached: Face, loaded: bool) -> None:
    def work(session: Session) -> None:
        folder = folder_of(session)
        if loaded:
            assert visible(folder.pages) == OWN
        with policy_scope(session, POLICIES, actor=CHIEF):
            chiefs = create_repository(session, Folder, "one")
            for read in (
                lambda: chiefs.get_by_id(1),
                lambda: chiefs.get_by_id(1, False, ["pages"]),
                lambda: chiefs.update(1, {"name": "other"}),
                lambda: session.scalars(chiefs.select()).all(),
            ):
                with pytest.raises(MisuseError, match="was read for another actor"):
                    read()
            assert chiefs.values("secret").list() == [{"secret": "s"}]
        assert (hides(folder), visible(folder.pages)) == (True, OWN)
        session.expunge(folder)
        for page in folder.pages:
            session.expunge(page)
        with policy_scope(session, POLICIES, actor=CHIEF):
            assert not hides(create_repository(session, Folder, "one").get_by_id(1))

    acting(reached, ANN, work)


@pytest.mark.parametrize("lock", [{}, {"nowait": True}, {"skip_locked": True}], ids=["waits", "nowait", "skip_locked"])
def test_a_row_that_can_be_read_and_not_updated_is_not_locked(reached: Face, lock: Any) -> None:
    def of(session: Any, model: Any) -> Any:
        return reached.repository(session, model, "one").for_update(**lock)

    is_sync = not reached.is_async
    block = DatabaseTransaction.sync_transaction if is_sync else DatabaseTransaction.async_transaction
    for actor, model, key, error in (
        (ANN, Folder, 1, PermissionDeniedError),
        (CHIEF, Folder, 1, None),
        (ANN, Folder, 9, LookupError),
        (ANN, Folder, 101, LookupError),
        (ANN, Page, 1, None),
        (ANN, Page, 2, LookupError),
    ):
        with reached.session() as session:
            bind_policies(session, POLICIES, actor=actor)
            with (
                pytest.raises(PermissionDeniedError) if error is PermissionDeniedError else nullcontext(),
                reached.entered(block(session)),
            ):
                with counted(reached.engine) as sent:
                    row = reached(of(session, model).get_by_id, key)
                assert (row is None) == (error is LookupError)
                reads = [each for each in sent if each.startswith("SELECT")]
                eager = 1 if model is Page else 0
                if row is not None:
                    assert len(reads) == 1 + 2 * eager


def test_a_row_that_another_transaction_has_locked_is_skipped_and_not_denied(reached: Face) -> None:
    if reached.database.engine.dialect.name == "sqlite":
        return  # it locks the whole database, and always waits
    block = DatabaseTransaction.async_transaction if reached.is_async else DatabaseTransaction.sync_transaction
    with reached.database.engine.begin() as other, reached.session() as session:
        other.exec_driver_sql("SELECT 1 FROM reached_pages WHERE id = 1 FOR UPDATE")
        bind_policies(session, POLICIES, actor=ANN)
        pages = reached.repository(session, Page, "one").for_update(skip_locked=True)
        with reached.entered(block(session)):
            assert reached(pages.get_by_id, 1) is None
            assert reached(pages.get_by_id, 3).id == 3


def test_a_rule_of_a_select_leads_through_rows_that_the_actor_can_not_read(reached: Face) -> None:
    rule = Policy(Line, read=lambda _: [QueryFilter("page.owner", "eq", "bob")])
    with reached.session() as session:
        bind_policies(session, [rule, Policy(Page)], actor=ANN)
        lines = reached.repository(session, Line, "one")
        assert [line.id for line in reached(lines.list)] == [21, 22]
        assert [line.id for line in reached(session.scalars, lines.select())] == [21, 22]
        joined_pages = lines.select().join(Line.page).with_only_columns(Line.id)
        assert list(reached(session.scalars, joined_pages)) == []


def test_what_a_cascade_has_loaded_is_not_shown_when_it_is_undone(reached: Face) -> None:
    def work(session: Session) -> None:
        page = pages_of(session).get_by_id(1)
        session.expire(page, ["lines", "notes"])
        with session.begin_nested() as nested:
            session.delete(page)
            session.flush()
            nested.rollback()
        assert visible([page]) == {1: [11]}

    acting(reached, ANN, work)
