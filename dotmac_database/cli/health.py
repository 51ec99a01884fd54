"""``dotmac-db health``: whether the database works."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import typer

from ..errors import DatabaseUnavailableError, MisuseError
from ..health import DatabaseHealthChecker, HealthCheckResult, HealthStatus
from .output import ExitCode, JsonOption, block, show, table
from .target import AppOption, Target, UrlOption, open_target

_CODES = {
    HealthStatus.HEALTHY: ExitCode.OK,
    HealthStatus.DEGRADED: ExitCode.FINDINGS,
    HealthStatus.UNHEALTHY: ExitCode.UNREACHABLE,
    HealthStatus.UNKNOWN: ExitCode.REFUSED,
}


def health(
    address: Annotated[str | None, typer.Argument(metavar="[URL]", help="The database.", show_default=False)] = None,
    app: AppOption = None,
    url: UrlOption = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="The most seconds to wait for an answer.")] = 15.0,
    as_json: JsonOption = False,
) -> None:
    """Check whether the database answers, and the state of its connections, locks, replication and storage.

    Exit codes: 0 healthy; 1 degraded: it answers, and something needs attention; 3 unhealthy: it can't be reached, or
    refuses work; 4 unknown: the check itself failed.
    """
    if address and url:
        raise MisuseError("Name the database once: URL or --url, not both.", field="--url")
    with open_target(app, address or url) as target:
        result = _check(target, timeout)
    parts: list[object] = [f"{result.status.value}: {result.message} ({result.duration_ms:.1f} ms)"]
    if result.details:
        parts += [table(("detail", "value"), _flat(result.details)), *_blocks(result.details)]
    show(result.as_dict(), *parts, as_json=as_json)
    raise typer.Exit(_CODES[result.status])


def _check(target: Target, timeout: float) -> HealthCheckResult:
    try:
        engine = target.database.engine
    except DatabaseUnavailableError as error:
        return HealthCheckResult(HealthStatus.UNHEALTHY, str(error), error=f"{type(error).__name__}: {error}")
    return DatabaseHealthChecker(timeout / 3, timeout * 2 / 3, security=target.rls).check_health(engine)


def _flat(details: object, path: str = "") -> Iterator[tuple[str, object]]:
    """The values of nested dicts, each with its path. Of lists of dicts, which `_blocks` shows, it is the length."""
    if isinstance(details, dict):
        for name, value in details.items():
            yield from _flat(value, f"{path}.{name}" if path else str(name))
    elif isinstance(details, list) and details and isinstance(details[0], dict):
        yield path, len(details)
    else:
        yield path, ("none" if details in (None, [], ()) else details)


def _blocks(details: Mapping[str, object]) -> Iterator[str]:
    """The members of the lists of dicts: findings, and slow statements."""
    for name, value in details.items():
        for each in value if isinstance(value, list) else ():
            if isinstance(each, dict):
                texts = {key: str(text) for key, text in each.items()}
                yield block(texts.pop("object", name), texts)
