"""Attacks by reading: the guarded session alone must hold, without row-level security."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import (
    CTE,
    Table,
    and_,
    column,
    exists,
    extract,
    func,
    literal,
    literal_column,
    or_,
    select,
    table,
    text,
    union_all,
    update,
)
from sqlalchemy.orm import (
    Session,
    aliased,
    contains_eager,
    defer,
    joinedload,
    lazyload,
    selectin_polymorphic,
    selectinload,
    subqueryload,
    with_loader_criteria,
    with_polymorphic,
)

from dotmac_database.errors import (
    TenantIsolationError,
    TenantRequiredError,
    UnscopedStatementError,
)
from dotmac_database.tenancy import bind_tenant

from .conftest import Guarded
from .models import (
    Account,
    Animal,
    Catalogue,
    Device,
    Dog,
    Gadget,
    Label,
    Note,
    Offer,
    Seat,
    Truck,
    Vehicle,
    note_labels,
)

pytestmark = pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product")

ACCOUNTS: Table = Account.__table__  # type: ignore[assignment]
NOTES: Table = Note.__table__  # type: ignore[assignment]
Read = Callable[[Session], Any]


def _cte(session: Session) -> Any:
    cte: CTE = select(Account).cte()
    return session.execute(select(cte)).all()


def _recursive(session: Session) -> Any:
    base = select(Account.id, Account.name).where(Account.id == 1).cte(recursive=True)
    both = base.union_all(select(Account.id, Account.name).where(Account.id == base.c.id + 1))
    return session.execute(select(both)).all()


def _alias(session: Session) -> Any:
    other = aliased(Account)
    return session.execute(select(Account.name, other.name).join(other, other.id != Account.id)).all()


def _subquery_entity(session: Session) -> Any:
    other = aliased(Account, select(Account).subquery())
    return session.scalars(select(other)).all()


def _values_of(found: Any) -> str:
    """Everything that a result says, to look for the other tenant's secret."""
    if isinstance(found, (list, tuple)) or hasattr(found, "_fields"):
        return " ".join(_values_of(each) for each in found)
    if hasattr(found, "__mapper__"):
        state = found.__dict__
        return " ".join(str(value) for key, value in state.items() if not key.startswith("_sa"))
    return str(found)


