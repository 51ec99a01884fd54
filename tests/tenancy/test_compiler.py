"""What the guarded session's compiler confines and refuses, by specimens that once leaked or were refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    column,
    delete,
    func,
    insert,
    literal_column,
    select,
    table,
    text,
    update,
)
from sqlalchemy.dialects.postgresql.asyncpg import PGCompiler_asyncpg
from sqlalchemy.dialects.postgresql.psycopg import PGCompiler_psycopg
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import (
    Session,
    aliased,
    join,
    joinedload,
    make_transient_to_detached,
    with_expression,
    with_polymorphic,
)
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.elements import quoted_name

from dotmac_database import (
    QueryFilter,
    TenantIsolationError,
    UnscopedStatementError,
    bind_tenant,
    guard_tenants,
)
from dotmac_database.engines import Database
from dotmac_database.tenancy.guard.fragments import KNOWN
from dotmac_database.tenancy.guard.text import is_known_function, is_plain_hint
from tests.conftest import Face

from .conftest import Guarded
from .people import (
    TENANTS,
    Asset,
    CoreRouter,
    Doc,
    Event,
    PeopleBase,
    Person,
    Router,
    Tag,
    Visit,
    contents,
    fill,
    person_tags,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*cartesian product:sqlalchemy.exc.SAWarning")


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return PeopleBase.metadata


@pytest.fixture
def database(_database: Database, tables: MetaData) -> Iterator[Database]:
    with _database.engine.begin() as connection:
        fill(connection, *TENANTS)
    yield _database
    with _database.engine.begin() as connection:
        for each in reversed(tables.sorted_tables):
            if each is Person.__table__:
                connection.execute(update(each).values(boss_id=None))
            connection.execute(each.delete())


@pytest.fixture
def guarded(face: Face) -> Iterator[Guarded]:
    """Guarded sessions; afterwards the rows of tenants b and c are as they were."""
    with face.database.engine.connect() as connection:
        before = _foreign(contents(connection))
    made = Guarded(face)
    yield made
    made.close()
    with face.database.engine.connect() as connection:
        assert _foreign(contents(connection)) == before


def _foreign(held: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: [row for row in rows if row[0] >= 200] for name, rows in held.items()}


def bound(guarded: Guarded, tenant: str = "a") -> Any:
    session = guarded.session()
    bind_tenant(session, tenant)
    return session


def test_every_element_that_sqlalchemy_renders_is_known() -> None:
    """After an upgrade of SQLAlchemy this names what is new. Look at whether it can hold text before it is added."""
    compilers = (PGCompiler_asyncpg, PGCompiler_psycopg, SQLiteCompiler)
    names = {name.removeprefix("visit_") for each in compilers for name in dir(each) if name.startswith("visit_")}
    assert names == KNOWN


# The next number: a subselect as a value.

HIGHEST = select(func.max(Doc.size) + 1).scalar_subquery()
SECRET = select(func.max(Person.name)).scalar_subquery()


def _by_flush(session: Session) -> Any:
    session.add(Doc(id=150, title="new", size=HIGHEST))
    session.flush()


def _by_change(session: Session) -> Any:
    session.get_one(Doc, 101).size = HIGHEST  # type: ignore[assignment]  # SQLAlchemy takes an expression
    session.flush()


NEXT_NUMBER: dict[str, Callable[[Session], Any]] = {
    "flush of a new row": _by_flush,
    "flush of a change": _by_change,
    "insert": lambda s: s.execute(insert(Doc).values(id=150, title="new", size=HIGHEST)),
    "insert of many": lambda s: s.execute(
        insert(Doc).values([{"id": 150, "title": "x", "size": HIGHEST, "tenant_id": "a"}])
    ),
    "update": lambda s: s.execute(
        update(Doc).values(size=HIGHEST).where(Doc.id == 101), execution_options={"synchronize_session": False}
    ),
}


@pytest.mark.parametrize("name", NEXT_NUMBER)
def test_the_next_number_is_the_tenants_own(guarded: Guarded, name: str) -> None:
    session = bound(guarded)
    guarded.run(session, NEXT_NUMBER[name])
    assert guarded.run(session, lambda s: s.scalar(select(func.max(Doc.size)))) == 106


@pytest.mark.parametrize("method", ["create", "update", "update_where"])
def test_a_repository_takes_the_next_number_too(guarded: Guarded, method: str) -> None:
    session = guarded.session()
    docs = guarded.face.repository(session, Doc, "a")
    new = {"id": 150, "title": "new", "size": HIGHEST}
    call: dict[str, Callable[[], Any]] = {
        "create": lambda: guarded.face(docs.create, new),
        "update": lambda: guarded.face(docs.update, 101, {"size": HIGHEST}),
        "update_where": lambda: guarded.face(docs.update_where, [QueryFilter("id", value=101)], {"size": HIGHEST}),
    }
    call[method]()
    assert guarded.run(session, lambda s: s.scalar(select(func.max(Doc.size)))) == 106


@pytest.mark.parametrize("method", ["create", "update", "update_where"])
def test_a_repository_stores_no_text_of_others(guarded: Guarded, method: str) -> None:
    session = guarded.session()
    docs = guarded.face.repository(session, Doc, "a")
    call: dict[str, Callable[[], Any]] = {
        "create": lambda: guarded.face(docs.create, {"id": 150, "title": SECRET, "size": 1}),
        "update": lambda: guarded.face(docs.update, 101, {"title": SECRET}),
        "update_where": lambda: guarded.face(docs.update_where, [QueryFilter("id", value=101)], {"title": SECRET}),
    }
    call[method]()
    titles = guarded.run(session, lambda s: s.scalars(select(Doc.title)).all())
    assert "a!person 105" in titles


READS = {
    "a subselect as text": literal_column("(SELECT max(name) FROM rnd_people)"),
    "a function that runs SQL": func.query_to_xml("SELECT 1", True, True, ""),
}


@pytest.mark.parametrize("value", READS.values(), ids=READS)
def test_a_repository_stores_no_text_that_reads(guarded: Guarded, value: Any) -> None:
    session = guarded.session()
    docs = guarded.face.repository(session, Doc, "a")
    with pytest.raises(UnscopedStatementError):
        guarded.face(docs.update, 101, {"title": value})
    with pytest.raises(UnscopedStatementError):
        guarded.face(docs.create, {"id": 150, "title": value, "size": 1})


# Text within, and what it can hide in.


class Custom(ColumnElement[str]):
    """An element that a user compiles."""

    inherit_cache = True
    type = String()


@compiles(Custom)
def _custom(_element: Any, _compiler: Any, **_: Any) -> str:
    return "(SELECT max(name) FROM rnd_people)"


OTHER = MetaData()
FORGED = Table("rnd_people", OTHER, Column("id", Integer, primary_key=True), Column("name", String))
WITH_SCHEMA = Table("rnd_people", MetaData(), Column("id", Integer), Column("name", String), schema="main")
NO_NAME = table(quoted_name("(SELECT name FROM rnd_people) AS x", False), column("name"))
UNION = "UNION ALL SELECT name FROM rnd_people"

REFUSED: dict[str, Callable[[], Any]] = {
    "suffix of a subquery": lambda: select(select(Doc.title.label("n")).suffix_with(UNION).subquery()),
    "suffix of a union's member": lambda: select(Doc.title).union_all(
        select(Doc.title).suffix_with(UNION).subquery().select()
    ),
    "suffix of a CTE": lambda: select(select(Doc.title.label("n")).cte("c").suffix_with(f", d AS ({UNION})").c.n),
    "statement hint within": lambda: select(select(Doc.title.label("n")).with_statement_hint(UNION).subquery()),
    "a user's element": lambda: select(Doc.title, Custom()),
    "a user's element within": lambda: select(Doc.title).where(Doc.title.in_(select(Custom()))),
    "a user's element as prefix": lambda: select(Doc.title).prefix_with(Custom()),
    "a table of another metadata": lambda: select(Doc.title, FORGED.c.name),
    "a table of another metadata within": lambda: select(Doc.title).where(Doc.title.in_(select(FORGED.c.name))),
    "a table by its name, with a schema": lambda: select(Doc.title, WITH_SCHEMA.c.name),
    "a table whose name is SQL": lambda: select(Doc.title, NO_NAME.c.name),
    "a function that makes rows": lambda: select(Doc.title, func.all_people().table_valued("name").c.name),
    "the catalogue": lambda: select(Doc.title, table("pg_stats", column("tablename")).c.tablename),
    "a text in an operator": lambda: select(Doc.title).where(Doc.title.op("= '' OR 1=1 OR title =")("x")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_seen_through_is_refused(guarded: Guarded, name: str) -> None:
    session = bound(guarded)
    with pytest.raises(UnscopedStatementError):
        guarded.run(session, lambda s: s.execute(REFUSED[name]()).all())


def test_a_name_that_is_sql_is_quoted(guarded: Guarded) -> None:
    """Even where the identifier says that it must not be quoted."""
    session = bound(guarded)
    label = quoted_name("n, (SELECT max(name) FROM rnd_people)", False)
    (row,) = guarded.run(session, lambda s: s.execute(select(Doc.title.label(label)).where(Doc.id == 101)).all())
    assert row == ("a!doc 101",)


def test_what_is_declared_to_hold_no_tenants_rows_may_be_read(guarded: Guarded, face: Face) -> None:
    made = Guarded(face, tenant_free=["sqlite_master", "pg_tables"])
    session = made.session()
    bind_tenant(session, "a")
    name = "sqlite_master" if face.engine.dialect.name == "sqlite" else "pg_tables"
    found = made.run(session, lambda s: s.execute(select(func.count()).select_from(table(name))).scalar())
    made.close()
    assert found > 0


def test_a_parameter_can_not_be_forged(guarded: Guarded) -> None:
    session = bound(guarded)
    with pytest.raises(TenantIsolationError):
        guarded.run(session, lambda s: s.execute(select(Doc.title), {"dotmac_owner_0": "b"}).all())


def test_a_kept_statement_serves_each_tenant(guarded: Guarded) -> None:
    statement = select(Doc.title).where(Doc.id > bindparam("least")).order_by(Doc.id).limit(1)
    for tenant in ("a", "b", "c", "a"):
        session = bound(guarded, tenant)
        (title,) = guarded.run(session, lambda s: s.scalars(statement, {"least": 0}).all())
        assert title.startswith(f"{tenant}!")


def test_a_user_of_the_same_shape_is_confined_though_the_repository_was_first(guarded: Guarded) -> None:
    session = guarded.session()
    docs = guarded.face.repository(session, Doc, "a")
    guarded.face(docs.list)
    by_hand = select(Doc).where(Doc.tenant_id == bindparam("dotmac_tenant"))
    found = guarded.run(session, lambda s: s.scalars(by_hand, {"dotmac_tenant": "b"}).all())
    assert found == []


# Joins that lost a condition, and statements that were refused though they are ordinary.


def _doc_joined_to_people() -> Any:
    return select(func.count()).select_from(join(Person, Doc, Doc.title.like("b!%")))


CONFINED: dict[str, tuple[Callable[[], Any], Any]] = {
    "a joined class of which nothing is selected": (_doc_joined_to_people, [(0,)]),
    "within a subquery": (lambda: select(_doc_joined_to_people().scalar_subquery()), [(0,)]),
    "in HAVING": (lambda: select(func.count(Tag.id)).having(_doc_joined_to_people().scalar_subquery() > 0), []),
    "any of many to many": (
        lambda: select(Person.id).where(Person.tags.any(Tag.label == "a!tag 100")),
        [(101,), (103,)],
    ),
    "join of many to many": (lambda: select(func.count()).select_from(Person).join(Person.tags), [(6,)]),
    "has of itself": (
        lambda: select(func.count(Person.id)).where(Person.boss.has(Person.name == "a!person 100")),
        [(5,)],
    ),
    "any of itself": (lambda: select(Person.id).where(Person.staff.any()), [(100,)]),
    "an alias of a joined child": (lambda: select(aliased(CoreRouter).level).order_by(text("1")), [(101,), (104,)]),
    "the table between many and many": (
        lambda: select(func.count()).select_from(Person).join(person_tags, person_tags.c.tag_id > 0),
        [(36,)],
    ),
    "the parent of tenants' children": (
        lambda: select(Event.what).order_by(Event.id),
        [("shared",), ("a!visit 100",), ("a!visit 101",)],
    ),
    "of_type": (lambda: select(func.count(Person.id)).where(Person.docs.of_type(aliased(Doc)).any()), [(3,)]),
}


@pytest.mark.parametrize("name", CONFINED)
def test_an_ordinary_statement_has_the_tenants_rows(guarded: Guarded, name: str) -> None:
    session = bound(guarded)
    make, expected = CONFINED[name]
    assert guarded.run(session, lambda s: [tuple(row) for row in s.execute(make())]) == expected


def test_an_expression_spoils_no_later_statement(guarded: Guarded) -> None:
    """`with_expression` on a column property with a subselect: SQLAlchemy changed the mapped expression for good."""
    session = bound(guarded)

    def work(s: Session) -> list[Any]:
        before = s.scalars(select(Person.doc_count).select_from(Person)).all()  # type: ignore[attr-defined]
        option = with_expression(Person.extra, Person.doc_count + 1)  # type: ignore[attr-defined]
        s.scalars(select(Person).options(option)).all()
        s.expunge_all()
        every = with_polymorphic(Asset, "*")
        s.execute(select(every).options(joinedload(every.owner))).unique().all()
        return [before, s.scalars(select(Person.doc_count).select_from(Person)).all()]  # type: ignore[attr-defined]

    before, after = map(sorted, guarded.run(session, work))
    assert before == after
    assert sum(before) == 4


def test_full_joins_have_each_tenants_rows_alone(guarded: Guarded) -> None:
    if guarded.face.engine.dialect.name == "sqlite":
        pytest.skip("before SQLite 3.39 there is no FULL JOIN, and Debian's 3.40 is read by the same compiler")
    session = bound(guarded)
    statement = select(Person.id, Tag.id).join(Tag, Tag.id == Person.id, full=True)
    found = guarded.run(session, lambda s: sorted(map(tuple, s.execute(statement))))
    assert found == [(key, key if key < 103 else None) for key in range(100, 106)]


# Inherited classes, by hand.

BY_HAND: dict[str, tuple[Any, str, int]] = {
    "child by the parent's column": (delete(CoreRouter).where(CoreRouter.name.like("%101")), "rnd_core_routers", 1),
    "child by its own column": (delete(CoreRouter).where(CoreRouter.level == 101), "rnd_core_routers", 1),
    "child by the middle's column": (delete(CoreRouter).where(CoreRouter.ports == 101), "rnd_core_routers", 1),
    "all children": (delete(CoreRouter), "rnd_core_routers", 2),
    "child of a shared parent": (delete(Visit).where(Visit.what.like("%101")), "rnd_visits", 1),
    "update by the parent's column": (update(Router).values(ports=1).where(Router.name.like("%103")), "rnd_routers", 1),
    "update from the parent's column": (
        update(Router).values(ports=func.length(Router.name)).where(Router.name.like("%103")),
        "rnd_routers",
        1,
    ),
}


NOT_IN_PYTHON = tuple(name for name, (statement, *_) in BY_HAND.items() if "LIKE" in str(statement))
"""SQLAlchemy can't evaluate LIKE in Python, with or without a guard."""


