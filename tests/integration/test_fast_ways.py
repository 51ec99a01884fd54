"""Each fast way is taken in an ordinary run, and each switch of `tests.fast_ways` does what it says.

A test run with a switch is worth nothing if the switch does nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import CursorPaginationParams, PaginationParams, QueryOptions, SortField
from dotmac_database.dialects import drivers
from dotmac_database_fastapi.routers import lists
from tests.conftest import DRIVERS, Face, Faces
from tests.fast_ways import ALWAYS, OFF
from tests.ways import block, create_tables, recorded


class Base(DeclarativeBase):
    """The table of these tests."""


class Thing(Base):
    __tablename__ = "fast_things"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


def rows(numbers: Sequence[int]) -> list[dict[str, Any]]:
    return [{"id": number, "name": f"n{number}"} for number in numbers]


@contextmanager
def with_things(faces: Faces, driver: str) -> Iterator[tuple[Face, Any, Any]]:
    """A face, a session and a repository. Its table has the rows 0 to 4."""
    face = faces[driver]
    create_tables(face, Base.metadata)
    with face.session() as session:
        things = face.repository(session, Thing)
        face(things.bulk_create, rows(range(5)))
        yield face, session, things


@contextmanager
def sent_by(face: Face) -> Iterator[list[str]]:
    """All statements that are sent in this block, by the driver or by SQLAlchemy, without SQLite's BEGIN."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement != "BEGIN":
            statements.append(statement)

    note.dotmac_observes = True  # type: ignore[attr-defined]
    event.listen(face.engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(face.engine, "before_cursor_execute", note)


SORTS = [SortField("name", "desc")]
PAGE = QueryOptions(pagination=PaginationParams(per_page=2), sorts=SORTS)

READS: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "get_by_id": lambda things: (things.get_by_id, 1),
    "get_many": lambda things: (things.get_many, [1, 2]),
    "get_by_field": lambda things: (things.get_by_field, "name", "n1"),
    "list_by_field": lambda things: (things.list_by_field, "name", "n1"),
    "first": lambda things: (things.first,),
    "exists": lambda things: (things.exists, 1),
    "count": lambda things: (things.count,),
    "list": lambda things: (things.list, {"sorts": SORTS}),
    "list_paginated": lambda things: (things.list_paginated, PAGE),
    "cursor_paginate": lambda things: (things.cursor_paginate, {"sorts": SORTS}),
    "values": lambda things: (things.values("name").list,),
}
WRITES: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "create": lambda things: (things.create, {"id": 9, "name": "n"}),
    "update": lambda things: (things.update, 1, {"name": "n"}),
}


@pytest.mark.fast_way("driver", "update-statements", "page-totals")
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_the_driver_sends_each_read_and_single_write(faces: Faces, driver: str, inside: bool) -> None:
    """So all of these are forced on in an ordinary run: without a reason to the contrary, SQLAlchemy sends none."""
    share: dict[str, tuple[int, int]] = {}
    with with_things(faces, driver) as (face, session, things):
        for method, call in {**READS, **WRITES}.items():
            with sent_by(face) as sent, recorded() as by_driver:
                if inside:
                    with block(face, session):
                        face(*call(things))
                else:
                    face(*call(things))
            share[method] = len(by_driver), len(sent)
    assert share == dict.fromkeys([*READS, *WRITES], (1, 1))


def taken_driver(face: Face, session: Any, things: Any, _log: Any) -> bool:
    with recorded() as sent:
        face(things.get_by_id, 1)
    return bool(sent)


def taken_autocommit(face: Face, session: Any, things: Any, log: pytest.LogCaptureFixture) -> bool:
    face(things.get_by_id, 1)
    face(things.update, 1, {"name": "n"})
    alone = ["without BEGIN" in message for message in log.messages]
    assert alone in ([True, True], [False, False])
    return alone[0]


def taken_copy(face: Face, session: Any, things: Any, log: pytest.LogCaptureFixture) -> bool:
    face(things.bulk_create, rows(range(10, 700)), returning=False)
    return "by COPY" in log.text


