"""What the toolkit itself sends beside the statements that are about a class's rows.

A guarded session refuses tables that no mapped class's metadata has, and functions that change settings. The toolkit's
own statements on them know whose rows they touch, and say so here.
"""

from __future__ import annotations

from sqlalchemy.sql.selectable import TableClause

OWN = "dotmac_own"
"""The execution option of a statement of the toolkit's own, which a guarded session sends as it is."""


class OwnTable(TableClause):
    """A table that the toolkit keeps beside a class's, and reads only for rows that are confined by themselves."""

    inherit_cache = True