CONFINED: dict[str, Read] = {
    "entity": lambda s: s.scalars(select(Account)).all(),
    "columns": lambda s: s.execute(select(Account.id, Account.name)).all(),
    "column alone": lambda s: s.scalars(select(Account.name)).all(),
    "alias": _alias,
    "subquery": lambda s: s.execute(select(select(Account).subquery())).all(),
    "subquery as entity": _subquery_entity,
    "cte": _cte,
    "recursive cte": _recursive,
    "union": lambda s: s.execute(union_all(select(Account.name), select(Note.title))).all(),
    "scalar subquery": lambda s: s.execute(
        select(
            select(
                func.group_concat(Account.name) if _lite(s) else func.string_agg(Account.name, ",")
            ).scalar_subquery()
        )
    ).all(),
    "exists": lambda s: s.execute(select(exists().where(Account.name == "b secret"))).scalar() and "secret",
    "any": lambda s: s.scalars(select(Account.name).where(~Account.notes.any(Note.title == "b secret stray"))).all(),
    "has": lambda s: s.scalars(select(Note.title).where(Note.account.has(Account.name.like("b%")))).all() and "secret",
    "in select": lambda s: s.scalars(select(Note.title).where(Note.account_id.in_(select(Account.id)))).all(),
    "in select of others": lambda s: (
        s.scalars(
            select(Note.id).where(Note.account_id.in_(select(Account.id).where(Account.name == "b secret")))
        ).all()
        and "secret"
    ),
    "join": lambda s: s.execute(select(Note.title, Account.name).join(Note.account)).all(),
    "outer join": lambda s: s.execute(select(Note.title, Account.name).outerjoin(Note.account)).all(),
    "join on": lambda s: s.execute(select(Note.title, Account.name).join(Account, Account.id > 0)).all(),
    "cross join": lambda s: s.execute(select(Note.title, Account.name).where(Note.id > 0, Account.id > 0)).all(),
    "or": lambda s: s.scalars(select(Account).where(or_(Account.id == 2, Account.id > 0))).all(),
    "group": lambda s: s.execute(select(Account.name, func.count()).group_by(Account.name)).all(),
    "count": lambda s: s.scalar(select(func.count()).select_from(Account)) == 3 and "secret",
    "query": lambda s: s.query(Account).all(),
    "query count": lambda s: s.query(Account).count() == 3 and "secret",
    "get": lambda s: s.get(Account, 2),
    "get with options": lambda s: s.get(Account, 2, populate_existing=True),
    "get for update": lambda s: s.get(Account, 2, with_for_update=not _lite(s)),
    "lazy many to one": lambda s: s.get(Note, 3).account,
    "lazy collection": lambda s: s.get(Account, 1).notes,
    "lazy many to many": lambda s: s.get(Note, 1).labels,
    "joined load": lambda s: _related(s, joinedload(Note.account), joinedload(Note.labels)),
    "inner joined load": lambda s: _related(s, joinedload(Note.account, innerjoin=True)),
    "select-in load": lambda s: _related(s, selectinload(Note.account), selectinload(Note.labels)),
    "subquery load": lambda s: _related(s, subqueryload(Note.account), subqueryload(Note.labels)),
    "lazy load option": lambda s: _related(s, lazyload(Note.account)),
    "nested loads": lambda s: _related(s, selectinload(Note.labels).joinedload(Label.notes).selectinload(Note.account)),
    "contains eager": lambda s: [
        _values_of(note.account)
        for note in s.scalars(select(Note).join(Note.account).options(contains_eager(Note.account)))
    ],
    "through a shared class": lambda s: s.get(Catalogue, 1).offers,
    "joined through a shared class": lambda s: [
        each.offers for each in s.scalars(select(Catalogue).options(joinedload(Catalogue.offers))).unique()
    ],
    "deferred": lambda s: [each.name for each in s.scalars(select(Account).options(defer(Account.name)))],
    "joined inheritance root": lambda s: [
        (each.name, getattr(each, "tricks", "")) for each in s.scalars(select(Animal))
    ],
    "joined inheritance child": lambda s: s.scalars(select(Dog)).all(),
    "child's columns": lambda s: s.execute(select(Dog.tricks)).all(),
    "child's get": lambda s: s.get(Dog, 12),
    "with polymorphic": lambda s: s.scalars(select(with_polymorphic(Animal, [Dog]))).all(),
    "flat with polymorphic": lambda s: s.scalars(select(with_polymorphic(Animal, "*", aliased=True, flat=True))).all(),
    "select-in polymorphic": lambda s: s.scalars(select(Animal).options(selectin_polymorphic(Animal, [Dog]))).all(),
    "single-table child": lambda s: s.scalars(select(Truck)).all(),
    "single-table root": lambda s: s.scalars(select(Vehicle)).all(),
    "SQLModel": lambda s: s.scalars(select(Gadget)).all(),
    "SQLModel's get": lambda s: s.get(Gadget, 2),
    "execution option of the user's": lambda s: s.scalars(
        select(Account), execution_options={"populate_existing": True}
    ).all(),
    "yield per": lambda s: s.scalars(select(Account).execution_options(yield_per=1)).all(),
    "correlated": lambda s: s.execute(
        select(Account.name, select(func.max(Note.title)).where(Note.id > Account.id).scalar_subquery())
    ).all(),
    "loader criteria of the user's": lambda s: s.scalars(
        select(Account).options(with_loader_criteria(Account, or_(Account.id > 0, Account.id == 2)))
    ).all(),
    "and_ of a load": lambda s: _related(s, selectinload(Note.account.and_(or_(Account.id > 0, Account.id == 2)))),
}


