"""Each statement is measured once, has one span, and counts once, by each way to send it: driver x way."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry
from sqlalchemy import ForeignKey, StaticPool, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import (
    CircuitBreaker,
    DatabaseError,
    DatabaseLogFilter,
    Instrumentation,
    MisuseError,
    RetryPolicy,
    StatementBudget,
    StatementBudgetExceeded,
    StatementBudgetWarning,
    TransactionError,
    UnscopedStatementError,
    create_database,
    instrument,
    observers,
    with_retry,
)
from dotmac_database.telemetry import REQUEST, RequestContext
from dotmac_database.telemetry.text import MAX_LENGTH, sanitised, verb
from tests.conftest import DRIVERS, Face, Faces
from tests.ways import block, create_tables, recorded


class TelemetryBase(DeclarativeBase): ...


class Shelf(TelemetryBase):
    __tablename__ = "telemetry_shelves"
    id: Mapped[int] = mapped_column(primary_key=True)
    books: Mapped[list[Book]] = relationship(order_by="Book.id")


class Book(TelemetryBase):
    __tablename__ = "telemetry_books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    shelf_id: Mapped[int | None] = mapped_column(ForeignKey("telemetry_shelves.id"))


class Seen(NamedTuple):
    """What was measured: the registry, the exporter of the spans, and the instrumentation."""

    registry: CollectorRegistry
    spans: InMemorySpanExporter
    instrumentation: Instrumentation

    def measured(self) -> dict[tuple[str, str, str], int]:
        """How many statements were measured, by operation, model and outcome."""
        return {
            (sample.labels["operation"], sample.labels["model"], sample.labels["outcome"]): int(sample.value)
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == "dotmac_database_statement_duration_seconds_count" and sample.value
        }

    def spanned(self) -> list[tuple[Any, Any]]:
        """The operations and models of the spans."""
        return [
            ((span.attributes or {})["dotmac.operation"], (span.attributes or {}).get("dotmac.model", ""))
            for span in self.spans.get_finished_spans()
        ]


@pytest.fixture(params=DRIVERS)
def face(request: pytest.FixtureRequest, faces: Faces) -> Face:
    face = faces[request.param]
    create_tables(face, TelemetryBase.metadata)
    with face.session() as session:
        face(face.repository(session, Shelf).create, {"id": 1})
        books = face.repository(session, Book)
        face(books.create_many if hasattr(books, "create_many") else books.bulk_create, ROWS)
    return face


ROWS = [{"id": 1, "title": "one", "shelf_id": 1}, {"id": 2, "title": "two", "shelf_id": 1}]


def instrumented(face: Face, **options: Any) -> Seen:
    registry, spans, provider = CollectorRegistry(), InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return Seen(
        registry, spans, instrument(face.database, prometheus=registry, opentelemetry=provider, name="books", **options)
    )


@pytest.fixture
def seen(face: Face) -> Iterator[Seen]:
    seen = instrumented(face)
    yield seen
    seen.instrumentation.remove()


def in_block(face: Face, session: Any, work: Callable[[], Any]) -> None:
    with block(face, session):
        face(face.repository(session, Shelf).exists, 1)
        work()


def flush(face: Face, session: Any) -> None:
    session.add(Book(id=9, title="nine"))
    face(session.commit)


def lazy(face: Face, session: Any) -> None:
    async def load() -> None:
        await session.run_sync(lambda sync: [*sync.get(Shelf, 1).books])

    if face.is_async:
        face(load)
    else:
        list(session.get(Shelf, 1).books)


def streamed(face: Face, session: Any) -> None:
    face(face.repository(session, Book).stream, None, 100)


def many(count: int) -> list[dict[str, Any]]:
    return [{"id": number, "title": "many"} for number in range(100, 100 + count)]


Run = Callable[[Face, Any], Any]

WAYS: dict[str, tuple[Run, dict[tuple[str, str], int]]] = {
    "get": (lambda face, session: face(face.repository(session, Book).get_by_id, 1), {("get_by_id", "Book"): 1}),
    "list": (lambda face, session: face(face.repository(session, Book).list), {("list", "Book"): 1}),
    "by field": (
        lambda face, session: face(face.repository(session, Book).get_by_field, "title", "one"),
        {("get_by_field", "Book"): 1},
    ),
    "page": (lambda face, session: face(face.repository(session, Book).page), {("page", "Book"): 1}),
    "create": (
        lambda face, session: face(face.repository(session, Book).create, {"id": 3, "title": "three"}),
        {("create", "Book"): 1},
    ),
    "update": (
        lambda face, session: face(face.repository(session, Book).update, 1, {"title": "new"}),
        {("update", "Book"): 1},
    ),
    "in a transaction": (
        lambda face, session: in_block(
            face, session, lambda: face(face.repository(session, Book).update, 1, {"title": "new"})
        ),
        {("exists", "Shelf"): 1, ("update", "Book"): 1},
    ),
    "values": (
        lambda face, session: face(face.repository(session, Book).values("title").list),
        {("list", "Book"): 1},
    ),
    "relationships": (
        lambda face, session: face(face.repository(session, Shelf).get_by_id, 1, False, ["books"]),
        {("get_by_id", "Shelf"): 2},
    ),
    "arrays": (
        lambda face, session: face(face.repository(session, Book).bulk_create, many(50), returning=False),
        {("bulk_create", "Book"): 1},
    ),
    "unit of work": (flush, {("insert", "Book"): 1}),
    "lazy load": (lazy, {("select", "Shelf"): 1, ("select", "Book"): 1}),
    "stream": (streamed, {("stream", "Book"): 1}),
    "statement": (
        lambda face, session: face(session.execute, select(Book.title)),
        {("select", "Book"): 1},
    ),
    "table": (
        lambda face, session: face(session.execute, Book.__table__.select()),  # type: ignore[attr-defined]
        {("select", "Book"): 1},
    ),
    "text": (lambda face, session: face(session.execute, text("SELECT 1")), {("select", ""): 1}),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_statement_is_seen_once(face: Face, seen: Seen, way: str) -> None:
    run, expected = WAYS[way]
    with face.session(expire_on_commit=False) as session, StatementBudget(100) as budget:
        run(face, session)
    assert seen.measured() == {(*key, "ok"): count for key, count in expected.items()}
    assert sorted(seen.spanned()) == sorted(key for key, count in expected.items() for _ in range(count))
    assert budget.count == sum(expected.values())


@pytest.mark.fast_way("copy")
def test_copy_is_seen_once(face: Face, seen: Seen) -> None:
    with face.session() as session, StatementBudget(100) as budget:
        face(face.repository(session, Book).bulk_create, many(600), returning=False)
    copies = [span for span in seen.spans.get_finished_spans() if span.name == "COPY telemetry_books"]
    assert len(copies) == (1 if face.engine.dialect.name == "postgresql" else 0)
    assert set(seen.spanned()) == {("bulk_create", "Book")}
    assert budget.count == len(seen.spans.get_finished_spans()) == seen.measured()["bulk_create", "Book", "ok"]


@pytest.mark.fast_way("driver")
@pytest.mark.parametrize("inside", [False, True])
def test_telemetry_does_not_switch_the_driver_off(face: Face, seen: Seen, inside: bool) -> None:
    with face.session(expire_on_commit=False) as session, recorded() as sent, StatementBudget(100) as budget:
        books = face.repository(session, Book)
        if inside:
            in_block(face, session, lambda: face(books.get_by_id, 1))
        else:
            face(books.get_by_id, 1)
            face(books.create, {"id": 3, "title": "three"})
    assert len(sent) == 2 == budget.count


def test_a_failed_statement_is_an_error_without_values(face: Face, seen: Seen) -> None:
    with face.session() as session, pytest.raises(DatabaseError):
        face(face.repository(session, Book).create, {"id": 1, "title": "secret"})
    assert seen.measured() == {("create", "Book", "error"): 1}
    (span,) = seen.spans.get_finished_spans()
    assert not span.status.is_ok
    assert span.attributes is not None
    assert span.attributes["error.type"]
    assert "secret" not in span.to_json()


def test_spans_have_the_names_of_the_conventions(face: Face, seen: Seen) -> None:
    with face.session() as session:
        face(session.execute, text("SELECT title FROM telemetry_books WHERE title = 'it''s' AND id = 17 -- 18"))
        face(face.repository(session, Book).get_by_id, 1)
    raw, read = seen.spans.get_finished_spans()
    assert raw.attributes is not None
    assert raw.attributes["db.query.text"] == "SELECT title FROM telemetry_books WHERE title = ? AND id = ?"
    assert (read.name, read.kind.name) == ("SELECT telemetry_books", "CLIENT")
    assert read.attributes is not None
    names = ("db.system.name", "db.operation.name", "db.collection.name", "dotmac.operation", "dotmac.model")
    assert [read.attributes[name] for name in names] == [
        face.engine.dialect.name,
        *("SELECT", "telemetry_books", "get_by_id", "Book"),
    ]
    assert read.start_time is not None
    assert read.end_time is not None
    assert read.start_time <= read.end_time


# Budgets.


def reads(face: Face, session: Any, times: int) -> None:
    for _ in range(times):
        face(face.repository(session, Book).get_by_id, 1)


@pytest.mark.parametrize("inside", [False, True])
def test_a_budget_raises_and_the_session_goes_on(face: Face, inside: bool) -> None:
    def work() -> None:
        with StatementBudget(2, "raise") as budget:
            reads(face, session, 2)
            with pytest.raises(StatementBudgetExceeded, match=r"3 times: SELECT telemetry_books\.id") as raised:
                reads(face, session, 1)
            with pytest.raises(StatementBudgetExceeded):
                face(face.repository(session, Book).create, {"id": 3, "title": "refused"})
            with pytest.raises(StatementBudgetExceeded):
                face(session.execute, select(Book))
        assert (raised.value.limit, budget.count) == (2, 5)
        face(face.repository(session, Book).create, {"id": 4, "title": "four"})

    with face.session(expire_on_commit=False) as session:
        if inside:
            in_block(face, session, work)
        else:
            work()
        assert sorted(book.id for book in face(face.repository(session, Book).list)) == [1, 2, 4]
    assert face.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_a_budget_warns_once_at_the_users_line(face: Face) -> None:
    async def users_code() -> None:
        books = face.repository(session, Book)
        for _ in range(4):
            await books.get_by_id(1)  # the line

    def users_sync_code() -> None:
        books = face.repository(session, Book)
        for _ in range(4):
            books.get_by_id(1)  # the sync line

    with face.session() as session, StatementBudget(2) as budget, pytest.warns(StatementBudgetWarning) as warned:
        face(users_code if face.is_async else users_sync_code)
    (warning,) = warned
    assert warning.filename == __file__
    marked = "# the line" if face.is_async else "# the sync line"
    assert marked in Path(__file__).read_text().splitlines()[warning.lineno - 1]
    assert "users_" in str(warning.message)
    assert budget.count == 4


def test_a_lazy_load_is_refused_with_its_line(face: Face) -> None:
    def n_plus_one(sync: Any) -> None:
        shelves = sync.scalars(select(Shelf)).all()
        for shelf in shelves:
            list(shelf.books)  # the lazy load

    with (
        face.session() as session,
        StatementBudget(1, "raise"),
        pytest.raises(StatementBudgetExceeded, match="n_plus_one") as raised,
    ):
        face(*((session.run_sync, n_plus_one) if face.is_async else (n_plus_one, session)))
    line = int(str(raised.value).rsplit(":", 1)[1].split()[0])
    assert "# the lazy load" in Path(__file__).read_text().splitlines()[line - 1]


def test_a_warning_may_be_an_error(face: Face) -> None:
    with face.session() as session, StatementBudget(0), warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(StatementBudgetWarning):
            reads(face, session, 1)


def test_nobody_observes_statements_after_the_last_budget() -> None:
    """Budgets of many threads, that end in any order, and by errors."""
    before, threads, rounds = observers.OBSERVED[:], 8, 50

    def spend() -> list[int]:
        counts = []
        for number in range(rounds):
            engine = create_engine("sqlite://", poolclass=StaticPool)
            with suppress(ZeroDivisionError), StatementBudget(100) as outer, StatementBudget(100) as inner:
                with engine.connect() as connection:
                    connection.execute(text("SELECT 1"))
                counts += [outer.count, inner.count]
                _ = 1 / (number % 2)
            engine.dispose()
        return counts

    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(spend) for _ in range(threads)]
        assert all(each.result() == [1] * rounds * 2 for each in futures)
    assert before == observers.OBSERVED
    with StatementBudget(1):
        with StatementBudget(1):
            assert len(observers.OBSERVED) == len(before) + 1, "a statement costs the same beside other requests"
        assert len(observers.OBSERVED) == len(before) + 1, "the outer block still counts"
    assert before == observers.OBSERVED


def test_budgets_are_nested_and_checked() -> None:
    engine = create_database("sqlite://").engine
    with StatementBudget(1) as outer, StatementBudget(1) as inner, engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    assert (outer.count, inner.count, outer.repeated) == (1, 1, [("SELECT ?", 1)])
    assert repr(outer) == "StatementBudget(1, on_exceed='warn')"
    for wrong in ((-1,), (True,), ("3",), (1, "ignore")):
        with pytest.raises(MisuseError):
            StatementBudget(*wrong)  # type: ignore[arg-type]


# Metrics.


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"dotmac_database_{name}", labels)


def test_transactions_and_pools(face: Face, seen: Seen) -> None:
    with face.session() as session:
        in_block(face, session, lambda: face(face.repository(session, Book).create, {"id": 3, "title": "three"}))
        with pytest.raises(ZeroDivisionError):
            in_block(face, session, lambda: 1 / 0)  # type: ignore[return-value]
        with block(face, session):
            face(session.connection)
            engine = "async" if face.is_async else "sync"
            assert value(seen.registry, "pool_checked_out", database="books", engine=engine) == 1
            assert value(seen.registry, "pool_waiting", database="books", engine=engine) == 0
    count = "transaction_duration_seconds_count"
    assert (value(seen.registry, count, database="books", outcome="commit") or 0) >= 1
    assert value(seen.registry, count, database="books", outcome="rollback") == 1


def test_a_second_database_and_a_second_call() -> None:
    registry = CollectorRegistry()
    first, second = create_database("sqlite://"), create_database("sqlite://")
    options: dict[str, Any] = {"prometheus": registry, "opentelemetry": False}
    names = [instrument(each, **options).name for each in (first, second, first, second)]
    assert names == ["default", "default-2", "default", "default-2"]
    for database in (first, second):
        with database.engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    for name in ("default", "default-2"):
        labels = {"database": name, "operation": "select", "model": "", "outcome": "ok"}
        assert value(registry, "statement_duration_seconds_count", **labels) == 1
    first.instrumentation.remove()  # type: ignore[attr-defined]
    with first.engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    labels = {"database": "default", "operation": "select", "model": "", "outcome": "ok"}
    assert value(registry, "statement_duration_seconds_count", **labels) == 1


def test_retries_breakers_and_refusals() -> None:
    registry = CollectorRegistry()
    instrument(create_database("sqlite://"), prometheus=registry, opentelemetry=False)
    attempts = iter([TransactionError("again", transient=True)])

    @with_retry(RetryPolicy(base_delay=0.0))
    def retried() -> None:
        for error in attempts:
            raise error

    retried()
    operation = next(
        sample.labels["operation"]
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "dotmac_database_retry_attempts_total"
    )
    for outcome in ("retrying", "succeeded"):
        assert value(registry, "retry_attempts_total", operation=operation, outcome=outcome) == 1
    breaker = CircuitBreaker(failure_threshold=1, name="payments")
    with pytest.raises(OSError, match="down"), breaker:
        raise OSError("down")
    assert value(registry, "circuit_breaker_changes_total", breaker="payments", state="open") == 1
    UnscopedStatementError()
    assert value(registry, "tenant_refusals_total", error="UnscopedStatementError") == 1


def test_tenants_are_bounded(faces: Faces) -> None:
    from tests.models import Base, Tag

    face = faces["sqlite3"]
    create_tables(face, Base.metadata)
    seen = instrumented(face, tenant_label=2)
    with face.session() as session:
        for number in range(5):
            face(face.repository(session, Tag, f"t{number}").list)
    counts = {
        sample.labels["tenant"]: sample.value
        for metric in seen.registry.collect()
        for sample in metric.samples
        if sample.name == "dotmac_database_tenant_statements_total"
    }
    seen.instrumentation.remove()
    assert counts == {"t0": 1, "t1": 1, "other": 3}


def test_bad_options_and_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    database = create_database("sqlite://")
    with pytest.raises(MisuseError, match="takes a DatabasePlugin or a Database"):
        instrument("sqlite://")  # type: ignore[arg-type]
    with pytest.raises(MisuseError, match="negative"):
        instrument(database, opentelemetry=False, tenant_label=-1)
    for package, options in (
        ("opentelemetry.trace", {}),
        ("prometheus_client", {"prometheus": CollectorRegistry(), "opentelemetry": False}),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MisuseError, match=r"dotmac-database-toolkit\[telemetry\]"):
            instrument(database, **options)  # type: ignore[arg-type]


def test_nothing_is_imported_or_observed_before() -> None:
    script = (
        "import sys, fastapi\n"
        "before = set(sys.modules)\n"  # FastAPI imports OpenTelemetry if it is installed
        "import dotmac_database, dotmac_database_fastapi\n"
        "new = set(sys.modules) - before\n"
        "assert not [name for name in new if name.startswith(('prometheus_client', 'opentelemetry'))]\n"
        "from dotmac_database.observers import OBSERVED\n"
        "assert not OBSERVED\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# Logs and texts.


def test_slow_statements_are_logged(face: Face, caplog: pytest.LogCaptureFixture) -> None:
    seen = instrumented(face, slow_statement=0.0)
    caplog.handler.addFilter(log_filter := DatabaseLogFilter(tenant=True))
    token = REQUEST.set(RequestContext("GET /books/{id}", "r-1", "t-1"))
    with caplog.at_level(logging.WARNING, "dotmac_database.slow_statements"), face.session() as session:
        face(face.repository(session, Book).get_by_field, "title", "secret")
    REQUEST.reset(token)
    seen.instrumentation.remove()
    caplog.handler.removeFilter(log_filter)
    (record,) = (each for each in caplog.records if each.name == "dotmac_database.slow_statements")
    message = record.getMessage()
    assert "GET /books/{id}, Book.get_by_field: SELECT telemetry_books.id" in message
    assert "secret" not in message
    fields = ("route", "model", "operation", "request_id")
    assert [getattr(record, name) for name in fields] == ["GET /books/{id}", "Book", "get_by_field", "r-1"]


def test_a_record_of_the_users_code_has_the_fields() -> None:
    record = logging.LogRecord("app", logging.INFO, __file__, 1, "hello", (), None)
    token = REQUEST.set(RequestContext("GET /x", "r-2", "t-2"))
    assert DatabaseLogFilter().filter(record)
    plain = vars(record).copy()
    assert DatabaseLogFilter(tenant=True).filter(record)
    REQUEST.reset(token)
    assert (plain["request_id"], plain["route"], plain["tenant"], plain["model"]) == ("r-2", "GET /x", None, None)
    assert vars(record)["tenant"] == "t-2"


TEXTS = {
    "SELECT a FROM t WHERE b = $1 AND c = 5": "SELECT a FROM t WHERE b = $1 AND c = ?",
    "SELECT 'it''s', E'x', 1.5e3, t1.c2": "SELECT ?, ?, ?, t1.c2",
    'SELECT "o\'clock 1", %(x_1)s /* 7 */': 'SELECT "o\'clock 1", %(x_1)s',
    "SELECT $tag$ it's 1 $tag$, $$2$$": "SELECT ?, ?",
    "SELECT -1, a1, (2)": "SELECT -?, a1, (?)",
}


@pytest.mark.parametrize("sql", TEXTS)
def test_texts_have_no_literals(sql: str) -> None:
    assert sanitised(sql) == TEXTS[sql]


def test_texts_and_verbs_are_bounded() -> None:
    assert len(sanitised(f"SELECT {', '.join(['a'] * 9000)}")) == MAX_LENGTH
    assert [
        verb(sql) for sql in ("with x as (select 1) select 2", " insert into t", "DROP TABLE t", "", "(SELECT 1)")
    ] == [
        *("SELECT", "INSERT", "OTHER", "OTHER", "SELECT"),
    ]
