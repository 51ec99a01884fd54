"""The SQL that differs between PostgreSQL and SQLite, and the translation of their errors."""

from ..errors import DatabaseError
from .base import Dialect
from .errors import cause_of, lost_connection, translate, translated
from .postgresql import Postgresql
from .sqlite import Sqlite

__all__ = ["Dialect", "Postgresql", "Sqlite", "cause_of", "dialect_named", "lost_connection", "translate", "translated"]

_DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (Postgresql(), Sqlite())}


def dialect_named(name: str) -> Dialect:
    """The dialect with this name, as SQLAlchemy names dialects. Raises `DatabaseError` if the name is unknown."""
    dialect = _DIALECTS.get(name)
    if dialect is None:
        raise DatabaseError(f"The toolkit supports PostgreSQL and SQLite, not {name!r}.")
    return dialect
