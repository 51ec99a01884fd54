"""The parts of the matrix of schema changes: classes, changes, ways to send statements, and methods."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import DateTime, Numeric, String, UniqueConstraint, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import (
    Database,
    DatabaseTransaction,
    QueryFilter,
    SortField,
    TransactionManager,
    create_async_repository,
    create_repository,
)
from dotmac_database.models import SoftDeleteMixin, TenantMixin, VersionMixin

TENANT = "a"


class Base(DeclarativeBase):
    """The base class of tables that are changed while they are used."""


class Kind(enum.Enum):
    NEW = "new"
    OLD = "old"


class Columns(TenantMixin, SoftDeleteMixin, VersionMixin):
    """A column of each type that migrations often change."""

    id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int]
    name: Mapped[str] = mapped_column(String(20))
    note: Mapped[str | None] = mapped_column(String(20))
    price: Mapped[Decimal] = mapped_column(Numeric(6, 2))
    kind: Mapped[Kind]
    seen_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Item(Columns, Base):
    __tablename__ = "items"
    __table_args__ = (UniqueConstraint("tenant_id", "number"),)


class Views(DeclarativeBase):
    """The base class of classes that are mapped to views."""


class Seen(Columns, Views):
    __tablename__ = "seen_items"
    __table_args__ = (UniqueConstraint("tenant_id", "number"),)


class Mark(TenantMixin, Base):
    """A row that a transaction has written before the tested method."""

    __tablename__ = "marks"
    id: Mapped[UUID] = mapped_column(primary_key=True)


NAMES = ", ".join(Item.__table__.columns.keys())
VIEW = f"CREATE VIEW seen_items AS SELECT {NAMES} FROM items"


@dataclass(frozen=True)
class Change:
    """A change of the schema while the app runs, and the statement that reverses it."""

    name: str
    there: str
    back: str
    model: type[Any] = Item
    sqlite: bool = False


def _retype(column: str, there: str, back: str, using: str = "") -> tuple[str, str]:
    return tuple(f"ALTER TABLE items ALTER COLUMN {column} TYPE {each}" + using.format(each) for each in (there, back))  # type: ignore[return-value]


_NEW_TABLE = (
    "CREATE TABLE items_next (LIKE items INCLUDING ALL); ALTER TABLE items_next ADD COLUMN {} text;"
    "INSERT INTO items_next ({names}) SELECT {names} FROM items;"
    "ALTER TABLE items RENAME TO items_last; ALTER TABLE items_next RENAME TO items; DROP TABLE items_last CASCADE"
)
_NEW_ENUM = (
    "CREATE TYPE kind_next AS ENUM ({}); ALTER TABLE items ALTER COLUMN kind TYPE kind_next"
    " USING kind::text::kind_next; DROP TYPE kind; ALTER TYPE kind_next RENAME TO kind"
)
_ENUM_VALUE = "ALTER TYPE kind ADD VALUE IF NOT EXISTS '{}'"

CHANGES = (
    Change("no change", "SELECT 1", "SELECT 1", sqlite=True),
    Change(
        "column added", "ALTER TABLE items ADD COLUMN extra text", "ALTER TABLE items DROP COLUMN extra", sqlite=True
    ),
    Change(
        "column added with default",
        "ALTER TABLE items ADD COLUMN extra integer NOT NULL DEFAULT 7",
        "ALTER TABLE items DROP COLUMN extra",
        sqlite=True,
    ),
    Change("integer to bigint", *_retype("number", "bigint", "integer")),
    Change("varchar longer", *_retype("name", "varchar(50)", "varchar(20)")),
    Change("varchar to text", *_retype("note", "text", "varchar(20)")),
    Change("numeric wider", *_retype("price", "numeric(10, 4)", "numeric(6, 2)")),
    Change("numeric to double", *_retype("price", "double precision", "numeric(6, 2)")),
    Change("timestamp precision", *_retype("seen_at", "timestamptz(3)", "timestamptz")),
    Change("enum value added", _ENUM_VALUE.format("more"), _ENUM_VALUE.format("most")),
    Change("enum made anew", _NEW_ENUM.format("'OLD', 'NEW', 'x'"), _NEW_ENUM.format("'NEW', 'OLD'")),
    Change("index made", "CREATE INDEX ix_price ON items (price)", "DROP INDEX ix_price", sqlite=True),
    Change(
        "nullable",
        "ALTER TABLE items ALTER COLUMN name DROP NOT NULL",
        "ALTER TABLE items ALTER COLUMN name SET NOT NULL",
    ),
    Change(
        "default",
        "ALTER TABLE items ALTER COLUMN note SET DEFAULT 'x'",
        "ALTER TABLE items ALTER COLUMN note DROP DEFAULT",
    ),
    Change(
        "same name elsewhere",
        "ALTER TABLE elsewhere.items ALTER COLUMN number TYPE bigint",
        "ALTER TABLE elsewhere.items ALTER COLUMN number TYPE integer",
    ),
    Change(
        "table made anew",
        _NEW_TABLE.format("extra", names=NAMES),
        "ALTER TABLE items DROP COLUMN extra",
    ),
    Change(
        "table moved to another schema and back",
        "ALTER TABLE elsewhere.items RENAME TO others; ALTER TABLE items SET SCHEMA elsewhere;"
        "ALTER TABLE elsewhere.items SET SCHEMA public;"
        "ALTER TABLE elsewhere.others RENAME TO items; ALTER TABLE items ALTER COLUMN number TYPE bigint",
        "ALTER TABLE items ALTER COLUMN number TYPE integer",
    ),
    Change(
        "view made anew",
        f"DROP VIEW seen_items; ALTER TABLE items ALTER COLUMN number TYPE bigint; {VIEW}",
        f"DROP VIEW seen_items; ALTER TABLE items ALTER COLUMN number TYPE integer; {VIEW}",
        model=Seen,
    ),
    Change("statistics", "ANALYZE items", "REINDEX TABLE items", sqlite=True),
)


async def settled(result: Any) -> Any:
    """The result of a sync or async repository: awaited if it is awaitable, a list if it is an iterator."""
    if hasattr(result, "__aiter__"):
        return [each async for each in result]
    if hasattr(result, "__await__"):
        return await result
    return list(result) if hasattr(result, "__next__") else result


def driven(work: Awaitable[Any]) -> Any:
    """The result of a coroutine that never suspends."""
    try:
        work.send(None)  # type: ignore[attr-defined]
    except StopIteration as done:
        return done.value
    raise AssertionError("sync code has waited")


@dataclass
class Rows:
    """The keys of the rows that each method reads and changes, and the last number of a new row."""

    ids: list[UUID] = field(default_factory=lambda: [UUID(int=number) for number in range(1, 4)])
    count: int = 100

    def next(self) -> int:
        self.count += 1
        return self.count

    def values(self, number: int, **more: Any) -> dict[str, Any]:
        return {"number": number, "name": f"n{number}", "price": Decimal("1.50"), "kind": Kind.NEW, **more}


BY_NUMBER = [SortField("number")]
SEEDS = [QueryFilter("number", "lte", 3)]


class Methods:
    """Each method here calls one method of a repository, and asserts its result.

    A ``read_`` method changes nothing. A ``write_`` method returns how many times it has increased the version of the
    first row (None: unknown), and the numbers of the rows that it has added.
    """

    def __init__(self, repo: Any, rows: Rows) -> None:
        self.repo, self.rows = repo, rows

    def same(self, found: Any, numbers: list[int]) -> None:
        assert [each.number for each in found] == numbers, found
        for each in found:
            assert each.name == f"n{each.number}"
            assert each.kind is Kind.NEW
            assert type(each.price) is Decimal
            assert each.price == Decimal("1.50")

    async def read_get_by_id(self) -> None:
        self.same([await settled(self.repo.get_by_id(self.rows.ids[1]))], [2])

    async def read_get_many(self) -> None:
        self.same(await settled(self.repo.get_many(self.rows.ids)), [1, 2, 3])

    async def read_get_by_field(self) -> None:
        self.same([await settled(self.repo.get_by_field("name", "n2"))], [2])

    async def read_list_by_field(self) -> None:
        self.same(await settled(self.repo.list_by_field("number", 3)), [3])

    async def read_first(self) -> None:
        self.same(
            [
                await settled(
                    self.repo.first(
                        {"filters": SEEDS, "sorts": [SortField("price", "desc"), SortField("number", "desc")]}
                    )
                )
            ],
            [3],
        )

    async def read_exists(self) -> None:
        assert await settled(self.repo.exists(self.rows.ids[0]))

    async def read_count(self) -> None:
        assert await settled(self.repo.count(SEEDS)) == 3

    async def read_list(self) -> None:
        self.same(await settled(self.repo.list({"filters": SEEDS, "sorts": BY_NUMBER})), [1, 2, 3])

    async def read_list_paginated(self) -> None:
        page = {"filters": SEEDS, "sorts": BY_NUMBER, "pagination": {"page": 1, "per_page": 2}}
        found = await settled(self.repo.list_paginated(page))
        self.same(found.items, [1, 2])
        assert found.total == 3

    async def read_cursor_paginate(self) -> None:
        options = {
            "filters": SEEDS,
            "sorts": [SortField("price"), SortField("number")],
            "cursor_pagination": {"limit": 2},
        }
        found = await settled(self.repo.cursor_paginate(options))
        self.same(found.items, [1, 2])
        options["cursor_pagination"] = {"limit": 2, "cursor": found.next_cursor}
        self.same((await settled(self.repo.cursor_paginate(options))).items, [3])

    async def read_stream(self) -> None:
        options = {"filters": SEEDS, "sorts": BY_NUMBER}
        self.same(await settled(self.repo.stream(options, 2)), [1, 2, 3])

    async def read_values(self) -> None:
        values = self.repo.values("number", "price", "kind")
        found = await settled(values.list({"filters": SEEDS, "sorts": BY_NUMBER}))
        assert found == [{"number": n, "price": Decimal("1.50"), "kind": Kind.NEW} for n in (1, 2, 3)]
        assert all(type(each["price"]) is Decimal for each in found)

    async def read_aggregate(self) -> None:
        found = await settled(self.repo.aggregate({"all": "count", "top": ("max", "number")}, SEEDS, group_by="kind"))
        assert found == [{"kind": Kind.NEW, "all": 3, "top": 3}]

    async def read_distinct_values(self) -> None:
        assert await settled(self.repo.distinct_values("price", SEEDS)) == [Decimal("1.50")]

    async def read_explain(self) -> None:
        assert await settled(self.repo.explain({"filters": SEEDS}))

    async def read_get_tenant_stats(self) -> None:
        assert (await settled(self.repo.get_tenant_stats()))["total_entities"] >= 3

    async def write_create(self) -> tuple[int, list[int]]:
        number = self.rows.next()
        self.same([await settled(self.repo.create(self.rows.values(number)))], [number])
        return 0, [number]

    async def _bulk(self, size: int, **how: Any) -> tuple[int, list[int]]:
        numbers = [self.rows.next() for _ in range(size)]
        found = await settled(self.repo.bulk_create([self.rows.values(number) for number in numbers], **how))
        if how:
            assert found == size
        else:
            self.same(found, numbers)
        return 0, numbers

    async def write_bulk_create_few(self) -> tuple[int, list[int]]:
        return await self._bulk(3)

    async def write_bulk_create_many(self) -> tuple[int, list[int]]:
        return await self._bulk(30)

    async def write_bulk_create_count(self) -> tuple[int, list[int]]:
        return await self._bulk(30, returning=False)

    async def write_upsert(self) -> tuple[int, list[int]]:
        row = self.rows.values(1, name="n1")
        self.same([await settled(self.repo.upsert(row, ["number"]))], [1])
        return 1, []

    async def write_upsert_new(self) -> tuple[int, list[int]]:
        number = self.rows.next()
        self.same([await settled(self.repo.upsert(self.rows.values(number), ["number"]))], [number])
        return 0, [number]

    async def write_bulk_upsert(self) -> tuple[int, list[int]]:
        numbers = [1, *(self.rows.next() for _ in range(25))]
        found = await settled(self.repo.bulk_upsert([self.rows.values(number) for number in numbers], ["number"]))
        self.same(found, numbers)
        return 1, numbers[1:]

    async def write_update(self) -> tuple[int, list[int]]:
        self.same([await settled(self.repo.update(self.rows.ids[0], {"note": "x"}))], [1])
        return 1, []

    async def write_bulk_update(self) -> tuple[int, list[int]]:
        changes = [{"id": each, "note": "x", "price": Decimal("1.50")} for each in self.rows.ids]
        assert await settled(self.repo.bulk_update(changes)) == 3
        return 1, []

    async def write_update_where(self) -> tuple[int, list[int]]:
        assert await settled(self.repo.update_where(SEEDS, {"note": "y"})) == 3
        return 1, []

    async def write_delete(self) -> tuple[int, list[int]]:
        assert await settled(self.repo.delete(self.rows.ids[0]))
        self.same([await settled(self.repo.restore(self.rows.ids[0]))], [1])
        return 2, []

    async def write_delete_for_good(self) -> tuple[int, list[int]]:
        made = await settled(self.repo.create(self.rows.values(self.rows.next())))
        assert await settled(self.repo.delete(made.id, soft_delete=False))
        return 0, []

    async def write_delete_where(self) -> tuple[int, list[int]]:
        number = self.rows.next()
        await settled(self.repo.create(self.rows.values(number)))
        assert await settled(self.repo.delete_where([QueryFilter("number", value=number)], soft_delete=False)) == 1
        return 0, []

    async def write_in_batches(self) -> tuple[int | None, list[int]]:
        def work(batch: list[Any]) -> None:
            for each in batch:
                each.note = f"b{self.rows.next()}"

        assert await settled(self.repo.in_batches(work, {"filters": SEEDS}, 2)) == 3
        return None, []


READS = tuple(name for name in vars(Methods) if name.startswith("read_"))
WRITES = tuple(name for name in vars(Methods) if name.startswith("write_"))


@asynccontextmanager
async def entered(block: Any) -> AsyncIterator[Any]:
    """Enter a sync or async context manager as an async one."""
    if hasattr(block, "__aenter__"):
        async with block as value:
            yield value
    else:
        with block as value:
            yield value


class Ways:
    """The ways to call a method of `Methods`. ``begun`` counts the attempts of `later`."""

    def __init__(self, database: Database, is_async: bool) -> None:
        self.database, self.is_async = database, is_async
        self.maker = database.async_sessions if is_async else database.sessions
        self.make = create_async_repository if is_async else create_repository
        self.block = DatabaseTransaction.async_transaction if is_async else DatabaseTransaction.sync_transaction
        self.begun = 0

    def methods(self, session: Any, model: type[Any], rows: Rows) -> Methods:
        return Methods(self.make(session, model, TENANT), rows)

    async def alone(self, model: type[Any], name: str, rows: Rows) -> Any:
        """Use a repository outside of any transaction."""
        async with entered(self.maker()) as session:
            return await getattr(self.methods(session, model, rows), name)()

    async def first(self, model: type[Any], name: str, rows: Rows) -> Any:
        """Use a repository as the first statement of a `DatabaseTransaction`."""
        async with entered(self.maker()) as session, entered(self.block(session)):
            return await getattr(self.methods(session, model, rows), name)()

    async def lazy(self, model: type[Any], name: str, rows: Rows) -> Any:
        """Use a repository in a lazy block, as in a request of the plugin."""
        async with entered(self.maker()) as session, entered(self.block(session, lazy=True)):
            return await getattr(self.methods(session, model, rows), name)()

    async def later(self, model: type[Any], name: str, rows: Rows) -> Any:
        """Use a repository after a write in the same transaction, which is run again after a transient failure."""
        manager = TransactionManager(self.maker, max_retries=3, retry_delay=0)
        mark = uuid4()

        async def operation(session: Any) -> Any:
            self.begun += 1
            await settled(self.make(session, Mark, TENANT).create({"id": mark}))
            return await getattr(self.methods(session, model, rows), name)()

        if self.is_async:
            result = await manager.async_execute_with_retry(operation)
        else:
            result = manager.execute_with_retry(lambda session: driven(operation(session)))
        async with entered(self.maker()) as session:
            assert await settled(self.make(session, Mark, TENANT).exists(mark)), "what was written before is lost"
        return result

    async def hand(self, model: type[Any], name: str, rows: Rows) -> Any:
        """Use a plain session, without the methods of the toolkit."""
        number = rows.next()
        async with entered(self.maker()) as session:
            if name == "read_list":
                found = session.scalars(select(model).where(model.number <= 3).order_by(model.number))
                found = await found if self.is_async else found
                assert [each.number for each in found.all()] == [1, 2, 3]
                return None
            if name == "write_create":
                session.add(model(id=uuid4(), tenant_id=TENANT, version=1, is_deleted=False, **rows.values(number)))
                await settled(session.commit())
                return 0, [number]
            entity = await settled(session.get(model, rows.ids[0]))
            entity.note, entity.version = f"h{number}", entity.version + 1
            await settled(session.commit())
            return 1, []


WAYS: tuple[str, ...] = ("alone", "first", "lazy", "later", "hand")
BY_HAND = ("read_list", "write_create", "write_update")
Way = Callable[[type[Any], str, Rows], Awaitable[Any]]
