"""Random sequences over a few tenants: after each step no foreign row was returned, and none was changed.

``DOTMAC_TENANCY_EXAMPLES`` says how many sequences; the usual run has a few, CI's 2,000 in all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Dialect, delete, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, joinedload, make_transient_to_detached, selectinload

from dotmac_database import BaseTenantRepository, DatabaseError, bind_tenant
from tests.conftest import Face

from .conftest import Guarded
from .models import Account, Base, Dog, Label, Note

EXAMPLES = int(os.environ.get("DOTMAC_TENANCY_EXAMPLES", "100"))
TENANTS = ("a", "b", "c")
Step = Callable[[Session, str, int], Any]


def _repository(session: Session, model: Any, tenant: str) -> Any:
    return BaseTenantRepository(session, model, tenant, auto_commit=False)


def _attach(session: Session, tenant: str, key: int) -> None:
    entity = Account(id=key, tenant_id=tenant, name="loaded", is_deleted=False)
    make_transient_to_detached(entity)
    session.add(entity)
    entity.name = f"{tenant} changed"
    session.flush()


def _upsert(session: Session, tenant: str, key: int) -> None:
    made = (postgresql if session.get_bind().dialect.name == "postgresql" else sqlite).insert(Account)
    statement = made.values(id=key, name=f"{tenant} upserted", is_deleted=False)
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"name": f"{tenant} upserted"}))


def _change(session: Session, tenant: str, key: int) -> Any:
    entity = session.get(Account, key)
    if entity is not None:
        entity.name = f"{tenant} changed"
        session.flush()
    return entity


def _remove(session: Session, _tenant: str, key: int) -> None:
    entity = session.get(Note, key)
    if entity is not None:
        session.delete(entity)
        session.flush()


def _refresh(session: Session, _tenant: str, key: int) -> Any:
    for entity in list(session.identity_map.values()):
        session.refresh(entity)
    return session.get(Account, key, populate_existing=True)


def _link(session: Session, tenant: str, key: int) -> None:
    note = session.get(Note, key)
    if note is not None:
        note.account = session.get(Account, key + 1) or Account(name=f"{tenant} new")
        note.labels.append(Label(name=f"{tenant} label"))
        session.flush()


STEPS: dict[str, Step] = {
    "read": lambda s, t, k: s.scalars(select(Account)).all(),
    "get": lambda s, t, k: [s.get(Account, k), s.get(Note, k), s.get(Dog, k)],
    "join": lambda s, t, k: [list(row) for row in s.execute(select(Note, Account).join(Account, Account.id == k))],
    "joined load": lambda s, t, k: _related(s.scalars(select(Note).options(joinedload(Note.account))).unique()),
    "select-in load": lambda s, t, k: _related(s.scalars(select(Note).options(selectinload(Note.labels)))),
    "lazy load": lambda s, t, k: _related([s.get(Note, k)]),
    "refresh": _refresh,
    "expire": lambda s, t, k: s.expire_all(),
    "expunge": lambda s, t, k: s.expunge_all(),
    "add": lambda s, t, k: (s.add(Account(name=f"{t} new")), s.flush()),
    "add a child": lambda s, t, k: (s.add(Dog(name=f"{t} dog", tricks=f"{t} trick")), s.flush()),
    "forge": lambda s, t, k: (s.add(Account(tenant_id=TENANTS[k % 3], name=f"{t} forged")), s.flush()),
    "change": _change,
    "remove": _remove,
    "attach": _attach,
    "merge": lambda s, t, k: (s.merge(Account(id=k, name=f"{t} merged")), s.flush()),
    "link": _link,
    "update": lambda s, t, k: s.execute(update(Account).values(name=f"{t} updated")),
    "update a child": lambda s, t, k: s.execute(update(Dog).values(tricks=f"{t} updated")),
    "update by key": lambda s, t, k: s.execute(update(Account), [{"id": k, "name": f"{t} by key"}]),
    "delete": lambda s, t, k: s.execute(delete(Label).where(~Label.notes.any(), Label.id >= k)),
    "bulk insert": lambda s, t, k: s.execute(insert(Label), [{"name": f"{t} one"}, {"name": f"{t} two"}]),
    "bulk forge": lambda s, t, k: s.execute(insert(Label), [{"name": t, "tenant_id": TENANTS[k % 3]}]),
    "upsert": _upsert,
    "core": lambda s, t, k: s.execute(update(Account.__table__).values(name="core")),
    "raw": lambda s, t, k: s.execute(text("UPDATE accounts SET name = 'raw'")),
    "driver": lambda s, t, k: s.connection().exec_driver_sql("DELETE FROM notes"),
    "fragment": lambda s, t, k: s.scalars(select(Account).where(text("1=1 OR 1=1"))).all(),
    "repository reads": lambda s, t, k: _repository(s, Account, t).list({"include_deleted": True}),
    "repository eager": lambda s, t, k: _related(
        _repository(s, Note, t).list({"relationships": ["account", "labels"]})
    ),
    "repository updates": lambda s, t, k: _repository(s, Account, t).update(k, {"name": f"{t} repository"}),
    "repository creates": lambda s, t, k: _repository(s, Note, t).create({"title": f"{t} created", "account_id": k}),
    "repository deletes": lambda s, t, k: _repository(s, Account, t).delete(k),
    "repository upserts": lambda s, t, k: _repository(s, Account, t).upsert({"id": k, "name": f"{t} mine"}, ["id"]),
    "repository of another": lambda s, t, k: _repository(s, Account, TENANTS[k % 3]).update(k, {"name": "x"}),
    "commit": lambda s, t, k: s.commit(),
    "rollback": lambda s, t, k: s.rollback(),
    "close": lambda s, t, k: s.close(),
    "bind to another": lambda s, t, k: bind_tenant(s, t) if k % 2 else None,
}

# One choice a move: three would take Hypothesis three times as long.
MOVES = st.lists(
    st.sampled_from([(name, tenant, key) for name in sorted(STEPS) for tenant in TENANTS for key in range(1, 9)]),
    min_size=1,
    max_size=12,
)


def _related(notes: Any) -> list[Any]:
    found: list[Any] = []
    for note in notes:
        if note is not None:
            found += [note, note.account, *note.labels]
    return found


def _owners(result: Any) -> Iterator[str]:
    """The tenants of every object in a step's result."""
    if isinstance(result, (list, tuple)):
        for each in result:
            yield from _owners(each)
    elif hasattr(type(result), "__mapper__"):
        yield result.tenant_id