def _lite(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"


def _related(session: Session, *options: Any) -> Any:
    notes = session.scalars(select(Note).options(*options)).unique().all()
    return [[note, note.account, list(note.labels)] for note in notes]


@pytest.mark.parametrize("name", CONFINED)
def test_a_read_gives_the_tenants_rows_alone(guarded: Guarded, name: str) -> None:
    """Ring: the guard's conditions."""
    session = guarded.session()
    bind_tenant(session, "a")
    assert "secret" not in guarded.run(session, lambda s: _values_of(CONFINED[name](s)))


@pytest.mark.parametrize("name", [name for name in CONFINED if "shared" not in name])
def test_a_read_without_a_tenant_is_refused(guarded: Guarded, name: str) -> None:
    """Ring: the guard. An empty context is an error: never all rows, and never none in silence."""
    with pytest.raises(TenantRequiredError):
        guarded.run(guarded.session(), CONFINED[name])


def test_the_confined_reads_do_give_the_tenants_rows(guarded: Guarded) -> None:
    session = guarded.session()
    bind_tenant(session, "a")
    assert guarded.run(session, lambda s: sorted(s.scalars(select(Account.id)))) == [1, 3]
    assert guarded.run(session, lambda s: [each.tricks for each in s.scalars(select(Dog))]) == ["sit"]
    assert guarded.run(session, lambda s: [each.id for each in s.get(Note, 1).labels]) == [1]
    assert guarded.run(session, lambda s: s.get(Note, 3).account) is None
    assert guarded.run(session, lambda s: [each.title for each in s.get(Catalogue, 1).offers]) == ["a offer"]
    assert guarded.run(session, lambda s: s.scalar(select(func.count()).select_from(Offer))) == 1


@pytest.mark.parametrize(
    ("tenant", "model", "mine"),
    [(1, Seat, "one"), ("1", Seat, "one"), (str(ROW := "00000000-0000-0000-0000-00000000000a"), Device, "ten")],
)
def test_tenants_of_other_types(guarded: Guarded, tenant: Any, model: Any, mine: str) -> None:
    """Ring: the guard. A name from a header is a string, whatever the column's type."""
    session = guarded.session()
    bind_tenant(session, tenant)
    found = guarded.run(session, lambda s: _values_of(s.scalars(select(model)).all()))
    assert mine in found
    assert "secret" not in found


def test_a_tenant_that_a_table_can_not_name_is_refused(guarded: Guarded) -> None:
    """Ring: the guard. Tenant a has no rows in a table whose tenants are integers; that is no empty answer."""
    session = guarded.session()
    bind_tenant(session, "a")
    with pytest.raises(TenantIsolationError):
        guarded.run(session, lambda s: s.scalars(select(Seat)).all())


CORE = select(ACCOUNTS.c.id).where(ACCOUNTS.c.name == "b secret")

REFUSED: dict[str, Read] = {
    "core select": lambda s: s.execute(select(ACCOUNTS)).all(),
    "core columns": lambda s: s.execute(select(ACCOUNTS.c.name)).all(),
    "core alias": lambda s: s.execute(select(ACCOUNTS.alias())).all(),
    "core in an ORM statement": lambda s: s.scalars(select(Note).where(Note.account_id.in_(CORE))).all(),
    "core beside an entity": lambda s: s.execute(select(Note.id, ACCOUNTS.c.name)).all(),
    "core subquery of its own table": lambda s: s.execute(
        select(Account.id, select(func.max(ACCOUNTS.alias().c.name)).scalar_subquery())
    ).all(),
    "core cte": lambda s: s.execute(select(Account.id, select(ACCOUNTS).cte().c.name)).all(),
    "core exists": lambda s: s.execute(select(exists(select(ACCOUNTS.c.id).where(ACCOUNTS.c.id == 2)))).all(),
    "core column in a subquery": lambda s: s.scalars(
        select(Note.title).where(Note.id.in_(select(NOTES.c.id).select_from(Note)))
    ).all(),
    "entity over a forged subquery": lambda s: s.scalars(
        select(
            aliased(
                Account,
                select(ACCOUNTS.c.id, ACCOUNTS.c.name, literal("a").label("tenant_id")).subquery(),
                adapt_on_names=True,
            ).name
        )
    ).all(),
    "core lateral": lambda s: s.execute(
        select(Note.id, select(ACCOUNTS.c.name).where(Note.id > 0).lateral().c.name)
    ).all(),
    "core union": lambda s: s.execute(union_all(select(Account.name), select(ACCOUNTS.c.name))).all(),
    "table by its name": lambda s: s.execute(select(table("accounts", column("name")))).all(),
    "table by its name, in capitals": lambda s: s.execute(select(table("ACCOUNTS", column("name")))).all(),
    "secondary alone": lambda s: s.execute(select(note_labels)).all(),
    "secondary joined": lambda s: s.execute(
        select(Note.id, note_labels.c.label_id).join(note_labels, note_labels.c.note_id != Note.id)
    ).all(),
    "child's table alone": lambda s: s.execute(select(Dog.__table__)).all(),
    "text": lambda s: s.execute(text("SELECT * FROM accounts")).all(),
    "text with columns": lambda s: s.execute(text("SELECT id FROM accounts").columns(column("id"))).all(),
    "from statement": lambda s: s.scalars(select(Account).from_statement(text("SELECT * FROM accounts"))).all(),
    "from core statement": lambda s: s.scalars(select(Account).from_statement(select(ACCOUNTS))).all(),
    "connection": lambda s: s.connection().execute(text("SELECT * FROM accounts")).all(),
    "connection's core": lambda s: s.connection().execute(select(ACCOUNTS)).all(),
    "connection's ORM": lambda s: s.connection().execute(select(Account)).all(),
    "driver's SQL": lambda s: s.connection().exec_driver_sql("SELECT * FROM accounts").all(),
    "scalar of the connection": lambda s: s.connection().scalar(text("SELECT name FROM accounts")),
    "text condition": lambda s: s.scalars(select(Account).where(text("1=1 OR 1=1"))).all(),
    "literal column": lambda s: s.execute(select(Account.id, literal_column("(select max(name) from accounts)"))).all(),
    "order by text": lambda s: s.scalars(select(Account).order_by(text("(select max(name) from accounts)"))).all(),
    "group by text": lambda s: s.execute(select(func.count(Account.id)).group_by(text("name, (select 1)"))).all(),
    "having text": lambda s: s.execute(select(Account.name).group_by(Account.name).having(text("1=1 OR 1=1"))).all(),
    "text as a table": lambda s: s.execute(select(text("name")).select_from(text("accounts"))).all(),
    "join's text": lambda s: s.execute(select(Note.id).join(Account, text("1=1 OR 1=1"))).all(),
    "prefix": lambda s: s.scalars(select(Account).prefix_with("name, (select 1),")).all(),
    "suffix": lambda s: s.scalars(select(Account.name).suffix_with("UNION SELECT name FROM accounts")).all(),
    "operator": lambda s: s.scalars(select(Account).where(Account.name.op("= '' OR 1=1 OR name =")("x"))).all(),
    "extract": lambda s: s.execute(select(extract("year FROM now()) OR (1=1", Account.id)).where(Account.id > 0)).all(),
    "text in a joined load": lambda s: _related(s, joinedload(Note.account.and_(text("1=1 OR 1=1")))),
    "text in a relationship's join": lambda s: s.execute(
        select(Note.id, Account.name).join(Note.account.and_(text("1=1 OR 1=1")))
    ).all(),
    "core in a load's condition": lambda s: _related(s, joinedload(Note.account.and_(Account.id.in_(CORE)))),
    "core in a select-in load": lambda s: _related(s, selectinload(Note.account.and_(Account.id.in_(CORE)))),
    "core in loader criteria": lambda s: s.scalars(
        select(Note).options(with_loader_criteria(Note, Note.account_id.in_(CORE)))
    ).all(),
    "text in loader criteria": lambda s: s.scalars(
        select(Account).options(with_loader_criteria(Account, literal_column("1=1 OR 1=1")))
    ).all(),
    "text in a function": lambda s: s.execute(
        select(func.max(literal_column("(select max(name) from accounts)")))
    ).all(),
    "core write in a cte": lambda s: s.execute(
        select(
            Account.id,
            update(ACCOUNTS).values(name="x").returning(ACCOUNTS.c.id).cte().c.id,
        )
    ).all(),
    "ORM write in a cte": lambda s: s.execute(
        select(Account.id, update(Account).values(name="x").returning(Account.id).cte().c.id)
    ).all(),
    "DDL": lambda s: Note.metadata.drop_all(s.connection()),
    "query's text": lambda s: s.query(Account).filter(text("1=1 OR 1=1")).all(),
    "and with text": lambda s: s.scalars(select(Account).where(and_(Account.id > 0, text("id = 2 or id = 2")))).all(),
    "xml of a query": lambda s: s.execute(
        select(func.query_to_xml("select * from accounts", True, True, ""), Account.id)
    ).all(),
}

CORE_WITHIN = {
    name: REFUSED.pop(name)
    for name in (
        "core in an ORM statement",
        "core beside an entity",
        "core subquery of its own table",
        "core cte",
        "core column in a subquery",
        "entity over a forged subquery",
        "core lateral",
        "core union",
        "secondary joined",
        "from core statement",
        "core in a load's condition",
        "core in a select-in load",
        "core in loader criteria",
        "core write in a cte",
        "ORM write in a cte",
    )
}
"""Tables beside classes: the compiler confines both."""

SKIPPED = {
    "extract": ("sqlite",),
    "core lateral": ("sqlite",),
    "core write in a cte": ("sqlite",),
    "ORM write in a cte": ("sqlite",),
}


@pytest.mark.parametrize("name", CORE_WITHIN)
def test_a_table_within_a_statement_of_the_orm_is_confined(guarded: Guarded, name: str) -> None:
    """Ring: the guard's compiler."""
    if guarded.face.engine.dialect.name in SKIPPED.get(name, ()):
        pytest.skip("SQLAlchemy can't say that to SQLite")
    session = guarded.session()
    bind_tenant(session, "a")
    found = guarded.run(session, lambda s: _values_of(CORE_WITHIN[name](s)))
    assert "secret" not in found


@pytest.mark.parametrize("name", CORE_WITHIN)
def test_a_table_within_a_statement_of_the_orm_needs_a_tenant(guarded: Guarded, name: str) -> None:
    if guarded.face.engine.dialect.name in SKIPPED.get(name, ()):
        pytest.skip("SQLAlchemy can't say that to SQLite")
    with pytest.raises(TenantRequiredError):
        guarded.run(guarded.session(), CORE_WITHIN[name])


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_confined_is_refused(guarded: Guarded, name: str) -> None:
    """Ring: the guard's look at statement and connection."""
    if guarded.face.engine.dialect.name in SKIPPED.get(name, ()):
        pytest.skip("SQLAlchemy can't say that to SQLite")
    session = guarded.session()
    bind_tenant(session, "a")
    with pytest.raises(UnscopedStatementError):
        guarded.run(session, REFUSED[name])
    assert guarded.run(session, lambda s: sorted(s.scalars(select(Account.id)))) == [1, 3]  # still usable


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_confined_needs_a_tenant_too(guarded: Guarded, name: str) -> None:
    if guarded.face.engine.dialect.name in SKIPPED.get(name, ()):
        pytest.skip("SQLAlchemy can't say that to SQLite")
    with pytest.raises(TenantRequiredError):
        guarded.run(guarded.session(), REFUSED[name])


def test_harmless_fragments_are_let_through(guarded: Guarded) -> None:
    session = guarded.session()
    bind_tenant(session, "a")

    def work(s: Session) -> Any:
        return (
            s.scalars(select(Account.id).order_by(text("name desc"))).all(),
            s.scalar(select(func.count(literal_column("*"))).select_from(Account)),
            s.scalars(select(Catalogue.name)).all(),
            s.execute(select(Catalogue.__table__)).all(),
            s.connection().execute(select(func.length("abc"))).scalar(),
        )

    assert guarded.run(session, work) == ([3, 1], 2, ["shared"], [(1, "shared")], 3)
