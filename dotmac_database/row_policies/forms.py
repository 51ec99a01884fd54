"""Values as texts that PostgreSQL reads: literals in a policy's condition, and the actor's values in a setting."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, DateTime, Double, Enum, Float, Interval, Numeric, String, Time
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine

from ..dialects.postgresql import Postgresql
from ..dialects.spans import bound_by
from ..errors import MisuseError
from ..statements.coercion import comparer
from ..types import undecorated

_TYPES = Postgresql.types


@dataclass(frozen=True, slots=True)
class Form:
    """How values are written that are compared with a column of ``type``. ``is_list``: a value is a list of them."""

    type: TypeEngine[Any]
    is_list: bool = False

    @property
    def cast(self) -> str | None:
        """The SQL type to which the text is cast; None: it is compared as a text.

        It has neither length nor precision, since such a cast would cut a value, which could then equal another one.
        """
        name = _type_name(self.type)
        if self.is_list:
            return f"{name or 'TEXT'}[]"
        return name

    @property
    def name(self) -> str:
        """A name of the form, which two forms share if they write the same values as the same texts."""
        plain = undecorated(self.type)
        named = [self.cast] if self.cast else []
        if plain is not self.type or isinstance(plain, Enum):
            has_class = isinstance(plain, Enum) and plain.enum_class is not None
            named.append(plain.enum_class.__name__ if has_class else type(self.type).__name__)  # type: ignore[attr-defined]  # see above
        return "".join(f"::{each}" for each in named)

    def writes_like(self, other: Form) -> bool:
        """Whether another form of the same `name` writes the same texts, whatever the values are."""
        return _conversion(self.type) == _conversion(other.type)

    def text(self, value: object) -> str | None:
        """The text for a value; None for None, and for a value that no value of the column can equal."""
        if self.is_list:
            if isinstance(value, (str, bytes, dict)) or not isinstance(value, Iterable):
                return None
            texts = [self._item(each) for each in value]
            return "{" + ",".join("NULL" if each is None else _quoted_item(each) for each in texts) + "}"
        return self._item(value)

    def _item(self, value: object) -> str | None:
        if value is None:
            return None
        try:
            bound = bound_by(self.type, _TYPES)(comparer(self.type, _TYPES)(value))
        except Exception:  # noqa: BLE001 - a type of the user's can raise anything for a value of another type
            return None
        return _text(bound)


def _conversion(type_: TypeEngine[Any]) -> tuple[object, ...]:
    """What a type converts values by: its class, and the state that the user's own type has."""
    if isinstance(type_, Enum):
        return type_.enum_class, *type_.enums
    if not isinstance(type_, TypeDecorator):
        return ()
    state = {name: each for name, each in vars(type_).items() if name != "impl" and not hasattr(TypeDecorator, name)}
    return type(type_), state, *_conversion(type_.impl_instance)


def _type_name(type_: TypeEngine[Any]) -> str | None:
    plain = Postgresql().underlying(type_)
    if isinstance(plain, Enum):
        return plain.compile(dialect=_TYPES) if plain.native_enum else None
    if isinstance(plain, String):
        return None
    if isinstance(plain, (Float, Double)):
        return "DOUBLE PRECISION"
    if isinstance(plain, Numeric):
        return "NUMERIC"
    if isinstance(plain, (DateTime, Time)):
        kind = "TIMESTAMP" if isinstance(plain, DateTime) else "TIME"
        return f"{kind} WITH{'' if plain.timezone else 'OUT'} TIME ZONE"
    if isinstance(plain, Interval):
        return "INTERVAL"
    return plain.compile(dialect=_TYPES)


def is_known(type_: TypeEngine[Any]) -> bool:
    """Whether values can be written for this type."""
    return not isinstance(type_, (NullType, ARRAY))


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, enum.Enum):
        return _text(value.value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, timedelta):
        return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "\\x" + bytes(value).hex()
    if isinstance(value, (str, int, float, Decimal, UUID)) or hasattr(value, "packed") or hasattr(value, "netmask"):
        text = str(value)
        return None if "\x00" in text else text
    raise MisuseError(f"A {type(value).__name__} can't be compared in a policy of the database.", field="policies")


def _quoted_item(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def quoted_text(text: str) -> str:
    """A text as an SQL literal, whatever the setting standard_conforming_strings says."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'" if "\\" not in text else "E'" + doubled.replace("\\", "\\\\") + "'"
