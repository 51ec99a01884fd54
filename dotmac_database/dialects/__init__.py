"""The differences between PostgreSQL and SQLite, and the meaning of their errors."""

from ..errors import DatabaseError
from .base import Dialect
from .errors import cause_of, lost_connection, translate, translated
from .postgresql import Postgresql
from .sqlite import Sqlite

__all__ = ["Dialect", "Postgresql", "Sqlite", "cause_of", "dialect_named", "lost_connection", "translate", "translated"]

_DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (Postgresql(), Sqlite())}


def dialect_named(name: str) -> Dialect:
    """The dialect with this name of SQLAlchemy's. Raises `DatabaseError` unless it is one of these two."""
    dialect = _DIALECTS.get(name)
    if dialect is None:
        raise DatabaseError(f"The toolkit knows PostgreSQL and SQLite, not {name!r}.")
    return dialect
