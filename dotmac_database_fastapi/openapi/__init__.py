"""Additions to an app's OpenAPI document: tenant parameters, problems, ids, and components that operations share.

They depend on the complete app: which source serves an operation, which dependency names its tenant, and whether the
exception handlers are registered. So the document is completed when ``app.openapi()`` is called, and again when the app
has changed since. It needs no running app: ``json.dumps(app.openapi())`` gives the same document before the lifespan.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..aliases import JsonObject
from ..errors import own_codes
from ..internals import after_openapi, replaced_openapi
from ..registry import described_sources
from .document import complete

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["describe"]

_COMPLETED = "dotmac_database_document"


@dataclass(frozen=True)
class _Completed:
    document: JsonObject
    original: JsonObject
    """A copy of the document as it was before it was completed."""
    state: tuple[object, ...]
    """What the additions depend on."""


def describe(app: FastAPI) -> None:
    """Have the document completed of an app that has an ``openapi`` function of its own. Calling this again is safe.

    The documents of all other apps are completed in any case.
    """
    replaced_openapi(app, _complete)


def _complete(app: FastAPI, document: JsonObject) -> None:
    """Complete a document in place, unless this is done already, and nothing has changed in the app since."""
    completed: _Completed | None = vars(app).get(_COMPLETED)
    state = (*described_sources(app), *app.exception_handlers.values(), own_codes(app))
    original = None
    if completed is not None and completed.document is document:
        if completed.state == state:
            return
        original = completed.original
        document.clear()
        document.update(deepcopy(original))
    vars(app)[_COMPLETED] = _Completed(document, original or deepcopy(document), state)
    complete(app, document)


after_openapi(_complete)
