"""The real rows: the airports of the package ``airportsdata``, and their countries."""

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
    """The columns of each `Airport` that has an ICAO code, ordered by country and name; about 28,000 rows."""
    rows = [_airport(record) for record in airportsdata.load("ICAO").values()]
    return sorted(rows, key=lambda row: (row["tenant_id"], row["name"], row["icao"]))


def country_rows() -> list[Row]:
    """The columns of each `Country` that has an airport, with the number of its airports."""
    names = country_names()
    counts = Counter(row["tenant_id"] for row in airport_rows())
    # A later version of the package may add a country. Until countries.csv has its name, its code is shown instead.
    return [{"code": code, "name": names.get(code, code), "airports": counts[code]} for code in sorted(counts)]


@cache
def country_names() -> dict[str, str]:
    """The English name of each country, by its ISO 3166 code."""
    text = (files(__package__) / "countries.csv").read_text(encoding="utf-8")
    return {row["code"]: row["name"] for row in csv.DictReader(text.splitlines())}


def folded(text: str) -> str:
    """``text`` in lower case and without accents, as in the column ``keywords``: Reykjavík → reykjavik."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def _airport(record: Any) -> Row:
    parts = [record[part] for part in ("icao", "iata", "name", "city", "subd") if record[part]]
    return {
        "tenant_id": record["country"],
        "icao": record["icao"],
        "iata": record["iata"] or None,
        "name": record["name"],
        "city": record["city"] or None,
        "region": record["subd"] or None,
        "elevation_ft": round(record["elevation"]),
        "latitude": record["lat"],
        "longitude": record["lon"],
        "timezone": record["tz"],
        # The column contains the words twice, so that the pattern %a%b% finds the words a and b in either order.
        "keywords": folded(" ".join([*parts, *parts])),
    }
