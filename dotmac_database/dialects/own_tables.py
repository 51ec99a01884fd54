"""The names of the tables that the toolkit makes for itself, so that no comparison takes them for forgotten ones."""

from __future__ import annotations

from .settings import SETTINGS_TABLE

IDEMPOTENCY_TABLE = "dotmac_idempotency_keys"
TRANSFERS_TABLE = "dotmac_transfers"

OWN_TABLES = frozenset((SETTINGS_TABLE, IDEMPOTENCY_TABLE, TRANSFERS_TABLE))
"""Tables that need not be in the app's metadata. Those of histories and of the outbox are in it."""
