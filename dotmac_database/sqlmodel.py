"""The mixins for SQLModel: the same columns as `dotmac_database.models.mixins`.

Each mixin is an `SQLModel` itself. A class derives from mixins alone (``class User(TenantMixin, table=True)``), or from
mixins and its other bases. Type checkers accept ``SQLModel`` only behind the mixins; Python accepts any order. The
fields and columns of the mixins stand behind all others, in the order of the bases.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import SerializeAsAny
from sqlalchemy import String, false, text
from sqlalchemy.orm import MappedAsDataclass, registry
from sqlmodel import Field, SQLModel

from .errors import MisuseError
from .types import UTCDateTime, utc_now


def _mixins_of(cls: type) -> list[type]:
    """The classes of this module from which a class derives, in the order of its bases."""
    return [each for each in cls.__mro__ if each.__module__ == __name__]


def _refuse_declarative_base(name: str, bases: tuple[type, ...]) -> None:
    """Raise `MisuseError` if one of the bases is declarative: then the mixins of `dotmac_database` are needed."""
    for base in bases:
        if not issubclass(base, SQLModel) and isinstance(getattr(base, "registry", None), registry):
            mixins = [mixin.__name__ for each in bases for mixin in _mixins_of(each)]
            names = ", ".join(dict.fromkeys(mixin for mixin in mixins if not mixin.startswith("_")))
            raise MisuseError(
                f"{name} is a declarative class, since it derives from {base.__name__}, and the mixins of "
                f"dotmac_database.sqlmodel are for SQLModel. Use `from dotmac_database import {names}`."
            )


def _move_fields_of_mixins(model: type[SQLModel]) -> None:
    """Put the fields that only mixins declare behind all others, in the order of the bases."""
    mixins = _mixins_of(model)
    # Pydantic's order begins with what is inherited, so the place of a field declared again is in the annotations.
    others = [
        name for cls in reversed(model.__mro__) if cls not in mixins for name in vars(cls).get("__annotations__", ())
    ]
    last = [name for cls in mixins for name in vars(cls).get("__annotations__", ()) if name not in others]
    fields = model.model_fields
    for name in dict.fromkeys((*others, *(name for name in [*fields] if name not in last), *last)):
        if name in fields:
            fields[name] = fields.pop(name)


# SQLModel reads annotations at run time. From sa_type and sa_column_kwargs it makes a new Column for each class. A
# ready-made sa_column could not be used here, because it could belong to one table only.

if TYPE_CHECKING:  # for type checkers, a mixin is an SQLModel and nothing else

    class _Mixin(SQLModel):
        # SQLModel declares a method of this name, so that Pyright would refuse ``__tablename__ = "users"``.
        __tablename__: ClassVar[Any]

else:

    class _TypeOfMixins(type(SQLModel), type(MappedAsDataclass)):
        """The type of the mixins and of the classes that derive from them.

        It derives from the types of declarative bases too. So Python calls it for a class that derives from a mixin and
        from a declarative base, instead of speaking of a conflict of metaclasses.
        """

        def __new__(mcs, name, bases, namespace, **options):
            """Make a class, whose bases may be in any order."""
            _refuse_declarative_base(name, bases)
            # Python refuses a class in front of its own subclass, as in (SQLModel, TenantMixin).
            needed = (base for base in bases if not any(base is not each and issubclass(each, base) for each in bases))
            return super().__new__(mcs, name, tuple(needed), namespace, **options)

    class _Mixin(SQLModel, metaclass=_TypeOfMixins):
        """Orders the fields of the classes that derive from it."""

        @classmethod
        def __get_pydantic_core_schema__(cls, source, handler):
            """Pydantic calls this before it builds the schema, which has the order of the fields."""
            _move_fields_of_mixins(cls)
            return handler(source)

        @classmethod
        def __pydantic_init_subclass__(cls, **options):
            """Pydantic calls this before SQLModel makes a column of each field, also if there is no schema yet."""
            _move_fields_of_mixins(cls)
            super().__pydantic_init_subclass__(**options)


class TenantMixin(_Mixin):
    """Each row belongs to the tenant in ``tenant_id``. The repository fills it in; before that, it is None.

    A class can declare the field again, for example with a foreign key. For type checkers it stays a `str`: a class
    whose tenants have ids of another type needs no mixin, but only its own field ``tenant_id: UUID``.
    """

    # SerializeAsAny: `model_dump` must not warn of a row that has no tenant yet.
    tenant_id: SerializeAsAny[str] = Field(default=None, sa_type=String(128), nullable=False, index=True)


class AuditMixin(_Mixin):
    """Who made and last changed a row, and when (UTC)."""

    created_at: datetime = Field(default_factory=utc_now, sa_type=UTCDateTime, nullable=False)
    updated_at: datetime = Field(
        default_factory=utc_now, sa_type=UTCDateTime, nullable=False, sa_column_kwargs={"onupdate": utc_now}
    )
    created_by: str | None = Field(default=None, sa_type=String(255))
    updated_by: str | None = Field(default=None, sa_type=String(255))


class SoftDeleteMixin(_Mixin):
    """A deleted row stays in the table. It is marked as deleted, and reads omit it."""

    is_deleted: bool = Field(default=False, nullable=False, sa_column_kwargs={"server_default": false()})
    deleted_at: datetime | None = Field(default=None, sa_type=UTCDateTime)


class VersionMixin(_Mixin):
    """The version of a row, which each update increments, so that an update of a stale row is refused."""

    version: int = Field(default=1, nullable=False, sa_column_kwargs={"server_default": text("1")})


class HistoryMixin(_Mixin):
    """Each change of a row is recorded in the table ``<table>_history``: see `dotmac_database.HistoryMixin`."""

    __dotmac_history__: ClassVar[bool] = True
