"""Reads the SQL of hybrids and column properties, and the defaults of columns."""

from __future__ import annotations

from typing import Any

from sqlalchemy import SelectBase
from sqlalchemy.sql import schema
from sqlalchemy.sql.visitors import iterate


def element_of(attribute: Any) -> Any:
    """The SQL element of a class's attribute; other objects are returned unchanged."""
    return attribute.__clause_element__() if hasattr(attribute, "__clause_element__") else attribute


def hybrid_sql(model: type[Any], name: str) -> Any:
    """A hybrid's SQL expression; None if it works only on instances, in Python."""
    try:
        attribute = getattr(model, name)
        return attribute.__clause_element__() if hasattr(attribute, "__clause_element__") else None
    except Exception:  # noqa: BLE001 - the hybrid is the user's code, which can raise anything
        return None


def holds_select(expression: Any) -> bool:
    """Whether an expression is or contains a SELECT."""
    return any(isinstance(part, SelectBase) for part in iterate(expression))


def is_private(expression: Any) -> bool:
    """Whether an expression is or contains a private column."""
    return any(getattr(part, "info", {}).get("private") for part in iterate(expression))


def makes_value(default: Any) -> bool:
    """Whether a column's default is a constant, or a function that does not use SQLAlchemy's context."""
    if default.is_scalar or not default.is_callable:
        return bool(default.is_scalar)
    # SQLAlchemy wraps a function that takes no context in a function of its own, which is recognised here.
    code = getattr(default.arg, "__code__", None)
    return code is not None and code.co_freevars == ("fn",) and code.co_filename == schema.__file__


def default_value(default: Any) -> Any:
    """The default of a column for one row: a value, or an SQL expression."""
    return default.arg(None) if default.is_callable else default.arg
