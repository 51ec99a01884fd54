"""The real airports, and a small staff for each country, written by the toolkit's bulk path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import airportsdata
from sqlalchemy.orm import Session

from dotmac_database import ALL_TENANTS, DatabaseTransaction, create_repository

from .models import Airport, Country, Inspection, Outcome, Role, User

BATCH = 2_000
STAFF = (("Astrid Holm", Role.CHIEF), ("Ben Okafor", Role.INSPECTOR), ("Clara Vidal", Role.INSPECTOR))
REMARKS = (
    (Outcome.PASSED, "Runway markings renewed, lights tested."),
    (Outcome.OPEN, "Fence on the eastern side to be mended."),
    (Outcome.FAILED, "Windsock missing; fire extinguishers out of date."),
)

Progress = Callable[[int, int], None]


def airports() -> list[dict[str, Any]]:
    """Every airport of the package whose country is known, as rows."""
    return [
        {
            "icao": each["icao"],
            "iata": each["iata"] or None,
            "name": each["name"],
            "city": each["city"],
            "subdivision": each["subd"],
            "country": each["country"],
            "elevation": round(each["elevation"]),
            "latitude": each["lat"],
            "longitude": each["lon"],
            "timezone": each["tz"],
        }
        for each in airportsdata.load().values()
        if each["country"]
    ]


def is_loaded(session: Session) -> bool:
    """Whether an earlier start has loaded the data."""
    return create_repository(session, Country).count() > 0


def load(session: Session, progress: Progress) -> int:
    """Write countries, airports, staff and a few inspections in one transaction; gives the number of airports.

    ``progress`` is called with the rows written so far and those in all.
    """
    rows = airports()
    sizes = Counter(row["country"] for row in rows)
    with DatabaseTransaction.sync_transaction(session):
        create_repository(session, Country).bulk_create(
            [{"code": code, "airports": size} for code, size in sizes.items()], returning=False
        )
        across = create_repository(session, Airport, ALL_TENANTS)
        for start in range(0, len(rows), BATCH):
            across.bulk_create(rows[start : start + BATCH], returning=False)
            progress(min(start + BATCH, len(rows)), len(rows))
        create_repository(session, User, ALL_TENANTS).bulk_create(list(staff(sizes)), returning=False)
        inspected = create_repository(session, Inspection, ALL_TENANTS)
        inspected.bulk_create(list(inspections(rows)), user_id="seed", returning=False)
    return len(rows)


def staff(countries: Counter[str]) -> Iterator[dict[str, Any]]:
    """Three members of staff for each country."""
    for country in countries:
        for name, role in STAFF:
            email = f"{name.split()[0].lower()}@{country.lower()}.example"
            yield {"id": _id(email), "country": country, "name": name, "email": email, "role": role}


def inspections(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Three inspections of each country's first airports."""
    seen: Counter[str] = Counter()
    for row in rows:
        country = row["country"]
        place = seen[country]
        if place >= len(REMARKS):
            continue
        seen[country] += 1
        outcome, notes = REMARKS[place]
        yield {
            "id": _id(f"inspection/{row['icao']}"),
            "country": country,
            "airport_icao": row["icao"],
            "inspector_id": _id(f"{STAFF[1 + place % 2][0].split()[0].lower()}@{country.lower()}.example"),
            "outcome": outcome,
            "notes": notes,
        }


def _id(name: str) -> Any:
    """The same id at every start."""
    return uuid5(NAMESPACE_URL, f"https://dotmac.example/{name}")
