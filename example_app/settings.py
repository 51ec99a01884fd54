"""Where the application runs, and on which database."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

DATA = Path(os.environ.get("DOTMAC_EXAMPLE_DATA", Path.home() / ".local" / "share" / "dotmac-example"))


def default_url() -> str:
    """``DATABASE_URL``, else an SQLite file in the user's data folder."""
    given = os.environ.get("DATABASE_URL")
    if given:
        return given
    DATA.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{DATA / 'airports.db'}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The database's URL, and the address to serve at."""

    database_url: str
    host: str = "127.0.0.1"
    port: int = 8000
