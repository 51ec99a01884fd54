"""The peak of memory of one call: ``python -m benchmarks.growth.memory WAY URL ROWS``, in a process of its own.

It prints a line of JSON: the seconds, those of CPU time, and the MiB by which the resident memory of the process was
higher than before the call, at its peak. With ``--trace`` it has instead the highest number of MiB that Python had
allocated (`tracemalloc`). These are two runs, because tracing needs time and memory itself.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from dotmac_database import QueryOptions, SortField, create_async_repository

from ..conditions.site import async_engine
from ..contenders import TENANT
from ..schema import User

_ROOT = Path(__file__).parents[2]
_BATCH = 1000
_WARM_UP = 1100
"""The rows of the call before the measurement: by then everything is imported and prepared."""


def new_rows(count: int) -> Iterator[dict[str, Any]]:
    """The values of new rows, one after the other."""
    for n in range(count):
        yield {"name": f"New {n}", "email": f"{uuid4().hex}@example.org", "score": n, "bio": "fresh"}


def own_rows(count: int) -> Iterator[dict[str, Any]]:
    """The same with the values that the toolkit sets."""
    for row in new_rows(count):
        yield {"tenant_id": TENANT, "id": uuid4(), **row}


def _users(session: AsyncSession) -> Any:
    return create_async_repository(session, User, TENANT)


def _oldest(rows: int) -> Any:
    own = select(User).where(User.tenant_id == TENANT, User.is_deleted.is_(False))
    return own.order_by(User.created_at, User.id).limit(rows)


async def stream(session: AsyncSession, rows: int) -> int:
    """The first rows by `stream`."""
    count = 0
    async for _ in _users(session).stream(QueryOptions(sorts=[SortField("created_at")]), _BATCH):
        count += 1
        if count == rows:
            break
    return count


async def stream_by_hand(session: AsyncSession, rows: int) -> int:
    """The same by a server-side cursor."""
    result = await session.stream_scalars(_oldest(rows).execution_options(yield_per=_BATCH))
    return len([1 async for _ in result])


async def list_by_hand(session: AsyncSession, rows: int) -> int:
    """The same in one list."""
    return len((await session.scalars(_oldest(rows))).all())


async def objects(session: AsyncSession, rows: int) -> int:
    """`bulk_create` of a list, which returns the objects."""
    return len(await _users(session).bulk_create(list(new_rows(rows))))


async def number(session: AsyncSession, rows: int) -> int:
    """`bulk_create` of a list, without objects."""
    return int(await _users(session).bulk_create(list(new_rows(rows)), returning=False))


async def generator(session: AsyncSession, rows: int) -> int:
    """`bulk_create` of a generator, without objects."""
    return int(await _users(session).bulk_create(new_rows(rows), returning=False))


async def add_all(session: AsyncSession, rows: int) -> int:
    """Objects in the unit of work."""
    created = [User(**row) for row in own_rows(rows)]
    session.add_all(created)
    await session.commit()
    return len(created)


async def insert_returning(session: AsyncSession, rows: int) -> int:
    """An INSERT of a list, which returns the objects."""
    created = (await session.scalars(insert(User).returning(User), list(own_rows(rows)))).all()
    await session.commit()
    return len(created)


async def insert_list(session: AsyncSession, rows: int) -> int:
    """An INSERT of a list, without objects."""
    await session.execute(insert(User), list(own_rows(rows)))
    await session.commit()
    return rows


async def insert_batches(session: AsyncSession, rows: int) -> int:
    """INSERTs of 1,000 rows from a generator, in one transaction."""
    source = own_rows(rows)
    while batch := list(itertools.islice(source, _BATCH)):
        await session.execute(insert(User), batch)
    await session.commit()
    return rows


@dataclass(frozen=True)
class Way:
    """A way to read or write rows.

    ``reads``: it reads rows, and is measured for all rows of the table and for a tenth of them. ``is_constant``: its
    memory must not depend on the number of rows, so it is traced too.
    """

    title: str
    work: Callable[[AsyncSession, int], Awaitable[int]]
    reads: bool = False
    is_constant: bool = False


WAYS = {
    "stream": Way("toolkit, stream", stream, reads=True, is_constant=True),
    "stream-by-hand": Way("by hand, yield_per=1000", stream_by_hand, reads=True),
    "list-by-hand": Way("by hand, scalars().all()", list_by_hand, reads=True),
    "objects": Way("toolkit, bulk_create(list)", objects),
    "number": Way("toolkit, bulk_create(list, returning=False)", number),
    "generator": Way("toolkit, bulk_create(generator, returning=False)", generator),
    "add-all": Way("by hand, add_all(objects)", add_all),
    "insert-returning": Way("by hand, insert().returning(), list", insert_returning),
    "insert-list": Way("by hand, insert(), list", insert_list),
    "insert-batches": Way("by hand, insert(), batches of a generator", insert_batches),
}

MOST_OF_STREAM = 1.2
"""The highest accepted ratio of the traced memory of a stream of all rows to that of a tenth of them."""


@dataclass
class Peak:
    """The peak of one way for a number of rows, in MiB, and its time. ``traced`` is None if it was not traced."""

    way: str
    title: str
    rows: int
    seconds: float
    cpu: float
    resident: float
    traced: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The figures for a JSON file."""
        return asdict(self)


