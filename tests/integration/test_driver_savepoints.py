"""After failed writes in a transaction, exactly the successful writes are committed.

Each case is a sequence of steps in one transaction. A model in Python says which rows it commits. The cases run on all
drivers, by the driver and by SQLAlchemy.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import DDL, CheckConstraint, ForeignKey, delete, event, insert, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from dotmac_database import (
    ConstraintViolationError,
    DatabaseError,
    DuplicateEntityError,
    RowLevelSecurity,
    TenantMixin,
    TransactionError,
    bind_tenant,
    create_database,
    guard_tenants,
)
from tests.confined import SECRETS, confined_database
from tests.conftest import DRIVERS, Face, Faces
from tests.ways import EACH_WAY, block, way_of


class Base(DeclarativeBase):
    """The table of these tests."""


class Row(TenantMixin, Base):
    """A row with every kind of constraint."""

    __tablename__ = "savepoint_rows"
    __table_args__ = (CheckConstraint("size > 0", name="size_is_positive"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    code: Mapped[str] = mapped_column(unique=True)
    size: Mapped[int] = mapped_column(default=1)
    word: Mapped[str | None]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("savepoint_rows.id"))


SQLITE_TRIGGERS = {
    "refused": "BEFORE INSERT ON savepoint_rows WHEN NEW.word = 'refused' BEGIN SELECT RAISE(ABORT, 'refused'); END",
    "rolls_back": "AFTER INSERT ON savepoint_rows WHEN NEW.word = 'rollback' BEGIN SELECT RAISE(ROLLBACK, 'all'); END",
    "stays": "AFTER INSERT ON savepoint_rows WHEN NEW.word = 'fail' BEGIN SELECT RAISE(FAIL, 'stays'); END",
}
"""Triggers that refuse a row by its word, each with another effect on the transaction."""

POSTGRESQL_TRIGGER = """
CREATE FUNCTION refuse_row() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '22023'; END $$;
CREATE TRIGGER refused BEFORE INSERT ON savepoint_rows FOR EACH ROW WHEN (NEW.word = 'refused')
EXECUTE FUNCTION refuse_row()
"""

STATEMENTS = {
    "postgresql": [POSTGRESQL_TRIGGER],
    "sqlite": [f"CREATE TRIGGER {name} {body}" for name, body in SQLITE_TRIGGERS.items()],
}
for name, statements in STATEMENTS.items():
    for statement in statements:
        ddl: Any = DDL(statement)  # type: ignore[no-untyped-call]  # SQLAlchemy's
        event.listen(Row.__table__, "after_create", ddl.execute_if(dialect=name))

FIRST = {"id": 1, "code": "c1", "size": 1, "tenant_id": "a"}
"""The row that is committed before each case."""


class BlockError(Exception):
    """The user's own exception, which leaves a block."""


ERRORS: dict[str, type[Exception]] = {
    "fails": BlockError,
    "is doomed": TransactionError,
    "is left by a refusal": DuplicateEntityError,
}
"""What is raised where a block does not end with success."""


@dataclass(frozen=True)
class Do:
    """One step: a method of `Run`."""

    action: str


@dataclass(frozen=True)
class Within:
    """Steps in a transaction or in a savepoint.

    ``kind``: what begins it. ``outcome``: that its end succeeds, or a key of `ERRORS`. Without ``savepoints`` a block
    has no savepoints around its writes.
    """

    kind: str
    steps: tuple[Do | Within, ...]
    outcome: str = "ends"
    savepoints: bool = True


Step = Do | Within