def taken_arrays(face: Face, session: Any, things: Any, log: pytest.LogCaptureFixture) -> bool:
    face(things.bulk_create, rows(range(10, 60)), returning=False)
    return "array for each column" in log.text


def taken_update_statements(face: Face, session: Any, things: Any, log: pytest.LogCaptureFixture) -> bool:
    face(things.update, 1, {"name": "n"})
    return "by a flush" not in log.text


def taken_page_totals(face: Face, session: Any, things: Any, _log: Any) -> bool:
    with sent_by(face) as sent:
        assert face(things.list_paginated, PAGE).total == 5
    return len(sent) == 1


def taken_row_comparisons(face: Face, session: Any, things: Any, _log: Any) -> bool:
    things.traits.statements.clear()  # they were built before the switch

    def page(cursor: str | None) -> Any:
        options = QueryOptions(
            cursor_pagination=CursorPaginationParams(cursor=cursor, limit=2), sorts=[SortField("name")]
        )
        return face(things.cursor_paginate, options)

    with sent_by(face) as sent:
        assert [thing.id for thing in page(page(None).next_cursor).items] == [2, 3]
    return " OR " not in sent[-1]


def taken_joined_messages(face: Face, session: Any, things: Any, _log: Any) -> bool:
    scripts: list[str] = []
    run = drivers._Asyncpg.run

    def note(driver: Any, link: Any, script: str) -> None:
        scripts.append(script)
        run(driver, link, script)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drivers._Asyncpg, "run", note)
        with block(face, session):
            for row in rows(range(10, 13)):
                face(things.create, row)
    names = [script.split()[0] for script in scripts]
    assert names in (["SAVEPOINT", "RELEASE"], ["SAVEPOINT", "RELEASE", "SAVEPOINT"])
    return len(names) == 2


def taken_columns(face: Face, session: Any, things: Any, _log: Any) -> bool:
    return bool(lists.reads_plainly(things, "page"))


TAKEN: dict[str, Callable[[Face, Any, Any, Any], bool]] = {
    "driver": taken_driver,
    "autocommit": taken_autocommit,
    "copy": taken_copy,
    "arrays": taken_arrays,
    "update-statements": taken_update_statements,
    "page-totals": taken_page_totals,
    "row-comparisons": taken_row_comparisons,
    "joined-messages": taken_joined_messages,
    "columns": taken_columns,
}
"""For each way, a function that makes a call and says whether the way was taken."""

ASSERTING = [
    pytest.param(way, marks=pytest.mark.fast_way(way, *(["driver"] if way == "joined-messages" else []))) for way in OFF
]


@pytest.mark.fast_way("update-statements")
@pytest.mark.parametrize("way", ASSERTING)
def test_a_way_is_taken_unless_it_is_switched_off(faces: Faces, way: str, caplog: pytest.LogCaptureFixture) -> None:
    for is_off in (False, True):
        with with_things(faces, "asyncpg") as (face, session, things), pytest.MonkeyPatch.context() as patch:
            if is_off:
                OFF[way](patch)
            with caplog.at_level(logging.DEBUG, logger="dotmac_database"):
                caplog.clear()
                assert TAKEN[way](face, session, things, caplog) is not is_off


FEW = {"copy": "by COPY", "arrays": "array for each column"}


@pytest.mark.parametrize("way", [pytest.param(way, marks=pytest.mark.fast_way(way)) for way in ALWAYS])
def test_a_way_that_is_always_taken_is_taken_for_one_row(
    faces: Faces, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    for is_forced in (False, True):
        with with_things(faces, "asyncpg") as (face, _, things), pytest.MonkeyPatch.context() as patch:
            if is_forced:
                ALWAYS[way](patch)
            with caplog.at_level(logging.DEBUG, logger="dotmac_database"):
                caplog.clear()
                assert face(things.bulk_create, rows([9]), returning=False) == 1
                assert (FEW[way] in caplog.text) is is_forced


def test_nox_runs_the_tests_with_each_switch() -> None:
    script = (Path(__file__).parents[2] / "noxfile.py").read_text()
    assert tuple(TAKEN) == tuple(OFF)
    for way in OFF:
        assert f'"--without={way}"' in script
    for way in ALWAYS:
        assert f'"--always={way}"' in script
