"""Column types that behave the same on all dialects."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine


def utc_now() -> datetime:
    """The current time, timezone-aware, in UTC."""
    return datetime.now(UTC)


def as_utc(value: datetime) -> datetime:
    """``value`` converted to UTC; a naive value is taken as UTC."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def undecorated(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """The type that a `TypeDecorator` decorates, also if several decorate each other; else the type itself."""
    while isinstance(type_, TypeDecorator):
        type_ = type_.impl_instance
    return type_


class UTCDateTime(TypeDecorator[datetime]):
    """A timestamp that is stored in UTC and returned timezone-aware, even on SQLite, which has no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # In a migration, Alembic 1.20 writes a type as its ``__module__`` and its repr, without an import. So it writes
        # ``sa.DateTime(timezone=True)`` here, which works in every migration, even after this class has moved.
        self.__module__ = "sa"

    def __repr__(self) -> str:
        return repr(self.impl_instance)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Convert a value for storage."""
        return None if value is None else as_utc(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Convert a stored value."""
        return None if value is None else as_utc(value)

    def bind_processor(self, dialect: Dialect) -> Any:
        """As SQLAlchemy's, which calls `process_bind_param`, but with one call for a value that is in UTC already."""
        if type(self).process_bind_param is not UTCDateTime.process_bind_param:
            return super().bind_processor(dialect)
        store = self.impl_instance.bind_processor(dialect)

        def process(value: Any) -> Any:
            utc = value if value is None or value.tzinfo is UTC else as_utc(value)
            return utc if store is None else store(utc)

        return process

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        """As SQLAlchemy's, which calls `process_result_value`, but with one call for a value that is in UTC already."""
        if type(self).process_result_value is not UTCDateTime.process_result_value:
            return super().result_processor(dialect, coltype)
        load = self.impl_instance.result_processor(dialect, coltype)

        def process(value: Any) -> datetime | None:
            loaded = value if load is None else load(value)
            return loaded if loaded is None or loaded.tzinfo is UTC else as_utc(loaded)

        return process


def is_sqlmodels_timestamp(type_: Any) -> bool:
    """Whether a type is SQLModel's for ``datetime`` fields since 0.0.45, which stores UTC and refuses naive values."""
    return any(
        each.__name__ == "UTCDateTime" and each.__module__ == "sqlmodel.sql.sqltypes" for each in type(type_).__mro__
    )