@pytest.mark.parametrize("synchronize", [False, "evaluate", "fetch"])
@pytest.mark.parametrize("name", BY_HAND)
def test_a_change_of_an_inherited_class_is_tied_to_its_parents(guarded: Guarded, name: str, synchronize: Any) -> None:
    statement, where, changed = BY_HAND[name]
    session = bound(guarded)
    with guarded.face.database.engine.connect() as connection:
        before = contents(connection)

    def work(s: Session) -> None:
        s.execute(statement, execution_options={"synchronize_session": synchronize})
        s.commit()

    if synchronize == "evaluate" and name in NOT_IN_PYTHON:
        with pytest.raises(InvalidRequestError):
            guarded.run(session, work)
        guarded.run(session, lambda s: s.rollback())
        changed = 0
    else:
        guarded.run(session, work)
    with guarded.face.database.engine.connect() as connection:
        after = contents(connection)
    lost = {table: set(before[table]) - set(after[table]) for table in before if before[table] != after[table]}
    assert {name: len(rows) for name, rows in lost.items()} == ({where: changed} if changed else {})
    assert all(row[0] < 200 for rows in lost.values() for row in rows)


def test_a_change_beside_an_untied_table_is_refused(guarded: Guarded) -> None:
    session = bound(guarded)
    if guarded.face.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no DELETE … USING")
    with pytest.raises(UnscopedStatementError):
        guarded.run(session, lambda s: s.execute(delete(Tag).where(Doc.title == "a!doc 101")))