class Run:
    """Runs steps on a session. ``rows`` is the model: the sizes of the rows that a commit would now leave."""

    def __init__(self, face: Face, session: Any) -> None:
        self._face = face
        self._session = session
        self._repository = face.repository(session, Row, "a")
        self._numbers = itertools.count(2)
        self.rows: dict[int, int] = {1: 1}

    def steps(self, steps: Sequence[Step]) -> None:
        """Run the steps one after the other."""
        for step in steps:
            if isinstance(step, Do):
                getattr(self, f"_{step.action}")()
            else:
                self._within(step)

    def _within(self, step: Within) -> None:
        before = dict(self.rows)
        if step.kind == "raw":
            self._raw_savepoint(step)
        elif step.outcome == "ends":
            self._entered(step)
        else:
            with pytest.raises(ERRORS[step.outcome]):
                self._entered(step)
        if step.outcome != "ends":
            self.rows = before

    def _entered(self, step: Within) -> None:
        with self._block(step):
            self.steps(step.steps)
            if step.outcome == "fails":
                raise BlockError

    def _block(self, step: Within) -> Any:
        if step.kind == "block":
            return block(self._face, self._session, savepoints=step.savepoints)
        return self._face.entered(getattr(self._session, step.kind)())

    def _raw_savepoint(self, step: Within) -> None:
        name = f"raw_{next(self._numbers)}"
        self.execute(f"SAVEPOINT {name}")
        self.steps(step.steps)
        if step.outcome == "fails":
            self.execute(f"ROLLBACK TO SAVEPOINT {name}")
        self.execute(f"RELEASE SAVEPOINT {name}")

    def execute(self, sql: str) -> None:
        if self._face.is_async:
            self._face(self._session.execute, text(sql))
        else:
            self._session.execute(text(sql))

    def _data(self, **values: Any) -> dict[str, Any]:
        number = next(self._numbers)
        return {"id": number, "code": f"c{number}", "size": number, **values}

    def _refuse(self, error: type[DatabaseError], **values: Any) -> None:
        with pytest.raises(error):
            self._face(self._repository.create, self._data(**values))

    def _create(self) -> None:
        data = self._data()
        assert self._face(self._repository.create, data).size == data["size"]
        self.rows[data["id"]] = data["size"]

    def _duplicate(self) -> None:
        self._refuse(DuplicateEntityError, code="c1")

    def _escape(self) -> None:
        """A write that is refused, and whose exception leaves the block."""
        self._face(self._repository.create, self._data(code="c1"))

    def _create_in_vain(self) -> None:
        """A write in a doomed transaction, which PostgreSQL refuses."""
        with suppress(DatabaseError):
            self._face(self._repository.create, self._data())

    def _check(self) -> None:
        self._refuse(ConstraintViolationError, size=-1)

    def _reference(self) -> None:
        self._refuse(ConstraintViolationError, parent_id=-1)

    def _refused(self) -> None:
        self._refuse(DatabaseError, word="refused")

    def _update(self) -> None:
        key, size = max(self.rows), next(self._numbers)
        assert self._face(self._repository.update, key, {"size": size}).size == size
        self.rows[key] = size

    def _bad_update(self) -> None:
        with pytest.raises(ConstraintViolationError):
            self._face(self._repository.update, max(self.rows), {"size": -1})

    def _raw(self) -> None:
        data = self._data()
        values = f"{data['id']}, '{data['code']}', {data['size']}, 'a'"
        self.execute(f"INSERT INTO savepoint_rows (id, code, size, tenant_id) VALUES ({values})")
        self.rows[data["id"]] = data["size"]

    def _flush(self) -> None:
        data = self._data()
        self._session.add(Row(**data, tenant_id="a"))
        self._face(self._session.flush)
        self.rows[data["id"]] = data["size"]

    def _read(self) -> None:
        listed = self._face(self._repository.values("id", "size").list, {"pagination": {"per_page": 100}})
        assert {row["id"]: row["size"] for row in listed} == self.rows


def do(actions: str) -> tuple[Step, ...]:
    """The steps with these names."""
    return tuple(map(Do, actions.split()))


def within(kind: str, actions: str, outcome: str = "ends") -> Within:
    """The steps with these names, in a savepoint of this kind."""
    return Within(kind, do(actions), outcome)


