"""Comparisons with column types for which several stored values are read as the same Python value.

Most types store exactly the bound value, and reading returns the same value. For the other types, a value that was read
stands for a span of stored values. Examples: SQLite's ``CURRENT_TIMESTAMP`` has no fraction of a second, but SQLAlchemy
writes six digits; a REAL of PostgreSQL is not equal to the double that Python shows for it; a float that is read as a
Decimal is rounded. Filters compare the column with the ends of the span. Thus a value that was read finds its row, and
the comparison can still use an index.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any, Literal

from sqlalchemy import types as sa
from sqlalchemy.engine import Dialect

from ..types import UTCDateTime

Ends = Literal["low", "high"]

_HOOKS = (
    "process_bind_param",
    "process_result_value",
    "bind_processor",
    "result_processor",
    "bind_expression",
    "column_expression",
)
_MOMENT = re.compile(r"((?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?")
_EXACT = Context(prec=2000)  # enough: a double, and the middle between two doubles, have at most 768 digits
_DOUBLES_DIGITS = 15
_DOUBLE_OID = 701  # PostgreSQL's


class AsStored(sa.UserDefinedType[Any]):
    """A type whose values SQLAlchemy passes on unchanged between the app and the driver."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """SQLAlchemy's hook. No column is ever created with this type."""
        return "BLOB"


class AsText(sa.Text):
    """A type whose values are in PostgreSQL's text form, from which PostgreSQL gets exactly the same value again."""


def converts(type_: sa.TypeEngine[object]) -> bool:
    """Whether a `TypeDecorator` of the user converts the values of this type in an unknown way."""
    while isinstance(type_, sa.TypeDecorator) and not isinstance(type_, (UTCDateTime, sa.Interval)):
        if any(getattr(type(type_), hook) is not getattr(sa.TypeDecorator, hook) for hook in _HOOKS):
            return True
        type_ = type_.impl_instance
    return False


def underlying(type_: sa.TypeEngine[Any], dialect: Dialect) -> sa.TypeEngine[Any]:
    """The type that the dialect uses for ``type_``, without decorators."""
    while isinstance(type_, sa.TypeDecorator):
        type_ = type_.type_engine(dialect)
    return type_.dialect_impl(dialect)


@dataclass(frozen=True, slots=True)
class Span:
    """The stored values that are read as the same Python value, for a column of the type ``item``.

    The types ``low`` and ``high`` convert a Python value to the lower and to the upper end of its span. If they are the
    same type, the span is a single stored value. ``rounds``: a stored number is rounded when it is read.
    """

    item: sa.TypeEngine[Any]
    low: sa.TypeEngine[object]
    high: sa.TypeEngine[object]
    rounds: bool = False

    @property
    def single(self) -> bool:
        """Whether the span is a single stored value."""
        return self.low is self.high


def bound_by(item: sa.TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any]:
    """The function that converts a value of this type to the value that the driver gets."""
    process = item.dialect_impl(dialect).bind_processor(dialect)
    return process if process is not None else lambda value: value


class MomentEnd(sa.TypeDecorator[Any]):
    """An end of the span of texts that SQLite can store for a datetime or time. A shorter text sorts first."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, item: sa.TypeEngine[object], end: Ends) -> None:
        super().__init__()
        self.item = item
        self.end = end

    def bind_processor(self, dialect: Any) -> Any:
        """SQLAlchemy's hook: a function that returns the first or the last text of the span."""
        store, end = bound_by(self.item, dialect), self.end

        def process(value: object) -> object:
            forms = moment_forms(store(value))
            return forms[0 if end == "low" else -1]

        return process


def moment_forms(stored: Any) -> tuple[Any, ...]:
    """The usual texts for a value, in ascending order. ``stored`` is the text that SQLAlchemy writes for it.

    They are the shortest text, those with three and six digits of a fraction, and for midnight the date alone. NULL and
    a text in another format are returned alone.
    """
    parts = _MOMENT.fullmatch(stored) if isinstance(stored, str) else None
    if parts is None:
        return (stored,)  # NULL, or a format that the user has chosen
    whole, digits = parts.group(1), (parts.group(2) or "").ljust(6, "0")
    short = digits.rstrip("0")
    lengths = sorted({len(short), max(len(short), 3), 6})
    forms = [f"{whole}.{digits[:length]}" if length else whole for length in lengths]
    # A text with only a date is read as midnight.
    return (whole.removesuffix(" 00:00:00"), *forms) if not short and whole.endswith(" 00:00:00") else tuple(forms)


