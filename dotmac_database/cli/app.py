"""The typer app of ``dotmac-db``: its commands, and what becomes of their errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from traceback import format_exception
from typing import Annotated

import typer
from typer.core import TyperGroup

from .. import __version__
from .doctor import doctor
from .health import health
from .output import ExitCode, failure, note
from .queries import advise, explain
from .rls import rls
from .transfers import tenants


class Commands(TyperGroup):
    """A group whose commands end with one line and an exit code instead of a traceback."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]  # click's class is private in typer
        """Run the command. Raises `typer.Exit` in place of the errors of the toolkit, the database and the app."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            note("Interrupted.")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except Exception as error:
            if _is_typers(error):
                raise
            if ctx.params.get("traceback"):
                sys.stderr.write("".join(format_exception(error)))
            code, line = failure(error)
            note(line, style="bold red")
            raise typer.Exit(code) from None


def _is_typers(error: Exception) -> bool:
    """Whether typer ends the process for this error: by its exit code, or since nothing reads the output any more."""
    return isinstance(error, (typer.Abort, BrokenPipeError)) or hasattr(error, "exit_code")


app = typer.Typer(
    name="dotmac-db",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help, which need not import rich
    epilog=(
        "Exit codes: 0 all is well; 1 findings, or a failed check; 2 bad use; 3 the database can't be reached; "
        "4 refused or declined; 130 interrupted."
    ),
)


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"dotmac-db {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    traceback: Annotated[bool, typer.Option("--traceback", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version of the toolkit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Look after the databases of the DotMac Database Toolkit."""


app.command(short_help="Whether the database works.")(health)
app.command(short_help="What is wrong in the database, the models or a migration.")(doctor)
app.command(short_help="The plan of a read.")(explain)
app.command(short_help="The indexes that a read lacks.")(advise)
app.add_typer(rls, name="rls", short_help="Row-level security.")
app.add_typer(tenants, name="tenants", short_help="The tenants and their rows.")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. ``arguments`` None: those of the process."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="dotmac-db")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    return ExitCode.OK
