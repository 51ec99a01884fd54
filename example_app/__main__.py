"""``python -m example_app``: load the data once, then serve the page."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dotmac_database import DatabaseError, create_database

from .app import create_app
from .data import is_loaded, load
from .models import Base
from .settings import DATA, Settings, default_url

console = Console()


def prepare(url: str) -> int:
    """Create the tables and load the data, where that has not been done; gives the number of airports loaded."""
    database = create_database(url)
    try:
        Base.metadata.create_all(database.engine)
        with database.sessions() as session:
            if is_loaded(session):
                return 0
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            with Progress(*columns, console=console) as bar:
                task = bar.add_task("Loading the world's airports", total=None)
                return load(session, lambda done, total: bar.update(task, completed=done, total=total))
    finally:
        database.dispose()


def main(
    host: Annotated[str, typer.Option(help="The address to serve at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to serve at.")] = 8000,
    database_url: Annotated[
        str | None, typer.Option(envvar="DATABASE_URL", help="PostgreSQL or SQLite; an SQLite file unless given.")
    ] = None,
    postgres: Annotated[bool, typer.Option("--postgres", help="Run on a PostgreSQL that comes along.")] = False,
    load_only: Annotated[bool, typer.Option("--load-only", help="Load the data, and stop.")] = False,
) -> None:
    """Airport inspections: a multi-tenant application on the world's real airports."""
    if postgres:
        from .postgres import start

        url = start(Path(DATA) / "postgres")
    else:
        url = database_url or default_url()
    started = time.perf_counter()
    try:
        loaded = prepare(url)
    except DatabaseError as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(1) from error
    if loaded:
        console.print(f"{loaded:,} airports loaded in {time.perf_counter() - started:.1f} s.")
    if load_only:
        return
    settings = Settings(database_url=url, host=host, port=port)
    console.print(f"The page is at [bold]http://{host}:{port}/[/bold], the API's documentation at /docs.")
    uvicorn.run(create_app(settings), host=host, port=port, log_level="warning")


if __name__ == "__main__":
    typer.run(main)
