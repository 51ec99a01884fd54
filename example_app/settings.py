"""The settings of the example, from environment variables."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


def data_folder() -> Path:
    """The folder of the databases that the example creates: ``EXAMPLE_DATA``, or ``.example-data``."""
    return Path(os.environ.get("EXAMPLE_DATA") or ".example-data").absolute()


def sqlite_url() -> str:
    """The URL of the example's own SQLite file."""
    return f"sqlite:///{data_folder() / 'airports.db'}"


def prepare(folder: Path) -> Path:
    """Create ``folder`` if it does not exist, with a ``.gitignore`` that hides it from Git; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Settings:
    """The URL of the database (PostgreSQL or SQLite), and the key that signs cursors.

    If ``cursor_key`` is None, cursors have a checksum and no signature.
    """

    database_url: str = field(default_factory=lambda: os.environ.get("DATABASE_URL") or sqlite_url())
    cursor_key: str | None = field(default_factory=lambda: os.environ.get("CURSOR_KEY"), repr=False)
