"""The made-up rows: staff and inspections for each country, the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from itertools import groupby
from random import Random
from typing import Any
from uuid import UUID

from .data import Row, airport_rows
from .models import Role, Status, Topic

_GIVEN = (
    "Amara", "Ana", "Bilal", "Chloe", "Daniel", "Elif", "Femi", "Grace", "Hana", "Ines", "Ivan", "Jonas", "Kaito",
    "Lea", "Linh", "Luca", "Maria", "Maya", "Nadia", "Noah", "Olga", "Omar", "Priya", "Rosa", "Sara", "Tariq", "Tomas",
    "Yara",
)  # fmt: skip
_FAMILY = (
    "Abara", "Bauer", "Castro", "Dahl", "Eriksen", "Fontaine", "Garcia", "Haddad", "Ito", "Jansen", "Kaya", "Lopez",
    "Mensah", "Moreau", "Nakamura", "Novak", "Okafor", "Park", "Quist", "Rossi", "Silva", "Tanaka", "Varga", "Zeman",
)  # fmt: skip
_ROLES = (Role.LEAD, Role.INSPECTOR, Role.INSPECTOR, Role.ANALYST)
_NOTES = {
    Topic.RUNWAY: ("Cracks near the threshold", "Markings faded", "Friction below the target after rain"),
    Topic.LIGHTING: ("Approach lights out of line", "Two edge lights dark"),
    Topic.FIRE_SAFETY: ("Extinguishers due for a check", "Drill took too long"),
    Topic.WILDLIFE: ("Geese beside the apron", "Fence open in the north"),
    Topic.SECURITY: ("Camera at gate 2 is blind", "Badges expired"),
}
_INSPECTED = 12
"""How many airports of a country have inspections to begin with."""

_FIRST_DUE = date(2026, 1, 5)


def user_rows() -> Iterator[Row]:
    """Four people for each country."""
    for code, _ in _countries():
        yield from _staff(code)


def inspection_rows() -> Iterator[Row]:
    """One to three inspections of up to twelve airports of each country."""
    for code, airports in _countries():
        drawn = Random(f"inspections of {code}")  # noqa: S311 - the same rows everywhere, nothing secret
        inspectors = [row for row in _staff(code) if row["role"] is not Role.ANALYST]
        # Airports that have an IATA code are those that people know.
        known = [row for row in airports if row["iata"]] or list(airports)
        for airport in drawn.sample(known, min(_INSPECTED, len(known))):
            for _ in range(drawn.randint(1, 3)):
                yield _inspection(drawn, airport, drawn.choice(inspectors))


def _countries() -> Iterator[tuple[str, Sequence[Row]]]:
    for code, rows in groupby(airport_rows(), key=lambda row: str(row["tenant_id"])):
        yield code, list(rows)


def _staff(code: str) -> list[Row]:
    drawn = Random(f"staff of {code}")  # noqa: S311 - as above
    givens, families = drawn.sample(_GIVEN, len(_ROLES)), drawn.sample(_FAMILY, len(_ROLES))
    return [
        {
            "tenant_id": code,
            "id": UUID(int=drawn.getrandbits(128), version=4),
            "name": f"{given} {family}",
            "email": f"{given}.{family}@{code}.example".lower(),
            "role": role,
        }
        for given, family, role in zip(givens, families, _ROLES, strict=True)
    ]


def _inspection(drawn: Random, airport: Row, inspector: Row) -> Row:
    topic = drawn.choice(list(Topic))
    row: dict[str, Any] = {
        "tenant_id": airport["tenant_id"],
        "id": UUID(int=drawn.getrandbits(128), version=4),
        "airport_icao": airport["icao"],
        "inspector_id": inspector["id"],
        "topic": topic,
        "status": drawn.choice((Status.OPEN, Status.OPEN, Status.CLOSED)),
        "due_on": _FIRST_DUE + timedelta(days=drawn.randrange(360)),
        "note": drawn.choice(_NOTES[topic]),
    }
    return row
