"""A result as a page for people. It has no script, and loads nothing; it can be read on a phone, dark and light."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from html import escape

from fastapi import Response

from dotmac_database import HealthCheckResult

from ..accepting import HTML, VARY
from ..aliases import JsonObject
from ..answers import header
from .history import HealthHistory
from .plots import plots
from .results import NO_STORE, PUBLIC
from .style import STYLE

REFRESH = 10
"""After how many seconds the page loads itself again, if its URL says nothing else."""

_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
_HEADERS = {
    **NO_STORE,
    **VARY,
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def with_page(responses: dict[int | str, JsonObject]) -> dict[int | str, JsonObject]:
    """The OpenAPI descriptions of JSON responses, completed for responses that can also be pages."""
    completed = deepcopy(responses)
    for response in completed.values():
        response["content"][HTML] = {"schema": {"type": "string"}}
        response["headers"]["Vary"] = header("The response depends on the Accept header.")
    return completed


def page_response(result: HealthCheckResult, history: HealthHistory | None, refresh: int) -> Response:
    """The page, with the status of the JSON response. It has details only with a ``history``.

    ``refresh`` is the number of seconds after which it loads itself again; 0: never.
    """
    body = "".join(_page(result, history, refresh))
    return Response(body, 200 if result.works else 503, _HEADERS, HTML)


def _page(result: HealthCheckResult, history: HealthHistory | None, refresh: int) -> Iterator[str]:
    status = result.status.value
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    if refresh:
        yield f'<meta http-equiv="refresh" content="{refresh}">'
    yield f"<title>Database: {status}</title><style>{STYLE}</style></head>"
    yield f'<body><main data-status="{status}"><h1>Database <strong>{status}</strong></h1>'
    message = PUBLIC[result.status] if history is None else result.message
    yield f'<p class="message">{escape(message[:1].upper() + message[1:])}</p>'
    if history is not None:
        yield from _details(result, history)
    yield f"<footer>{_refreshing(refresh)}</footer></main></body></html>"


def _details(result: HealthCheckResult, history: HealthHistory) -> Iterator[str]:
    if result.error is not None:
        yield f'<p class="error">{escape(result.error)}</p>'
    yield from plots(result, history)
    yield "<section><h2>Details</h2><dl>"
    rows = {"checked at": f"{result.timestamp:%Y-%m-%d %H:%M:%S} UTC", "duration": f"{result.duration_ms:.1f} ms"}
    for name, value in (*rows.items(), *_rows(result.details)):
        yield f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
    yield "</dl></section>"


def _rows(details: Mapping[str, object], before: str = "") -> Iterator[tuple[str, str]]:
    """The details as names and values; the names of nested details are joined. Lists stay JSON."""
    for name, value in details.items():
        label, unit = _without_unit(name)
        label = f"{before}{label.replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _rows(value, f"{label} · ")
        elif isinstance(value, (list, tuple)):
            yield label, json.dumps(value, default=str) if value else "none"
        elif unit == "bytes" and isinstance(value, int):
            yield label, f"{value / 1e6:,.1f} MB"
        else:
            yield label, "unknown" if value is None else f"{value} {unit}".rstrip()


def _without_unit(name: str) -> tuple[str, str]:
    """The name of a detail without its unit, and the unit; empty if the name has none."""
    label, _, unit = name.rpartition("_")
    return (label, unit) if label and unit in ("ms", "s", "bytes") else (name, "")


def _refreshing(refresh: int) -> str:
    if refresh:
        return f'This page loads itself again every {refresh} s. <a href="?refresh=0">Stop</a>'
    return (
        f'This page stays as it is. <a href="?refresh=0">Load again</a> <a href="?refresh={REFRESH}">Keep it fresh</a>'
    )
