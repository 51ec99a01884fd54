"""Which changes of a column's type PostgreSQL makes without writing the table anew."""

from __future__ import annotations

import re

_ALIASES = {
    "character varying": "varchar",
    "character": "bpchar",
    "char": "bpchar",
    "integer": "int4",
    "int": "int4",
    "bigint": "int8",
    "smallint": "int2",
    "boolean": "bool",
    "double precision": "float8",
    "real": "float4",
    "decimal": "numeric",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "time without time zone": "time",
    "time with time zone": "timetz",
    "bit varying": "varbit",
}
_TEXTS = ("varchar", "text")
_PRECISE = ("timestamp", "timestamptz", "time", "timetz", "interval", "varbit")
_PRINTED = re.compile(
    r"(?P<name>[^(\[]+?)(?:\((?P<modifiers>[\d,]+)\))?(?P<rest> with(?:out)? time zone)?(?P<array>(?:\[\])*)"
)

Type = tuple[str, tuple[int, ...]]


def printed_type(text: str) -> Type:
    """A type as ``format_type`` prints it, such as ``character varying(20)``, in the form of `parsing.type_of`."""
    match = _PRINTED.fullmatch(text)
    if match is None:
        return text, ()
    name = match["name"].strip().strip('"').rpartition(".")[2] + (match["rest"] or "")
    modifiers = tuple(map(int, match["modifiers"].split(","))) if match["modifiers"] else ()
    return _ALIASES.get(name, name) + match["array"], modifiers


def rewrites(old: Type, new: Type) -> bool:
    """Whether ALTER COLUMN TYPE writes the table anew, or reads it to check the values.

    It does neither if a text becomes longer or unlimited, a numeric gets more digits before the point, or a time more
    digits after it: https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-NOTES
    """
    (old_name, old_modifiers), (new_name, new_modifiers) = old, new
    if old == new:
        return False
    if old_name in _TEXTS and new_name in _TEXTS:
        return bool(new_modifiers) and (not old_modifiers or new_modifiers < old_modifiers)
    if old_name != new_name:
        return (old_name, new_name) not in (("cidr", "inet"), ("int4", "oid"))
    if not new_modifiers:
        return old_name == "bpchar"
    if old_name == "numeric" and old_modifiers:
        scales = [(each[1] if len(each) > 1 else 0) for each in (old_modifiers, new_modifiers)]
        return scales[0] != scales[1] or new_modifiers[0] < old_modifiers[0]
    return old_name not in _PRECISE or not old_modifiers or new_modifiers < old_modifiers
