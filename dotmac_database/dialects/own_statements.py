"""Marks for the toolkit's own statements, which a guarded session would refuse otherwise.

A guarded session refuses tables that are not in the metadata of a mapped class, and functions that change settings. The
toolkit uses these marks only for statements that can't reach another tenant's rows.
"""

from __future__ import annotations

from sqlalchemy.sql.selectable import TableClause

OWN = "dotmac_own"
"""The execution option of a statement that a guarded session sends unchanged."""

OPENING = "dotmac_opening"
"""The execution option of a statement that opens a transaction, such as setting the tenant.

If the next statement has a stale plan, this statement is sent again before it.
"""


class OwnTable(TableClause):
    """A table that the toolkit adds for a class, such as an FTS5 table.

    It is used only in conditions that choose among rows that are already confined to the tenant.
    """

    inherit_cache = True
