"""The databases that are compared: the same table with different numbers of rows and tenants."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import md5
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from tests.postgres import OwnServer

from ..conditions.site import sync_engine
from ..conditions.ways import FRESH, Subject
from ..contenders import TENANT
from ..schema import FILL, Base, User

_FIRST = int(TENANT.rpartition("-")[2])
"""The number of the measured tenant. The other tenants have higher numbers."""

_KEYS = 200
"""The most rows that the operations on one row use in turn."""


@dataclass(frozen=True)
class Size:
    """``rows`` rows of ``tenants`` tenants. Each ``stride``-th row is the measured tenant's; with 1 all rows are."""

    rows: int
    tenants: int
    stride: int

    @property
    def database(self) -> str:
        """The name of the database of this size."""
        return f"grown_{self.rows}_{self.tenants}_{self.stride}"

    @property
    def numbers(self) -> range:
        """The numbers of the measured tenant's rows."""
        return range(_FIRST % self.stride or self.stride, self.rows + 1, self.stride)

    @property
    def fill(self) -> str:
        """The statement that fills the table. All other tenants have about the same number of rows."""
        others = f"'tenant-' || ({_FIRST + 1} + n % {max(1, self.tenants - 1)})"
        tenant = f"CASE WHEN n % {self.stride} = {_FIRST % self.stride} THEN '{TENANT}' ELSE {others} END"
        return FILL.replace("'tenant-' || (n % 50)", tenant).format(rows=self.rows)


def of_rows(numbers: Collection[int]) -> list[Size]:
    """Sizes with different numbers of rows: always 10 tenants, each with a tenth of the rows."""
    return [Size(rows, 10, 10) for rows in numbers]


def of_tenants(numbers: Collection[int], rows: int) -> list[Size]:
    """Sizes with different numbers of tenants in ``rows`` rows. The measured tenant always has the same 1,000 rows."""
    return [Size(rows, tenants, max(10, rows // 1000)) for tenants in numbers]


@dataclass(frozen=True)
class GrownSubject(Subject):
    """The measured tenant's rows in a database of a certain size."""

    size: Size = Size(0, 1, 1)
    least: int = 1000
    """The number of the tenant's rows in the smallest of the compared databases: no operation works on more rows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        chosen = random.Random(1).sample(self.size.numbers, min(_KEYS, len(self.size.numbers)))
        object.__setattr__(self, "keys", [UUID(md5(f"user{n}".encode()).hexdigest()) for n in chosen])

    @property
    def batch(self) -> int:
        """The number of rows that a stream reads at once."""
        return min(250, self.least)

    @property
    def depth(self) -> int:
        """The number of the tenant's rows before the deep pages: 90 % of them, in whole pages of 20."""
        return len(self.size.numbers) * 9 // 10 // 20 * 20

    def changed(self, n: int, count: int) -> list[dict[str, Any]]:
        """New values for existing rows, which an upsert finds by their e-mail addresses."""
        emails = [f"user{number}@example.org" for number in self.size.numbers[: min(count, self.least)]]
        return [{"name": f"Changed {n}", "email": email, "score": n, "bio": "changed"} for email in emails]


@contextmanager
def owner(server: OwnServer, database: str = "postgres") -> Iterator[Connection]:
    """A connection that commits each statement."""
    with sync_engine(server.url("psycopg", database)) as engine, engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def create(server: OwnServer, size: Size, least: int) -> GrownSubject:
    """Create and fill the database of a size. For ``least`` see `GrownSubject`."""
    with owner(server) as connection:
        connection.execute(text(f"CREATE DATABASE {size.database}"))
    with sync_engine(server.url("psycopg", size.database)) as engine, engine.begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(text(size.fill))
    tidy(server, size)
    return GrownSubject(User, size.rows, size=size, least=least)


def tidy(server: OwnServer, size: Size) -> None:
    """Remove the rows that operations have created, and dead rows; and count the rows for the planner."""
    with owner(server, size.database) as connection:
        connection.execute(text("DELETE FROM bench_users WHERE bio = :bio"), {"bio": FRESH})
        connection.execute(text("VACUUM ANALYZE bench_users"))


def drop(server: OwnServer, size: Size) -> None:
    """Drop the database of a size."""
    with owner(server) as connection:
        connection.execute(text(f"DROP DATABASE {size.database} WITH (FORCE)"))