FAILURES = ("duplicate", "check", "reference", "refused", "bad_update")
PLACES = {
    "after a write": ("create", "create duplicate update raw", "create duplicate update read"),
    "after two writes": ("create create", "create duplicate update raw", "create duplicate update read"),
    "after a failure": ("create duplicate", "duplicate create", "check create read"),
    "at the beginning": ("", "create check raw", "duplicate create"),
    "with only a read": ("read create", "read", "duplicate create"),
    "with nothing": ("create create", "", "duplicate create read"),
}
"""For a savepoint: the steps before it, within it, and after it."""

CASES: dict[str, tuple[Step, ...]] = {
    **{f"{failure} is the first statement": do(f"{failure} create {failure} update read") for failure in FAILURES},
    **{f"{failure} between writes": do(f"create {failure} update {failure} create read") for failure in FAILURES},
    "only failures": do("duplicate check reference refused bad_update"),
    "the last statement fails": do("create update duplicate"),
    "between raw statements": do("raw duplicate raw check raw create reference raw read"),
    "between flushes": do("flush duplicate flush check create flush read"),
    "a read comes first": do("read duplicate create read check read"),
    "savepoints of both kinds in each other": (
        *do("create duplicate"),
        Within("block", (*do("create check"), Within("begin_nested", (*do("update"), within("block", "create check")))),
               "fails"),
        *do("duplicate create"),
        Within("begin_nested", (*do("create"), within("block", "check create", "fails"), *do("duplicate create"))),
        *do("reference update read"),
    ),
    "savepoints one after the other": (
        within("block", "create duplicate"),
        within("block", "duplicate create", "fails"),
        within("begin_nested", "create", "fails"),
        within("begin_nested", "duplicate"),
        *do("duplicate create"),
    ),
}  # fmt: skip
"""The steps of each case."""

SAVEPOINTS: dict[str, tuple[Step, ...]] = {
    f"{kind} {outcome} {place}": (*do(before), within(kind, inner, outcome), *do(after))
    for kind in ("block", "begin_nested", "raw")
    for outcome in ("ends", "fails")
    for place, (before, inner, after) in PLACES.items()
}
"""The same, for one savepoint of each kind."""

ENDED_BY_DRIVER = {f"raw {outcome} {place}" for outcome in ("ends", "fails") for place in list(PLACES)[1:3]}
"""The cases in which the driver's savepoint is older than a savepoint of raw SQL, within which the driver writes."""


def doomed(outcome: str, *steps: Step) -> Within:
    """A block without savepoints."""
    return Within("block", steps, outcome, savepoints=False)


def within_savepoints(*steps: Step) -> Within:
    """A block with savepoints."""
    return Within("block", steps)


DOOMED: dict[str, Within] = {
    "nothing fails": doomed("ends", *do("create update raw read create")),
    "the exception leaves the block": doomed("is left by a refusal", *do("create escape")),
    "the exception of the first write leaves the block": doomed("is left by a refusal", *do("escape")),
    **{f"{failure} is caught": doomed("is doomed", *do(f"create {failure}")) for failure in FAILURES},
    **{f"{failure} of the first write is caught": doomed("is doomed", *do(failure)) for failure in FAILURES},
    "later writes are in vain": doomed("is doomed", *do("raw duplicate create_in_vain create_in_vain")),
    "a nested block leaves by a refusal": doomed(
        "ends", *do("create"), doomed("is left by a refusal", *do("create escape")), *do("create read")
    ),
    "a nested block with savepoints goes on": doomed(
        "ends", *do("create"), within("block", "duplicate create"), *do("create read")
    ),
    "a failure after a nested block with savepoints": doomed(
        "is doomed", *do("create"), within("block", "duplicate create"), *do("create duplicate")
    ),
    "a nested block fails by itself": doomed("ends", doomed("fails", *do("create")), *do("create read")),
    "within savepoints, a block leaves by a refusal": Within(
        "block", (*do("create"), doomed("is left by a refusal", *do("escape")), *do("duplicate create read"))
    ),
    "within savepoints, nothing fails": Within("block", (doomed("ends", *do("create")), *do("duplicate create read"))),
    "within the session's begin": Within("begin", (doomed("is left by a refusal", *do("escape")), *do("create read"))),
}
"""Blocks without savepoints, and what each end is."""

