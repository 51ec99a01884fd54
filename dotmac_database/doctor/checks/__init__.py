"""The checks. Importing a module registers its checks; the order of the imports is the order in which they run."""

from ..registry import registered

from . import tenants  # isort: skip
from . import drift, enums, schema  # isort: skip
from . import indexes, reads  # isort: skip
from . import activity, sequences, server, storage  # isort: skip
from . import sqlite  # isort: skip

CHECKS = registered()
"""All checks, in the order in which they run."""

__all__ = [
    "CHECKS",
    "activity",
    "drift",
    "enums",
    "indexes",
    "reads",
    "schema",
    "sequences",
    "server",
    "sqlite",
    "storage",
    "tenants",
]