def digits_read(item: sa.TypeEngine[object], dialect: Dialect) -> int | None:
    """The number of decimal places that a float is rounded to when it is read as a Decimal; None: not rounded."""
    read = item.dialect_impl(dialect).result_processor(dialect, _DOUBLE_OID)
    digits = _DOUBLES_DIGITS if read is None else -int(Decimal(str(read(1 / 3))).as_tuple().exponent)
    return digits if digits < _DOUBLES_DIGITS else None


class DecimalEnd(sa.TypeDecorator[Any]):
    """An end of the span of doubles that are read as the same Decimal because they are rounded.

    If a value has more decimal places than the rounded values have, no stored value is read as this value, and it is
    bound unchanged. ``narrow``: the column stores single-precision numbers, so the end is rounded to one.
    """

    impl = sa.Double
    cache_ok = True

    def __init__(self, item: sa.TypeEngine[object], end: Ends, narrow: bool = False) -> None:
        super().__init__()
        self.item = item
        self.end = end
        self.narrow = narrow

    def bind_processor(self, dialect: Any) -> Any:
        """SQLAlchemy's hook: a function that returns the end of the span of a value."""
        digits, narrow = digits_read(self.item, dialect), self.narrow
        step = Decimal(1).scaleb(-(digits or 0))
        half = step / (-2 if self.end == "low" else 2)

        def process(value: Any) -> float | None:
            if value is None:
                return None
            number = Decimal(str(value)) if isinstance(value, float) else Decimal(value)
            if digits is not None and number == number.quantize(step, context=_EXACT):
                number = _EXACT.add(number, half)
            return nearest_single(float(number)) if narrow else float(number)

        return process


class SinglePrecision(sa.TypeDecorator[Any]):
    """A number rounded as PostgreSQL's REAL stores it, and bound as a double.

    Because it is bound as a double, no value is out of range, and the comparison can still use an index of the column.
    """

    impl = sa.Double
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: object) -> object:  # noqa: ARG002 - SQLAlchemy's signature
        """SQLAlchemy's hook: the double."""
        return None if value is None else nearest_single(float(value))


def nearest_single(value: float) -> float:
    """The nearest number of single precision. If the number is too large or too small for it, it is not changed."""
    try:
        nearest: float = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return value
    return nearest if nearest or not value else value


class DoubleEnd(sa.TypeDecorator[Any]):
    """An end of the span of NUMERICs that are read as the same float: the middle between this float and a neighbour."""

    impl = sa.Numeric
    cache_ok = True

    def __init__(self, end: Ends) -> None:
        super().__init__()
        self.end = end

    def process_bind_param(self, value: Any, dialect: object) -> object:  # noqa: ARG002 - SQLAlchemy's signature
        """SQLAlchemy's hook: the number."""
        if value is None or not math.isfinite(value):
            return value
        neighbour = math.nextafter(value, -math.inf if self.end == "low" else math.inf)
        if not math.isfinite(neighbour):
            return Decimal(repr(float(value)))
        return _EXACT.divide(_EXACT.add(Decimal(value), Decimal(neighbour)), Decimal(2))


class AsWritten(sa.TypeDecorator[Any]):
    """Binds a float as a NUMERIC with the digits of its ``repr``. A driver would send more digits, or only 15."""

    impl = sa.Numeric
    cache_ok = True

    def process_bind_param(self, value: object, dialect: object) -> object:  # noqa: ARG002 - SQLAlchemy's signature
        """SQLAlchemy's hook: the number."""
        return Decimal(repr(value)) if isinstance(value, float) else value


def decimal_span(type_: sa.TypeEngine[object], narrow: bool = False) -> Span:
    """The span of a float column that is read as rounded Decimals; ``narrow``: its precision is single."""
    return Span(type_, DecimalEnd(type_, "low", narrow), DecimalEnd(type_, "high", narrow), rounds=True)


def float_span(type_: sa.Numeric[Any]) -> Span:
    """The span of a NUMERIC column that is read as floats."""
    if type_.precision is not None and type_.precision <= _DOUBLES_DIGITS:
        written = AsWritten()
        return Span(type_, written, written)
    return Span(type_, DoubleEnd("low"), DoubleEnd("high"))


def moment_span(type_: sa.TypeEngine[object]) -> Span:
    """The span of a datetime or time that SQLite stores as text."""
    return Span(type_, MomentEnd(type_, "low"), MomentEnd(type_, "high"))