CAUGHT_IN_NESTED: dict[str, Within] = {
    "of a block without savepoints": doomed("ends", doomed("is doomed", *do("create duplicate")), *do("create read")),
    "of a block with savepoints": Within(
        "block", (doomed("is doomed", *do("duplicate")), *do("create duplicate read"))
    ),
}
"""A nested block without savepoints in which a failure is caught. Its end is refused, and the outer block goes on."""


def emptied(face: Face) -> Face:
    """The face, whose table has the `FIRST` row alone."""
    with face.database.engine.begin() as connection:
        connection.execute(delete(Row))
        connection.execute(insert(Row), FIRST)
    return face


@pytest.fixture(params=DRIVERS, scope="module")
def of_driver(request: pytest.FixtureRequest, faces: Faces) -> Face:
    """The face of each driver, with its table."""
    face: Face = faces[request.param]
    Base.metadata.create_all(face.database.engine)
    return face


@pytest.fixture
def face(of_driver: Face) -> Face:
    return emptied(of_driver)


def committed(face: Face) -> dict[int, int]:
    """The size of each committed row."""
    with face.database.engine.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(select(Row.id, Row.size))}


def run(face: Face, session: Any, step: Within) -> None:
    """Run the steps of a transaction, and compare the committed rows with the model."""
    model = Run(face, session)
    model.steps([step])
    assert committed(face) == model.rows


@EACH_WAY
@pytest.mark.parametrize("case", CASES)
def test_exactly_the_successful_writes_are_committed(face: Face, way: str, case: str) -> None:
    with way_of(face.engine, way), face.session(expire_on_commit=False) as session:
        run(face, session, Within("block", CASES[case]))


@EACH_WAY
@pytest.mark.parametrize("case", SAVEPOINTS)
def test_with_savepoints_of_others(face: Face, way: str, case: str) -> None:
    with way_of(face.engine, way), face.session(expire_on_commit=False) as session:
        run(face, session, Within("begin", SAVEPOINTS[case]))


def is_postgresql(face: Face) -> bool:
    return face.engine.dialect.name == "postgresql"


@pytest.mark.fast_way("driver")
def test_a_write_replaces_the_savepoint_of_the_last_one(face: Face) -> None:
    """Otherwise each write would nest the transaction deeper."""
    if not is_postgresql(face):
        pytest.skip("PostgreSQL's")
    with way_of(face.engine, "driver"), face.session(expire_on_commit=False) as session:
        model = Run(face, session)
        with pytest.raises(TransactionError), block(face, session):  # noqa: PT012 - the end of the block raises
            model.steps(do("create create create create"))
            model.execute("RELEASE SAVEPOINT dotmac_write")
            with pytest.raises(DBAPIError, match="dotmac_write"):
                model.execute("RELEASE SAVEPOINT dotmac_write")


@pytest.mark.parametrize("comment", ["/* a comment */ ", "-- a comment\n", " "])
@EACH_WAY
def test_raw_sql_behind_a_comment(face: Face, way: str, comment: str) -> None:
    with way_of(face.engine, way), face.session(expire_on_commit=False) as session:
        with block(face, session):
            model = Run(face, session)
            model.execute("SAVEPOINT mine")
            before = dict(model.rows)
            model.steps(do("create create"))
            model.execute(f"{comment}ROLLBACK TO SAVEPOINT mine")
            model.rows = before
            model.steps(do("create duplicate create read"))
        assert committed(face) == model.rows


