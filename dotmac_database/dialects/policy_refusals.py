"""Which policy of row-level security refused a row: that of the tenant, or one of the rights within the tenant.

PostgreSQL first checks a row against the permissive policies, of which that of the tenant is one, and names none of
them. Only for a row that they admit does it check the restrictive policies, and it names the one that refuses the row
(``add_with_check_options`` in src/backend/rewrite/rowsecurity.c). So a row of another tenant is never refused by the
name of a policy of rights. Of several rows, the first one that is refused is reported.
"""

from __future__ import annotations

import re

POLICIES_OF_RIGHTS = {
    "SELECT": "dotmac_read",
    "INSERT": "dotmac_create",
    "UPDATE": "dotmac_update",
    "DELETE": "dotmac_delete",
}
"""The names of the restrictive policies of rights by command."""

_REFUSALS = {
    POLICIES_OF_RIGHTS["SELECT"]: "to write a row that the actor may not read",
    POLICIES_OF_RIGHTS["INSERT"]: "to create this row",
    POLICIES_OF_RIGHTS["UPDATE"]: "to update this row",
    POLICIES_OF_RIGHTS["DELETE"]: "to delete this row",
}

_CHECK = "ExecWithCheckOptions"
"""The function of PostgreSQL that refuses a row by a policy. Its name is not translated, and RAISE can't give it."""

_QUOTED = re.compile(r"""["«»„“”]\s*([^"«»„“”]+?)\s*["«»„“”]""")
"""A name in the message, in the quotation marks of any of the server's languages."""


def refused_right(cause: object) -> str | None:
    """What a policy of rights refused, as words after "does not allow", if it is sure that one refused a row.

    ``cause`` is an error of psycopg or asyncpg with SQLSTATE 42501. None: the policy of the tenant or of the user
    refused the row, or a privilege is missing, or it is unknown.

    The server names the policy and the table only in the message, whose language is that of ``lc_messages``. In each
    language, the message has two names in quotation marks if a restrictive policy refused the row, and otherwise only
    that of the table.
    """
    diagnostics = getattr(cause, "diag", None)  # psycopg has the fields in diag, asyncpg on the error
    if diagnostics is None:
        function, message = getattr(cause, "server_source_function", None), getattr(cause, "message", None)
    else:
        function, message = diagnostics.source_function, diagnostics.message_primary
    if function != _CHECK or not message:
        return None
    names = _QUOTED.findall(message)
    policies = [name for name in names if name in _REFUSALS]
    return _REFUSALS[policies[0]] if len(names) == 2 and len(policies) == 1 else None