def measured(way: str, url: str, rows: int) -> Peak:
    """The peak of a way, from one process or two."""
    command = [sys.executable, "-m", "benchmarks.growth.memory", way, url, str(rows)]
    figures: dict[str, float] = {}
    for more in ([], ["--trace"]) if WAYS[way].is_constant else ([],):
        run = subprocess.run([*command, *more], cwd=_ROOT, check=True, stdout=subprocess.PIPE)
        figures |= json.loads(run.stdout)
    return Peak(way, WAYS[way].title, rows, **figures)


def failures(peaks: list[Peak]) -> list[str]:
    """What needs more memory than it may. A stream of a few batches is not judged."""
    traced = [(peak, peak.traced) for peak in peaks if peak.traced is not None]
    return [
        f"{each.title}: {most:.1f} MiB for {each.rows:,} rows, {least:.1f} MiB for {first.rows:,}"
        for (first, least), (each, most) in itertools.pairwise(traced)
        if first.way == each.way and first.rows >= 10 * _BATCH and most > MOST_OF_STREAM * least
    ]


async def _peak(way: Way, url: str, rows: int, *, trace: bool) -> dict[str, float]:
    async with async_engine(url) as engine:
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        async with sessions() as session:
            await way.work(session, min(rows, _WARM_UP))
        gc.collect()
        if trace:
            tracemalloc.start()
        before, started, cpu_started = _new_mark(), time.perf_counter(), time.process_time()
        async with sessions() as session:
            count = await way.work(session, rows)
        if count != rows:
            raise RuntimeError(f"{way.title}: {count:,} rows, not {rows:,}")
        if trace:
            return {"traced": tracemalloc.get_traced_memory()[1] / 2**20}
        return {
            "seconds": time.perf_counter() - started,
            "cpu": time.process_time() - cpu_started,
            "resident": _mark() - before,
        }


def _new_mark() -> float:
    """Begin to note the highest resident memory of this process from here on; what it is now, in MiB.

    Where this is not possible, the highest resident memory so far is the beginning.
    """
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _mark()


def _mark() -> float:
    """The highest resident memory of this process since `_new_mark`, in MiB."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    line = next(each for each in status.splitlines() if each.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth.memory", description=__doc__)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("url", help="a filled database, in the form of SQLAlchemy")
    parser.add_argument("rows", type=int)
    parser.add_argument("--trace", action="store_true", help="trace what Python allocates")
    arguments = parser.parse_args()
    figures = asyncio.run(_peak(WAYS[arguments.way], arguments.url, arguments.rows, trace=arguments.trace))
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
