"""What a column stores against what is read of it.

Most types store what is bound, and reading it gives that again. For the others a value that was read stands for a span
of stored ones: SQLite's ``CURRENT_TIMESTAMP`` has no fraction where SQLAlchemy writes six digits, a REAL of PostgreSQL
is not the double that Python shows for it, and a float that is read as a Decimal is rounded. Comparisons are with the
span's ends, so that a value just read finds its row, and an index still serves.
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
_EXACT = Context(prec=2000)  # a double, and the half of the way to the next, have at most 768 digits
_DOUBLES_DIGITS = 15
_DOUBLE_OID = 701  # PostgreSQL's


class AsStored(sa.UserDefinedType[Any]):
    """A value as the driver gives and takes it: SQLAlchemy converts nothing."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """SQLAlchemy's hook: nothing is ever created of this type."""
        return "BLOB"


class AsText(sa.Text):
    """A value as PostgreSQL writes it, which it reads again as the same."""


def converts(type_: sa.TypeEngine[Any]) -> bool:
    """Whether a user's code, which nobody knows, is between what is stored and what is read."""
    while isinstance(type_, sa.TypeDecorator) and not isinstance(type_, (UTCDateTime, sa.Interval)):
        if any(getattr(type(type_), hook) is not getattr(sa.TypeDecorator, hook) for hook in _HOOKS):
            return True
        type_ = type_.impl_instance
    return False


def underlying(type_: sa.TypeEngine[Any], dialect: Dialect) -> sa.TypeEngine[Any]:
    """The dialect's own type that columns of ``type_`` have, without decorators."""
    while isinstance(type_, sa.TypeDecorator):
        type_ = type_.type_engine(dialect)
    return type_.dialect_impl(dialect)


@dataclass(frozen=True, slots=True)
class Span:
    """The types by which the ends of the span of a column's value are bound; where they are one, so are the ends.

    ``item`` is the column's type; ``rounds`` says that a stored number is rounded when it is read.
    """

    item: sa.TypeEngine[Any]
    low: sa.TypeEngine[Any]
    high: sa.TypeEngine[Any]
    rounds: bool = False

    @property
    def single(self) -> bool:
        """Whether one stored value is read as one value."""
        return self.low is self.high


def bound_by(item: sa.TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any]:
    """What makes of a value of a type what the driver is given."""
    process = item.dialect_impl(dialect).bind_processor(dialect)
    return process if process is not None else lambda value: value


class MomentEnd(sa.TypeDecorator[Any]):
    """An end of the span of texts that SQLite may store for a moment or a time: shorter forms are less than longer."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, item: sa.TypeEngine[Any], end: Ends) -> None:
        super().__init__()
        self.item = item
        self.end = end

    def bind_processor(self, dialect: Any) -> Any:
        """SQLAlchemy's hook: the text."""
        store, end = bound_by(self.item, dialect), self.end

        def process(value: Any) -> Any:
            forms = moment_forms(store(value))
            return forms[0 if end == "low" else -1]

        return process


def moment_forms(stored: Any) -> tuple[Any, ...]:
    """The texts that are read as the same moment, or time, as the one that SQLAlchemy stores: from low to high."""
    parts = _MOMENT.fullmatch(stored) if isinstance(stored, str) else None
    if parts is None:
        return (stored,)  # a format of the user's own, or NULL
    whole, digits = parts.group(1), (parts.group(2) or "").ljust(6, "0")
    short = digits.rstrip("0")
    lengths = sorted({len(short), max(len(short), 3), 6})
    forms = [f"{whole}.{digits[:length]}" if length else whole for length in lengths]
    # A date alone is midnight.
    return (whole.removesuffix(" 00:00:00"), *forms) if not short and whole.endswith(" 00:00:00") else tuple(forms)


def digits_read(item: sa.TypeEngine[Any], dialect: Dialect) -> int | None:
    """To how many digits after the point a float is rounded when it is read as a Decimal; None: it is not rounded."""
    read = item.dialect_impl(dialect).result_processor(dialect, _DOUBLE_OID)
    digits = _DOUBLES_DIGITS if read is None else -int(Decimal(str(read(1 / 3))).as_tuple().exponent)
    return digits if digits < _DOUBLES_DIGITS else None


class DecimalEnd(sa.TypeDecorator[Any]):
    """An end of the span of doubles, or with ``narrow`` of floats, that are read as one Decimal, for they are rounded.

    A value of more digits than are read stands for itself.
    """

    impl = sa.Double
    cache_ok = True

    def __init__(self, item: sa.TypeEngine[Any], end: Ends, narrow: bool = False) -> None:
        super().__init__()
        self.item = item
        self.end = end
        self.narrow = narrow

    def bind_processor(self, dialect: Any) -> Any:
        """SQLAlchemy's hook: the number."""
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


class Single(sa.TypeDecorator[Any]):
    """A number as PostgreSQL's REAL stores it, bound as a double: no value is out of range, and indexes serve."""

    impl = sa.Double
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        """SQLAlchemy's hook: the double."""
        return None if value is None else nearest_single(float(value))


def nearest_single(value: float) -> float:
    """The number of single precision that is nearest; what it can't hold stays as it is."""
    try:
        nearest: float = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return value
    return nearest if nearest or not value else value


class DoubleEnd(sa.TypeDecorator[Any]):
    """An end of the span of NUMERICs that are read as one float: half of the way to the floats beside it."""

    impl = sa.Numeric
    cache_ok = True

    def __init__(self, end: Ends) -> None:
        super().__init__()
        self.end = end

    def process_bind_param(self, value: Any, dialect: Any) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        """SQLAlchemy's hook: the number."""
        if value is None or not math.isfinite(value):
            return value
        beside = math.nextafter(value, -math.inf if self.end == "low" else math.inf)
        if not math.isfinite(beside):
            return Decimal(repr(float(value)))
        return _EXACT.divide(_EXACT.add(Decimal(value), Decimal(beside)), Decimal(2))


class AsWritten(sa.TypeDecorator[Any]):
    """A float as the NUMERIC that has its digits: a driver may send more of them, or the first 15 alone."""

    impl = sa.Numeric
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        """SQLAlchemy's hook: the number."""
        return Decimal(repr(value)) if isinstance(value, float) else value


def decimal_span(type_: sa.TypeEngine[Any], narrow: bool = False) -> Span:
    """The span of a type whose stored floats are read as rounded Decimals."""
    return Span(type_, DecimalEnd(type_, "low", narrow), DecimalEnd(type_, "high", narrow), rounds=True)


def float_span(type_: sa.Numeric[Any]) -> Span:
    """The span of a NUMERIC that is read as a float."""
    if type_.precision is not None and type_.precision <= _DOUBLES_DIGITS:
        written = AsWritten()
        return Span(type_, written, written)
    return Span(type_, DoubleEnd("low"), DoubleEnd("high"))


def moment_span(type_: sa.TypeEngine[Any]) -> Span:
    """The span of a moment, or a time, that SQLite stores as a text."""
    return Span(type_, MomentEnd(type_, "low"), MomentEnd(type_, "high"))
