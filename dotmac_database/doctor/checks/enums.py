"""Checks of enums: the values that Python has, and those that the database accepts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sqlalchemy import Enum, Table, text

from ...dialects.base import enum_of
from ..examination import Examination
from ..facts import ConstraintFacts, TableFacts
from ..findings import Severity
from ..registry import BOTH, POSTGRESQL, Symptom, Unchecked, check

_LITERAL = re.compile(r"'((?:[^']|'')*)'")


@check(
    "enum-drift",
    Severity.ERROR,
    on=BOTH,
    source="https://www.postgresql.org/docs/current/datatype-enum.html",
)
def enum_drift(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """A Python enum and the enum type or CHECK constraint of the database have different values."""
    types = _types(examination) if examination.dialect in POSTGRESQL else {}
    for table in examination.models:
        facts = examination.of(table)
        for column in table.columns if facts is not None else ():
            enum = enum_of(column.type)
            if enum is None or facts is None or column.name not in facts.columns:
                continue
            type_name = facts.columns[column.name].type
            if type_name in types:
                yield from _of_type(f"{facts.label}.{column.name}", type_name, enum.enums, types[type_name])
            else:
                yield from _of_check(examination, facts, table, column.name, enum)


def _types(examination: Examination) -> dict[str, list[str]]:
    """The labels of each enum type in the database, by the name that `format_type` gives. One statement."""
    return {row.name: list(row.labels) for row in examination.connection.execute(text(_ENUMS))}


def _of_type(label: str, type_name: str, expected: list[str], labels: list[str]) -> Iterator[Symptom]:
    missing = [each for each in expected if each not in labels]
    if missing:
        yield Symptom(
            label,
            f"The database refuses {_listed(missing)}: its enum {type_name} lacks the value.",
            [f"ALTER TYPE {type_name} ADD VALUE {_quoted(each)}" for each in missing],
        )
    extra = [each for each in labels if each not in expected]
    if extra:
        yield Symptom(
            label,
            f"A row with {_listed(extra)} can't be read: the Python enum lacks the value.",
            remedy=f"Add the value to the Python enum, or change these rows and create the type {type_name} anew, "
            "since PostgreSQL can't drop a value.",
        )


def _of_check(examination: Examination, facts: TableFacts, table: Table, column: str, enum: Enum) -> Iterator[Symptom]:
    """The values of a CHECK constraint. A column without one accepts every text, so nothing differs."""
    expected = set(enum.enums)
    for constraint in facts.constraints:
        values = _accepted(constraint, column, whole=examination.dialect not in POSTGRESQL)
        if values is None or values == expected:
            continue
        listed = ", ".join(_quoted(each) for each in enum.enums)
        alter, accepts = f"ALTER TABLE {facts.sql}", f"CHECK ({facts.columns[column].sql} IN ({listed}))"
        missing, extra = sorted(expected - values), sorted(values - expected)
        risk = f"The database refuses {_listed(missing)}." if missing else ""
        if extra:
            risk = f"{risk} A row with {_listed(extra)} can't be read by the Python enum.".strip()
        if examination.dialect not in POSTGRESQL:
            yield Symptom(f"{facts.label}.{column}", risk, remedy=f"Create {table.name} anew with the enum's values.")
            return
        yield Symptom(
            f"{facts.label}.{column}",
            risk,
            [
                f"{alter} DROP CONSTRAINT {constraint.sql}, ADD CONSTRAINT {constraint.sql} {accepts} NOT VALID",
                f"{alter} VALIDATE CONSTRAINT {constraint.sql}",
            ],
        )


def _accepted(constraint: ConstraintFacts, column: str, *, whole: bool) -> set[str] | None:
    """The values that a CHECK constraint accepts for the column; None: it is not a list of values of this column.

    ``whole``: the definition is that of the whole table, as SQLite has it.
    """
    if constraint.kind != "c":
        return None
    name = rf'"?{re.escape(column)}"?'
    if whole:
        match = re.search(rf"CHECK \(\s*{name} IN \(([^)]*)\)\s*\)", constraint.definition, re.IGNORECASE)
        return None if match is None else {each.replace("''", "'") for each in _LITERAL.findall(match[1])}
    match = re.fullmatch(
        rf"CHECK \(\(+{name}\)*(?:::[\w ]+)?\)? = ANY \((.*)\)\)(?: NOT VALID)?", constraint.definition
    )
    return None if match is None else {each.replace("''", "'") for each in _LITERAL.findall(match[1])}


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _listed(values: list[str]) -> str:
    return ", ".join(map(repr, values))


_ENUMS = """
SELECT format_type(e.enumtypid, NULL) AS name, array_agg(e.enumlabel::text ORDER BY e.enumsortorder) AS labels
FROM pg_enum e GROUP BY e.enumtypid
"""