# After a flush that failed, the end of the block flushes again, and raises what that raised.
@pytest.mark.fast_way("update-statements")
@EACH_WAY
@pytest.mark.parametrize("case", DOOMED)
def test_blocks_without_savepoints(face: Face, way: str, case: str) -> None:
    with way_of(face.engine, way), face.session(expire_on_commit=False) as session:
        run(face, session, DOOMED[case])
        assert not session.in_transaction()
        run_again(face, session)


@EACH_WAY
@pytest.mark.parametrize("case", CAUGHT_IN_NESTED)
def test_a_failure_that_is_caught_in_a_nested_block_without_savepoints(face: Face, way: str, case: str) -> None:
    with way_of(face.engine, way), face.session(expire_on_commit=False) as session:
        run(face, session, CAUGHT_IN_NESTED[case])
        run_again(face, session)


def run_again(face: Face, session: Any) -> None:
    """Check that the session is usable."""
    emptied(face)
    run(face, session, within("block", "create duplicate create"))


@pytest.fixture(params=["sqlite3", "aiosqlite"])
def sqlite_face(request: pytest.FixtureRequest, faces: Faces) -> Face:
    face: Face = faces[request.param]
    Base.metadata.create_all(face.database.engine)
    return emptied(face)


def row(number: int, word: str | None = None) -> dict[str, Any]:
    return {"id": number, "code": f"c{number}", "word": word}


@EACH_WAY
@pytest.mark.parametrize("place", ["block", "nested block"])
def test_a_block_whose_transaction_a_trigger_rolls_back(sqlite_face: Face, way: str, place: str) -> None:
    """Its end is refused, even if the exception of the write is caught."""
    face = sqlite_face
    with way_of(face.engine, way), face.session(expire_on_commit=False) as session:
        rows = face.repository(session, Row, "a")
        with pytest.raises(TransactionError), block(face, session):  # noqa: PT012 - the end of the block raises
            face(rows.create, row(2))
            with nullcontext() if place == "block" else block(face, session), suppress(DatabaseError):
                face(rows.create, row(3, "rollback"))
            face(rows.create, row(4))
        assert committed(face) == {1: 1}
        run_again(face, session)


@EACH_WAY
@pytest.mark.parametrize("place", ["block", "begin", "autobegun"])
def test_the_error_of_a_trigger_that_rolls_the_transaction_back(sqlite_face: Face, way: str, place: str) -> None:
    face = sqlite_face
    with way_of(face.engine, way), face.session(expire_on_commit=False) as session:
        rows = face.repository(session, Row, "a", auto_commit=place != "autobegun")
        with pytest.raises(TransactionError), outer_block(face, session, place):  # noqa: PT012 - the block may raise, too
            face(rows.create, row(2))
            face(rows.create, row(3, "rollback"))
        face(rows.create, row(4))
        face(session.commit)
    assert committed(face) == {1: 1, 4: 1}


def outer_block(face: Face, session: Any, place: str) -> AbstractContextManager[Any]:
    """A block, the session's ``begin``, or nothing, if the first statement begins the transaction."""
    if place == "autobegun":
        return nullcontext()
    return block(face, session) if place == "block" else face.entered(session.begin())


@EACH_WAY
@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])
def test_a_trigger_that_fails_without_undoing_the_row(sqlite_face: Face, way: str, inside: bool) -> None:
    """By the driver there is no savepoint that would undo the row, so the whole transaction is rolled back."""
    face = sqlite_face
    refused = way == "driver" and inside
    with way_of(face.engine, way), face.session(expire_on_commit=False) as session:
        rows = face.repository(session, Row, "a")
        block_ends = pytest.raises(TransactionError) if refused else nullcontext()
        with block_ends, block(face, session) if inside else nullcontext():
            if inside:
                face(rows.create, row(2))
            with pytest.raises(TransactionError if refused else DatabaseError):
                face(rows.create, row(3, "fail"))
            face(rows.create, row(4))
    assert committed(face).keys() == ({1} if refused else {1, 2, 4} if inside else {1, 4})


