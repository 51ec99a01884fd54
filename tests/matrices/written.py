"""The tables of the matrix of writes: one for each kind of primary key, and one for each internal way of writing."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import JSON, ForeignKey, Identity, Integer, String, TypeDecorator, UniqueConstraint, Uuid, event
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column, validates
from sqlalchemy.sql.functions import GenericFunction

from dotmac_database.models import SoftDeleteMixin, TenantMixin, VersionMixin


class random_key(GenericFunction[Any]):  # noqa: N801 - a function of SQL
    """A random UUID that the database generates."""

    inherit_cache = True


@compiles(random_key, "postgresql")
def _by_postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    return "gen_random_uuid()"


@compiles(random_key, "sqlite")
def _by_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    return "(lower(hex(randomblob(16))))"


class Base(DeclarativeBase):
    """The base class of the tables of the matrix."""


class Labelled:
    """The columns of all tables: a code that is unique within its tenant, and two columns to change."""

    code: Mapped[str] = mapped_column(String(20))
    label: Mapped[str | None]
    amount: Mapped[int] = mapped_column(default=7)


class Owned(Labelled, TenantMixin, SoftDeleteMixin, VersionMixin):
    @declared_attr.directive
    def __table_args__(cls) -> Any:  # noqa: N805 - SQLAlchemy's hook
        return (UniqueConstraint("tenant_id", "code"),)


class Numbered(Owned, Base):
    """A primary key that the database counts up."""

    __tablename__ = "numbered"
    id: Mapped[int] = mapped_column(primary_key=True)


class Made(Owned, Base):
    """A primary key that the repository generates."""

    __tablename__ = "made"
    id: Mapped[UUID] = mapped_column(primary_key=True)


class Paired(Owned, Base):
    """A composite primary key that contains the tenant."""

    __tablename__ = "paired"
    tenant_id: Mapped[str] = mapped_column(String(20), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Drawn(Owned, Base):
    """A primary key that the database generates at random, so that keys have no order."""

    __tablename__ = "drawn"
    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, server_default=random_key())


class Identified(Owned, Base):
    """A primary key that only the database can set (GENERATED ALWAYS AS IDENTITY)."""

    __tablename__ = "identified"
    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)


class Root(Base):
    __tablename__ = "roots"
    id: Mapped[int] = mapped_column(primary_key=True)


class Extending(Owned, Base):
    """A primary key that is also a foreign key to another table."""

    __tablename__ = "extending"
    id: Mapped[int] = mapped_column(ForeignKey("roots.id"), primary_key=True)


class Noted(TypeDecorator[Any]):
    """A document that the app converts, so that it can't be sent in an array."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value


class Documented(Owned, Base):
    """A column with a type that can't be sent in an array."""

    __tablename__ = "documented"
    id: Mapped[int] = mapped_column(primary_key=True)
    notes: Mapped[dict[str, Any] | None] = mapped_column(Noted, default=dict)


class Watched(Owned, Base):
    """A class with a validator and with mapper listeners."""

    __tablename__ = "watched"
    id: Mapped[int] = mapped_column(primary_key=True)

    @validates("label")
    def _checked(self, key: str, value: Any) -> Any:
        return value


def _nothing(*_: Any) -> None:
    """A listener that does nothing."""


for _event in ("before_insert", "before_update", "before_delete"):
    event.listen(Watched, _event, _nothing)


class Shared(Labelled, SoftDeleteMixin, VersionMixin, Base):
    """A class without a tenant."""

    __tablename__ = "shared"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(String(20), unique=True)


MODELS: tuple[type[Any], ...] = (
    Numbered,
    Made,
    Paired,
    Drawn,
    Identified,
    Extending,
    Documented,
    Watched,
    Shared,
)