def test_a_columns_own_value_ties_nothing(guarded: Guarded) -> None:
    session = bound(guarded)
    statement = update(Doc).values(size=Doc.size + 1).where(Tag.label == "a!tag 100")
    with pytest.raises(UnscopedStatementError):
        guarded.run(session, lambda s: s.execute(statement, execution_options={"synchronize_session": False}))


@pytest.mark.parametrize("hint", ["%(name)s CROSS JOIN rnd_people", ", rnd_people", "ONLY (SELECT 1)"])
def test_a_hint_names_no_other_table(hint: str) -> None:
    assert not is_plain_hint(hint)


@pytest.mark.parametrize(
    "name", ["last_insert_rowid", "total_changes", "st_estimatedextent", "set_config", "unheard_of"]
)
def test_a_function_that_reads_more_than_its_arguments_is_not_known(name: str) -> None:
    assert not is_known_function(name, frozenset())
    assert is_known_function(name, frozenset((name,)))


def test_a_tenant_is_set_by_no_way_of_updating(guarded: Guarded) -> None:
    session = bound(guarded)
    statement = update(Doc).values(tenant_id="b").where(Doc.id == 101)
    ways: list[Callable[[Session], Any]] = [
        lambda s: s.execute(statement),
        lambda s: s.scalars(select(Doc).from_statement(statement.returning(Doc))).all(),
        lambda s: s.execute(update(Doc), [{"id": 101, "tenant_id": "b"}]),
        lambda s: s.execute(update(Doc.__table__).values(tenant_id="b").where(Doc.id == 101)),
        lambda s: s.execute(update(Doc.__table__).values({"tenant_id": "b"}).where(Doc.title == SECRET)),
        lambda s: s.execute(update(Doc).values(tenant_id=select(func.max(Doc.title)).scalar_subquery())),
        lambda s: s.execute(update(Doc).where(Doc.id == 101).ordered_values((Doc.tenant_id, "b"))),
    ]
    if guarded.face.engine.dialect.name == "postgresql":
        ways.append(lambda s: s.execute(select(statement.returning(Doc.id).cte().c.id)).all())
        made = insert(Doc).values(id=150, title="x", size=1, tenant_id="b").returning(Doc.id)
        ways.append(lambda s: s.execute(select(made.cte().c.id)).all())
    for way in ways:
        with pytest.raises(TenantIsolationError):
            guarded.run(session, way)
        guarded.run(session, lambda s: s.rollback())