actions = st.sampled_from(("create", "duplicate", "check", "update", "bad_update", "raw", "flush", "read"))


def sequences(*kinds: str) -> st.SearchStrategy[list[Step]]:
    """Sequences of steps, with savepoints of these kinds."""
    steps: st.SearchStrategy[Step] = st.recursive(
        st.builds(Do, actions),
        lambda children: st.builds(
            Within,
            kind=st.sampled_from(kinds),
            steps=st.lists(children, max_size=4).map(tuple),
            outcome=st.sampled_from(("ends", "fails")),
        ),
        max_leaves=10,
    )
    return st.lists(steps, min_size=1, max_size=7)


PROFILE = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@EACH_WAY
@PROFILE
@given(sequence=sequences("block", "begin_nested"), outer=st.sampled_from(("block", "begin")))
def test_random_steps(face: Face, way: str, sequence: list[Step], outer: str) -> None:
    emptied(face)
    steps = (*do("read"), *sequence)  # so that at least one statement is sent
    with way_of(face.engine, way), face.session(expire_on_commit=False) as session:
        run(face, session, Within(outer, steps))


@EACH_WAY
@PROFILE
@given(sequence=sequences("block", "begin_nested", "raw"))
def test_random_steps_with_raw_savepoints(face: Face, way: str, sequence: list[Step]) -> None:
    emptied(face)
    with way_of(face.engine, way), face.session(expire_on_commit=False) as session:
        run(face, session, Within("block", (*do("read"), *sequence)))


@pytest.fixture(scope="module", params=SECRETS)
def confined_url(request: pytest.FixtureRequest, postgres_server: str) -> Iterator[str]:
    """The URL of a database with row-level security, whose settings are signed if the secret is not None."""
    name = f"confined_{request.param}_{os.getpid()}"
    rls = RowLevelSecurity(Base.metadata, secret=SECRETS[request.param])
    with confined_database(postgres_server, name, rls) as url:
        yield url


@pytest.fixture(params=[name for name, (_, scheme) in DRIVERS.items() if scheme != "sqlite"])
def confined(request: pytest.FixtureRequest, confined_url: str) -> Iterator[Face]:
    """The face of a driver on this database."""
    kind, scheme = DRIVERS[request.param]
    face = Face(kind, create_database(confined_url.replace("postgresql", scheme, 1)))
    yield face
    face.runner.run(face.database.dispose_async())
    face.runner.close()


CONFINED_CASES = {**CASES, **{name: each for name, each in SAVEPOINTS.items() if not name.startswith("raw")}}


@EACH_WAY
def test_with_row_level_security(confined: Face, confined_url: str, postgres_server: str, way: str) -> None:
    """The tenant is set again if the transaction is rolled back because its first statement has failed."""
    secret = SECRETS["signed" if "_signed" in confined_url else "unsigned"]
    owner = postgres_server.rpartition("/")[0] + "/" + str(make_url(confined_url).database)
    maker: Any = (
        async_sessionmaker(confined.database.async_engine) if confined.is_async else sessionmaker(confined.engine)
    )
    guard_tenants(maker, rls=RowLevelSecurity(Base.metadata, secret=secret))
    for steps in CONFINED_CASES.values():
        with psycopg.connect(owner, autocommit=True) as connection:
            connection.execute("DELETE FROM savepoint_rows")
            connection.execute("INSERT INTO savepoint_rows (id, code, size, tenant_id) VALUES (1, 'c1', 1, 'a')")
        session = maker(expire_on_commit=False)
        bind_tenant(session, "a")
        with way_of(confined.engine, way):
            model = Run(confined, session)
            model.steps([Within("block", steps)])
        confined(session.close)
        with psycopg.connect(owner) as connection:
            assert dict(connection.execute("SELECT id, size FROM savepoint_rows").fetchall()) == model.rows
