"""What only PostgreSQL or only SQLite can do, and what their errors mean; nothing dialect-specific is elsewhere."""

from ..errors import DatabaseError
from .base import Dialect
from .errors import cause_of, lost_connection, translate, translated
from .postgresql import Postgresql
from .sqlite import Sqlite

__all__ = ["Dialect", "Postgresql", "Sqlite", "cause_of", "dialect_named", "lost_connection", "translate", "translated"]

_DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (Postgresql(), Sqlite())}


def dialect_named(name: str) -> Dialect:
    """The door to the database that SQLAlchemy calls ``name``; another than these two is a `DatabaseError`."""
    dialect = _DIALECTS.get(name)
    if dialect is None:
        raise DatabaseError(f"The toolkit knows PostgreSQL and SQLite, not {name!r}.")
    return dialect
