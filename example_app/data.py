"""The real rows: the airports of the ``airportsdata`` package, and their countries."""

from __future__ import annotations

import csv
import unicodedata
from collections import Counter
from functools import cache
from importlib.resources import files
from typing import Any

import airportsdata

Row = dict[str, Any]


@cache
def airport_rows() -> list[Row]:
    """Every airport that has an ICAO code, as `Airport` takes it, by country and name; about 28,000."""
    rows = [_airport(found) for found in airportsdata.load("ICAO").values()]
    return sorted(rows, key=lambda row: (row["tenant_id"], row["name"], row["icao"]))


def country_rows() -> list[Row]:
    """Every country that has an airport, with how many it has."""
    names = country_names()
    counts = Counter(row["tenant_id"] for row in airport_rows())
    # A country that a later edition of the package adds is named by its code until it has a name here.
    return [{"code": code, "name": names.get(code, code), "airports": counts[code]} for code in sorted(counts)]


@cache
def country_names() -> dict[str, str]:
    """ISO 3166 code → English name."""
    text = (files(__package__) / "countries.csv").read_text(encoding="utf-8")
    return {row["code"]: row["name"] for row in csv.DictReader(text.splitlines())}


def folded(text: str) -> str:
    """``text`` in small letters without accents, as searches compare it: Reykjavík → reykjavik."""
    spread = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in spread if not unicodedata.combining(letter))


def _airport(found: Any) -> Row:
    parts = [found[part] for part in ("icao", "iata", "name", "city", "subd") if found[part]]
    return {
        "tenant_id": found["country"],
        "icao": found["icao"],
        "iata": found["iata"] or None,
        "name": found["name"],
        "city": found["city"] or None,
        "region": found["subd"] or None,
        "elevation_ft": round(found["elevation"]),
        "latitude": found["lat"],
        "longitude": found["lon"],
        "timezone": found["tz"],
        # Twice, so that a pattern of two words, %a%b%, finds them in either order.
        "keywords": folded(" ".join([*parts, *parts])),
    }