class _World:
    """The rows of all tenants, on a connection without a guard: a script resets them, and one statement reads them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        self._reset = _script(connection.dialect)
        self._read = f"""
            SELECT tenant_id, 'account', {_texts(Account)} FROM accounts
            UNION ALL SELECT tenant_id, 'note', {_texts(Note)} FROM notes
            UNION ALL SELECT tenant_id, 'label', {_texts(Label)} FROM labels
            UNION ALL SELECT tenant_id, 'dog', {_texts(Dog)} FROM animals JOIN dogs ON dogs.id = animals.id
        """

    def reset(self) -> None:
        if self._connection.dialect.name == "postgresql":
            self._connection.exec_driver_sql(self._reset)
        else:
            self._connection.connection.driver_connection.executescript(self._reset)  # type: ignore[union-attr]

    def rows(self) -> dict[str, set[tuple[str, str]]]:
        """Every tenant's committed rows, as text."""
        found: dict[str, set[tuple[str, str]]] = {tenant: set() for tenant in TENANTS}
        for tenant, kind, row in self._connection.exec_driver_sql(self._read):
            found[tenant].add((kind, row))
        return found


def _texts(model: Any) -> str:
    """The values of all columns of a row, as one text. NULL and an empty text differ."""
    columns = [column for table in model.__mapper__.tables for column in table.columns]
    return " || ',' || ".join(f"coalesce('=' || CAST({column} AS text), 'NULL')" for column in columns)


def _script(dialect: Dialect) -> str:
    """The statements that delete all rows and insert those that each sequence starts with."""
    rows = [{"id": k, "tenant_id": TENANTS[k % 3], "name": f"{TENANTS[k % 3]} {k}"} for k in range(1, 7)]
    notes = [{"id": k, "tenant_id": TENANTS[k % 3], "title": str(k), "account_id": k % 6 + 1} for k in range(1, 7)]
    links = [{"note_id": k, "label_id": (k + 1) % 6 + 1} for k in range(1, 7)]
    tables = Base.metadata.tables
    statements: list[Any] = [table.delete() for table in reversed(Base.metadata.sorted_tables)]
    statements += [
        insert(tables["accounts"]).values([{**row, "is_deleted": False} for row in rows]),
        insert(tables["notes"]).values(notes),
        insert(tables["labels"]).values(rows),
        insert(tables["note_labels"]).values(links),
        insert(tables["animals"]).values([{**row, "kind": "dog"} for row in rows]),
        insert(tables["dogs"]).values([{"id": row["id"], "tricks": row["name"]} for row in rows]),
    ]
    if dialect.name == "postgresql":
        numbered = ("accounts", "notes", "labels", "animals")
        statements += [text(f"ALTER SEQUENCE {name}_id_seq RESTART WITH 100") for name in numbered]
    compiled = [str(each.compile(dialect=dialect, compile_kwargs={"literal_binds": True})) for each in statements]
    return ";".join(["BEGIN", *compiled, "COMMIT"])


def _play(guarded: Guarded, world: _World, moves: list[tuple[str, str, int]]) -> None:
    """Each tenant has a session of its own at a time; steps of the three are interleaved by committing between them."""
    world.reset()
    session: Any = None
    current: str | None = None
    before = world.rows()
    try:
        for name, tenant, key in moves:
            if current != tenant:
                if session is not None:
                    guarded.face(session.close)  # back to the pool, for the next one
                session = guarded.maker()
                bind_tenant(session, tenant)
                current = tenant
            _step(guarded, session, name, tenant, key)
            after = world.rows()
            for other in TENANTS:
                if other != tenant:
                    assert after[other] == before[other], f"{name} of {tenant} changed a row of {other}"
            before = after
    finally:
        if session is not None:
            guarded.face(session.close)


def _step(guarded: Guarded, session: Any, name: str, tenant: str, key: int) -> None:
    def work(sync: Session) -> None:
        owners = set(_owners(STEPS[name](sync, tenant, key)))
        assert owners <= {tenant}, f"{name} of {tenant} gave rows of {owners}"
        sync.flush()
        if key > 4:
            sync.commit()

    try:
        guarded.run(session, work)
    except (DatabaseError, SQLAlchemyError):
        guarded.face(session.rollback)
        guarded.sync(session).expunge_all()


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
def test_no_sequence_crosses(face: Face) -> None:
    """Rings: the repository and the guarded session, without row-level security.

    Most sequences are of the sync face: it takes half the time, and the async face has the same guard behind it.
    """
    guarded = Guarded(face)
    connection = face.database.engine.connect()
    world = _World(connection)

    @settings(
        max_examples=max(1, EXAMPLES // 8 if face.is_async else 3 * EXAMPLES // 8),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(MOVES)
    def run(moves: list[tuple[str, str, int]]) -> None:
        _play(guarded, world, moves)

    try:
        run()
    finally:
        connection.close()
        guarded.close()
