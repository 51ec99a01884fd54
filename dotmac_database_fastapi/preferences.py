"""The preferences of a request (RFC 7240)."""

from __future__ import annotations

from starlette.requests import Request

APPLIED = {"Preference-Applied": "return=minimal"}
"""The header of a response without a body because the request preferred that."""


def prefers_minimal(request: Request) -> bool:
    """Whether ``Prefer`` asks for ``return=minimal``: the response to a write then has no body.

    If the header names several values for ``return``, the first one counts (RFC 7240, section 2).
    """
    if "prefer" not in request.headers:
        return False
    for preference in ",".join(request.headers.getlist("prefer")).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "return":
            return value.strip().strip('"').lower() == "minimal"
    return False
