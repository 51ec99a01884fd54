"""The settings of the example, from environment variables."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


def data_folder() -> Path:
    """Where the databases are that the example makes itself: ``EXAMPLE_DATA``, else below the current folder."""
    return Path(os.environ.get("EXAMPLE_DATA") or ".example-data").absolute()


def sqlite_url() -> str:
    """The URL of the example's own SQLite file."""
    return f"sqlite:///{data_folder() / 'airports.db'}"


def prepared(folder: Path) -> Path:
    """``folder``, made where it is not there, and kept out of version control."""
    folder.mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Settings:
    """``database_url``: PostgreSQL's or SQLite's. ``cursor_key`` signs the cursors; None: a checksum guards them."""

    database_url: str = field(default_factory=lambda: os.environ.get("DATABASE_URL") or sqlite_url())
    cursor_key: str | None = field(default_factory=lambda: os.environ.get("CURSOR_KEY"), repr=False)
