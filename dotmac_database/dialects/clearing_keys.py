"""Foreign keys whose ON DELETE changes only some of their columns, such as ``SET NULL (account_id)``.

PostgreSQL has them since version 15 (https://www.postgresql.org/docs/current/sql-createtable.html). SQLite does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import ForeignKeyConstraint
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.exc import CompileError
from sqlalchemy.ext.compiler import compiles

CLEARING_ACTIONS: Final = frozenset(("SET NULL", "SET DEFAULT"))
"""The actions after which PostgreSQL takes a list of columns."""

_quote: Final = PGDialect().identifier_preparer.quote  # type: ignore[no-untyped-call]  # SQLAlchemy's


class ClearingKey(ForeignKeyConstraint):
    """A foreign key with a list of columns in its ON DELETE. SQLite refuses its table, with a `CompileError`."""


def clearing(action: str, columns: Iterable[str]) -> str:
    """The ON DELETE clause that applies ``action``, one of `CLEARING_ACTIONS`, to these columns only."""
    return f"{action} ({', '.join(map(_quote, columns))})"


@compiles(ClearingKey, "sqlite")
def _refuse(key: ClearingKey, _compiler: object, **_: Any) -> str:
    columns = ", ".join(key.column_keys)
    raise CompileError(
        f"SQLite can't have ON DELETE {key.ondelete} of the key of {key.table.name} ({columns}), since it would clear "
        "the tenant column too. Use CASCADE or RESTRICT, or no ondelete and clear the column before the parent is "
        "deleted."
    )
