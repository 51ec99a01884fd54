"""``python -m example_app``: fill the database if it is empty, then serve the page."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import make_url

from dotmac_database import DatabaseError, DatabaseHealthChecker, DatabaseUnavailableError, create_database

from . import postgres as own_postgres
from .app import create_app
from .loading import Loaded, load
from .server import address_of, listen, open_browser, serve
from .settings import Settings, data_folder, prepare, sqlite_url

console = Console()


def main(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes any free port.", min=0, max=65535)] = 8000,
    database_url: Annotated[
        str | None,
        typer.Option(
            envvar="DATABASE_URL", help="PostgreSQL or SQLite.", show_default="an SQLite file in .example-data"
        ),
    ] = None,
    postgres: Annotated[
        bool, typer.Option("--postgres", help="Start a PostgreSQL server for the example; nothing has to be installed.")
    ] = False,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    load_only: Annotated[bool, typer.Option("--load-only", help="Fill the database, then exit.")] = False,
) -> None:
    """Serve the airports of the world, one tenant for each country, with the DotMac Database Toolkit."""
    if postgres and database_url:
        raise typer.BadParameter("Either --postgres or --database-url (DATABASE_URL), not both.")
    listener = None if load_only else _listen(host, port)
    try:
        settings = Settings(database_url=_database_url(database_url, postgres=postgres))
        _report(_fill(settings.database_url))
        if listener is not None:
            _serve(settings, listener, browser=browser)
    except DatabaseError as error:
        console.print(f"[bold red]The database does not work:[/] {error}", highlight=False)
        raise typer.Exit(1) from error


def _database_url(url: str | None, *, postgres: bool) -> str:
    if url:
        return url
    folder = prepare(data_folder())
    if not postgres:
        return sqlite_url()
    with console.status("Starting PostgreSQL …"):
        return own_postgres.start(folder / "postgresql")


def _fill(url: str) -> Loaded:
    database = create_database(url)
    try:
        # Loading retries transient failures for seconds. If the database does not respond at all, report that at once.
        result = DatabaseHealthChecker().check_connectivity(database.engine)
        if not result.works:
            raise DatabaseUnavailableError(result.message)
        with _progress() as progress:
            return load(database, progress)
    finally:
        database.dispose()


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A function that shows the progress, with a bar for each table."""
    columns: tuple[Any, ...] = (TextColumn("Loading {task.description:<11}"), BarColumn(), MofNCompleteColumn())
    bars, tasks = Progress(*columns, TimeElapsedColumn(), console=console), dict[str, Any]()

    def progress(table: str, done: int, total: int) -> None:
        if table not in tasks:
            bars.start()
            tasks[table] = bars.add_task(table, total=total)
        bars.update(tasks[table], completed=done)

    try:
        yield progress
    finally:
        bars.stop()


def _report(loaded: Loaded) -> None:
    if loaded.rows:
        console.print(f"{loaded.rows:,} rows loaded in {loaded.seconds:.1f} s.")
    else:
        console.print("The data are there already.")


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        console.print(f"[bold red]Can't listen on {host}:{port}:[/] {error.strerror}. Choose another --port.")
        raise typer.Exit(1) from error


def _serve(settings: Settings, listener: socket.socket, *, browser: bool) -> None:
    address = address_of(listener)

    def ready() -> None:
        database = make_url(settings.database_url).render_as_string()
        console.print(f"\n  The page      [bold cyan]{address}[/]", highlight=False)
        console.print(f"  The API       {address}docs", highlight=False)
        console.print(f"  The database  {database}", highlight=False, soft_wrap=True)
        console.print("\nPress Ctrl+C to stop.")
        if browser:
            open_browser(address)

    serve(create_app(settings), listener, ready)


cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
cli.command()(main)

if __name__ == "__main__":
    cli(prog_name="python -m example_app")
