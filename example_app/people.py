"""The invented rows: staff and inspections for each country, the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from itertools import groupby
from random import Random
from typing import Any
from uuid import UUID

from .data import Row, airport_rows
from .models import Role, Status, Topic

_GIVEN_NAMES = (
    "Amara", "Ana", "Bilal", "Chloe", "Daniel", "Elif", "Femi", "Grace", "Hana", "Ines", "Ivan", "Jonas", "Kaito",
    "Lea", "Linh", "Luca", "Maria", "Maya", "Nadia", "Noah", "Olga", "Omar", "Priya", "Rosa", "Sara", "Tariq", "Tomas",
    "Yara",
)  # fmt: skip
_FAMILY_NAMES = (
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
_MAX_INSPECTED_AIRPORTS = 12
"""The largest number of airports of a country that have inspections at the start."""

_FIRST_DUE = date(2026, 1, 5)


def user_rows() -> Iterator[Row]:
    """Four people for each country."""
    for code, _ in _countries():
        yield from _staff(code)


def inspection_rows() -> Iterator[Row]:
    """One to three inspections of up to twelve airports of each country."""
    for code, airports in _countries():
        random = Random(f"inspections of {code}")  # noqa: S311 - not for secrets: the seed makes the rows the same on every machine
        inspectors = [row for row in _staff(code) if row["role"] is not Role.ANALYST]
        # The best-known airports are those with an IATA code.
        known = [row for row in airports if row["iata"]] or list(airports)
        for airport in random.sample(known, min(_MAX_INSPECTED_AIRPORTS, len(known))):
            for _ in range(random.randint(1, 3)):
                yield _inspection(random, airport, random.choice(inspectors))


def _countries() -> Iterator[tuple[str, Sequence[Row]]]:
    for code, rows in groupby(airport_rows(), key=lambda row: str(row["tenant_id"])):
        yield code, list(rows)


def _staff(code: str) -> list[Row]:
    random = Random(f"staff of {code}")  # noqa: S311 - as above
    given_names, family_names = random.sample(_GIVEN_NAMES, len(_ROLES)), random.sample(_FAMILY_NAMES, len(_ROLES))
    return [
        {
            "tenant_id": code,
            "id": UUID(int=random.getrandbits(128), version=4),
            "name": f"{given_name} {family_name}",
            "email": f"{given_name}.{family_name}@{code}.example".lower(),
            "role": role,
        }
        for given_name, family_name, role in zip(given_names, family_names, _ROLES, strict=True)
    ]


def _inspection(random: Random, airport: Row, inspector: Row) -> Row:
    topic = random.choice(list(Topic))
    row: dict[str, Any] = {
        "tenant_id": airport["tenant_id"],
        "id": UUID(int=random.getrandbits(128), version=4),
        "airport_icao": airport["icao"],
        "inspector_id": inspector["id"],
        "topic": topic,
        "status": random.choice((Status.OPEN, Status.OPEN, Status.CLOSED)),
        "due_on": _FIRST_DUE + timedelta(days=random.randrange(360)),
        "note": random.choice(_NOTES[topic]),
    }
    return row
