"""What an app's routes read, for tools such as the doctor, which look whether indexes serve it."""

from __future__ import annotations

from fastapi import FastAPI

from dotmac_database import DeclaredRead, read_of

from .internals import endpoints_of


def declared_reads(app: FastAPI) -> list[DeclaredRead]:
    """The reads that the lists of an app offer, each once, in the order of the routes.

    These are the lists of `list_router` and `crud_router`, and the endpoints for which `declare_read` was called.
    """
    reads = (read_of(endpoint) for endpoint in endpoints_of(app))
    return list(dict.fromkeys(each for each in reads if each is not None))
