"""Column types that mean the same on every dialect."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator


def utc_now() -> datetime:
    """The current time, timezone-aware, in UTC."""
    return datetime.now(UTC)


def as_utc(value: datetime) -> datetime:
    """``value`` in UTC; a naive value is UTC already."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class UTCDateTime(TypeDecorator[datetime]):
    """A timestamp that is stored and returned in UTC, timezone-aware, also by SQLite, which has no zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Alembic writes a type into a migration as its ``__module__`` and its repr (seen in 1.20), and imports nothing.
        # ``sa.DateTime(timezone=True)`` runs in every migration, and long after this class has moved.
        self.__module__ = "sa"

    def __repr__(self) -> str:
        return repr(self.impl_instance)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """In UTC."""
        return None if value is None else as_utc(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """In UTC, timezone-aware."""
        return None if value is None else as_utc(value)


def is_sqlmodels_timestamp(type_: Any) -> bool:
    """Whether a type is the one that SQLModel gives to ``datetime`` fields since 0.0.45: UTC, and nothing naive."""
    return any(
        each.__name__ == "UTCDateTime" and each.__module__ == "sqlmodel.sql.sqltypes" for each in type(type_).__mro__
    )