def test_core_that_names_classes_writes_nothing(guarded: Guarded) -> None:
    """A SELECT of Core may name classes inside. A write of Core is not stamped, whatever it names."""
    session = bound(guarded)
    docs: Any = Doc.__table__
    inner = select(func.max(Person.name)).scalar_subquery()
    ways: list[Callable[[Session], Any]] = [
        lambda s: s.execute(insert(docs).values(id=150, title=inner, size=1, tenant_id="b")),
        lambda s: s.execute(update(docs).where(docs.c.id == 101).values(title="x")),
        lambda s: s.execute(delete(docs).where(docs.c.id == 101)),
        lambda s: s.connection().execute(insert(docs).values(id=150, title=inner, size=1, tenant_id="b")),
    ]
    for way in ways:
        with pytest.raises(UnscopedStatementError):
            guarded.run(session, way)
        guarded.run(session, lambda s: s.rollback())


def test_a_detached_forgery_is_refused(guarded: Guarded) -> None:
    session = bound(guarded)

    def work(s: Session) -> None:
        forged = Doc(id=201, tenant_id="a", title="x", size=1)
        make_transient_to_detached(forged)
        s.add(forged)
        forged.title = "taken"
        s.flush()

    with pytest.raises(TenantIsolationError):
        guarded.run(session, work)


def test_statements_of_the_session_guarded_after_the_first_compile_are_apart(face: Face) -> None:
    """A statement that an unguarded session compiled first is compiled anew for a guarded one."""
    if face.is_async:
        pytest.skip("the compiled statements are the engine's, on either face")
    with face.database.sessions() as plain:
        assert len(plain.scalars(select(Tag)).all()) == 9
    maker: Any = guard_tenants(face.database.sessions)
    with maker() as session:
        bind_tenant(session, "a")
        assert len(session.scalars(select(Tag)).all()) == 3
