"""What commands show: a JSON document or tables, progress, questions, and the exit code of an error."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import IntEnum
from functools import cache
from threading import Lock, Timer
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from pydantic_core import to_jsonable_python
from sqlalchemy.exc import SQLAlchemyError

from ..dialects import translate
from ..errors import (
    CircuitOpenError,
    DatabaseError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    MisuseError,
    ValidationError,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout.")]
DryRunOption: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Show what it would do, and do nothing.")]
YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do it without a question.")]

Report: TypeAlias = Callable[[str, int, int | None], None]
"""A function of `progress`: the description of a bar, what is done, and the total (None: it is unknown)."""

_BEFORE_PROGRESS = 1.0  # seconds
_PASSWORD = re.compile(r"(?<=://)([^/\s:@]*):[^/\s]*@|(?<=password=)()[^&\s]+", re.IGNORECASE)


class ExitCode(IntEnum):
    """How a command ended.

    ``FINDINGS``: a check failed, or there are findings. ``USAGE``: an option, a name or a value is wrong.
    ``UNREACHABLE``: the database can't be reached, or did not answer in time. ``REFUSED``: the work was not done: the
    database or the toolkit refused it, it failed, or the user's answer was no. ``INTERRUPTED``: by Ctrl-C.
    """

    OK = 0
    FINDINGS = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    INTERRUPTED = 130


@cache
def _console(*, stderr: bool, terminal: bool) -> Console:
    """The console of a stream. Where nobody looks at it, lines are as long as their text."""
    from rich.console import Console

    return Console(
        stderr=stderr, highlight=False, emoji=False, soft_wrap=not terminal, width=None if terminal else 10_000
    )


def console(*, stderr: bool = False) -> Console:
    """The console of stdout or stderr, with colours only on a terminal, and never if ``NO_COLOR`` is set."""
    stream = sys.stderr if stderr else sys.stdout
    return _console(stderr=stderr, terminal=stream.isatty())


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> Table:
    """A table. Numbers are aligned to the right and have commas; None is shown as a dash."""
    from rich import box
    from rich.table import Table

    result = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    cells = [list(row) for row in rows]
    for number, column in enumerate(columns):
        numeric = bool(cells) and all(isinstance(row[number], int | float | None) for row in cells)
        result.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        result.add_row(*map(_cell, row))
    return result


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    return str(value)


def block(heading: str, lines: Mapping[str, str]) -> str:
    """A heading with a few named texts below it, for what is too long for a table. It ends with an empty line."""
    width = max(map(len, lines), default=0)
    inset = "\n" + " " * (width + 4)
    named = (f"  {name:<{width}}  {text}".replace("\n", inset) for name, text in lines.items())
    return "\n".join((heading, *named, ""))


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``1 finding`` or ``2 findings``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def size(number: int | None) -> str | None:
    """A number of bytes for people: ``1.5 MB``. None: it is not known."""
    if number is None:
        return None
    value, unit = float(number), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def show(document: object, *parts: object, as_json: bool) -> None:
    """Write the result to stdout: ``document`` as JSON, or else the ``parts``, which are tables and texts.

    Texts are written as they are, without markup. Dates, UUIDs, decimals, enums and dataclasses in ``document`` become
    JSON as Pydantic does it.
    """
    if as_json:
        sys.stdout.write(json.dumps(to_jsonable_python(document), indent=2, ensure_ascii=False) + "\n")
        return
    to = console()
    for part in parts:
        if to.is_terminal:
            to.print(part, markup=False, soft_wrap=isinstance(part, str))  # SQL can be copied from an unbroken line
            continue
        with to.capture() as captured:
            to.print(part, markup=False)
        sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def note(text: str, *, style: str | None = None) -> None:
    """Write a line to stderr. Passwords of URLs in it are hidden."""
    console(stderr=True).print(hidden(text), style=style, markup=False)


def hidden(text: str) -> str:
    """``text`` without the passwords of the URLs in it."""
    return _PASSWORD.sub(lambda match: f"{match[1]}:***@" if match[1] is not None else "***", text)


@contextmanager
def progress() -> Iterator[Report]:
    """A function that shows progress on stderr, with a bar for each description.

    The bars appear after a second, and only on a terminal. ``report("invoices", 5_000, 1_000_000)`` can be called from
    any thread, and as often as is convenient.
    """
    if not sys.stderr.isatty():
        yield lambda _description, _done, _total: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bars = Progress(*columns, console=console(stderr=True), transient=True)
    lock, tasks = Lock(), dict[str, int]()

    def report(description: str, done: int, total: int | None) -> None:
        with lock:
            if description not in tasks:
                tasks[description] = bars.add_task(description, total=total)
            bars.update(bars.task_ids[tasks[description]], completed=done, total=total)

    start = Timer(_BEFORE_PROGRESS, bars.start)
    start.daemon = True
    start.start()
    try:
        yield report
    finally:
        start.cancel()
        start.join()
        bars.stop()


def proceed(intent: str, *, dry_run: bool, yes: bool) -> bool:
    """Write to stderr what will be done, and ask whether to do it. False: this is a dry run.

    Raises `typer.Exit` if the answer is no, and `MisuseError` if nobody can answer: without ``--yes``, stdin must be a
    terminal.
    """
    note(intent)
    if dry_run:
        note("Nothing is done: this is a dry run.")
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        raise MisuseError("Nobody can answer the question whether to do it: add --yes, or --dry-run.", field="--yes")
    sys.stderr.write("Do it? [y/N] ")  # typer.confirm(err=True) writes a blank to stdout, which is for the result
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        note("Nothing is done.")
        raise typer.Exit(ExitCode.REFUSED)
    return True


def failure(error: Exception) -> tuple[ExitCode, str]:
    """The exit code of an error, and its message in one line."""
    if isinstance(error, SQLAlchemyError):
        error = translate(error)
    message = " ".join(str(error).split())
    if not isinstance(error, DatabaseError):
        return ExitCode.REFUSED, f"{type(error).__name__}: {message} (dotmac-db --traceback … shows where)"
    match error:
        case ValidationError():
            return ExitCode.USAGE, message
        case DatabaseUnavailableError() | DatabaseTimeoutError() | CircuitOpenError():
            return ExitCode.UNREACHABLE, message
        case _:
            return ExitCode.REFUSED, message
