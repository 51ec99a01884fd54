"""The fast ways of the toolkit, and how each is switched for a whole test run: ``--without WAY`` and ``--always WAY``.

A fast way is a shorter way to the same result. The slower way is taken anyway where something rules the fast one out,
so nothing in the product is made for these switches: each replaces one function or value of the product.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from dotmac_database.departures import Departure
from dotmac_database.dialects import drivers
from dotmac_database.execution import driver, routes
from dotmac_database.models.traits import Traits
from dotmac_database.repositories.totals import PageTotal
from dotmac_database.statements import keyset
from dotmac_database_fastapi.routers import lists

Switch = Callable[[pytest.MonkeyPatch], None]


def _without_driver(patch: pytest.MonkeyPatch) -> None:
    """SQLAlchemy executes all statements."""
    patch.setattr(routes, "driver_of", lambda _dialect: None)


def _without_autocommit(patch: pytest.MonkeyPatch) -> None:
    """A read or a write outside of a transaction has its own BEGIN and COMMIT."""
    need = routes._transaction_need

    def always(*arguments: Any) -> Any:
        return need(*arguments) or Departure.SESSION_LISTENER

    patch.setattr(routes, "_transaction_need", always)


def _without_copy(patch: pytest.MonkeyPatch) -> None:
    """Many rows are inserted by arrays."""
    patch.setattr(routes, "COPY_FROM", sys.maxsize)


def _without_arrays(patch: pytest.MonkeyPatch) -> None:
    """Many rows are inserted by VALUES, and never by COPY."""
    patch.setattr(routes, "ARRAYS_FROM", sys.maxsize)


def _without_update_statements(patch: pytest.MonkeyPatch) -> None:
    """A row is changed by a SELECT … FOR UPDATE and a flush."""
    patch.setattr(Traits, "direct_writes", property(lambda _traits: False))


def _without_page_totals(patch: pytest.MonkeyPatch) -> None:
    """The total of a page is counted by a statement of its own."""
    total_of = PageTotal.of

    def of(total: PageTotal, rows: Any, ask: Any) -> int | None:
        if rows and total.page.total != "none":
            counted = int(ask(total.reader.count(total.filters, total.count_limit)))
            rows = [(row[0], counted, *row[2:]) for row in rows]
        return total_of(total, rows, ask)

    patch.setattr(PageTotal, "of", of)


def _without_row_comparisons(patch: pytest.MonkeyPatch) -> None:
    """The rows after a cursor are found by a condition that has a part for each field of the order."""
    patch.setattr(keyset, "_no_null_follows", lambda _term: False)


def _without_joined_messages(patch: pytest.MonkeyPatch) -> None:
    """A savepoint is replaced by two messages, and BEGIN and the tenant are two."""
    secure = driver.secure

    def one_by_one(sender: Any, link: Any) -> None:
        secure(_OneByOne(sender), link)

    patch.setattr(driver, "secure", one_by_one)
    patch.setattr(drivers._Asyncpg, "open", drivers.Driver.open)


class _OneByOne:
    """Sends each statement of a script as a message of its own."""

    def __init__(self, sender: drivers.Driver) -> None:
        self._sender = sender

    def run(self, link: drivers.Link, script: str) -> None:
        for statement in script.split("; "):
            self._sender.run(link, statement)


def _without_columns(patch: pytest.MonkeyPatch) -> None:
    """A generated list reads objects."""
    patch.setattr(lists, "reads_plainly", lambda *_: False)


OFF: Mapping[str, Switch] = {
    "driver": _without_driver,
    "autocommit": _without_autocommit,
    "copy": _without_copy,
    "arrays": _without_arrays,
    "update-statements": _without_update_statements,
    "page-totals": _without_page_totals,
    "row-comparisons": _without_row_comparisons,
    "joined-messages": _without_joined_messages,
    "columns": _without_columns,
}
"""What switches each fast way off."""


def _always_copy(patch: pytest.MonkeyPatch) -> None:
    """One row is enough for COPY."""
    _always_arrays(patch)
    patch.setattr(routes, "COPY_FROM", 1)


def _always_arrays(patch: pytest.MonkeyPatch) -> None:
    """One row is enough for arrays."""
    patch.setattr(routes, "ARRAYS_FROM", 1)


ALWAYS: Mapping[str, Switch] = {"copy": _always_copy, "arrays": _always_arrays}
"""What forces a fast way that is otherwise left out only because it would not be faster.

All others are taken whenever nothing rules them out: they are forced in each run.
"""


def touched(way: str) -> tuple[str, ...]:
    """The fast ways that are no longer as usual if this one is switched: COPY and arrays limit each other."""
    return ("copy", "arrays") if way in ALWAYS else (way,)
