"""Which tables have rows that policies hide from the role of a connection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Table, text

from ...dialects.features import has_policies
from .policies import quoted
from .signature import ALL_TENANTS_SETTING, SETTING

_RELATIONS = text("""
SELECT named.name, c.oid, row_security_active(c.oid) AS is_ruled, has_table_privilege(c.oid, 'SELECT') AS is_readable
FROM unnest(CAST(:names AS text[])) AS named (name) JOIN pg_class c ON c.oid = to_regclass(named.name)
""")
_POLICIES = text("""
SELECT p.polrelid AS oid, p.polpermissive AS is_permissive, pg_get_expr(p.polqual, p.polrelid) AS condition
FROM pg_policy p
WHERE p.polrelid = ANY (CAST(:oids AS oid[])) AND p.polcmd IN ('*', 'r') AND (0 = ANY (p.polroles) OR EXISTS (
  SELECT FROM unnest(p.polroles) AS role (oid) WHERE role.oid <> 0 AND pg_has_role(role.oid, 'USAGE')))
""")


class Hidden(NamedTuple):
    """A table whose rows the role does not see. ``by_policy`` is False if the role may not read the table at all."""

    table: Table
    by_policy: bool


def hidden_tables(connection: Connection, tables: Sequence[Table], *, tenant: bool = False) -> list[Hidden]:
    """The ``tables`` of which the connection's role does not see all rows. At most three statements.

    Policies of the toolkit hide nothing while the transaction's setting for all tenants is on, which this function does
    not set (see `announce_tenant`); with signed settings, they must have been signed. ``tenant``: it is enough that the
    rows of the transaction's tenant are seen. A policy of any other kind is taken to hide rows.
    """
    if not has_policies(connection.dialect.name) or not tables:
        return []
    by_name = {quoted(table): table for table in tables}
    relations = connection.execute(_RELATIONS, {"names": list(by_name)}).all()
    ruled = [row for row in relations if row.is_ruled]
    policies = connection.execute(_POLICIES, {"oids": [row.oid for row in ruled]}).all() if ruled else []
    accepts = _Acceptance(connection)
    result = [Hidden(by_name[row.name], by_policy=False) for row in relations if not row.is_readable]
    for row in ruled:
        own = [each for each in policies if each.oid == row.oid]
        permissive = [each.condition for each in own if each.is_permissive]
        restrictive = [each.condition for each in own if not each.is_permissive]
        shows = any(accepts.shows_all(each) or (tenant and accepts.shows_tenant(each)) for each in permissive)
        if row.is_readable and not (shows and all(map(accepts.shows_all, restrictive))):
            result.append(Hidden(by_name[row.name], by_policy=True))
    return result


class _Acceptance:
    """Whether the conditions of the toolkit's policies accept the settings of the transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[str, bool] = {}

    def shows_all(self, condition: str | None) -> bool:
        return condition in (None, "true") or self._accepts(condition or "", ALL_TENANTS_SETTING)

    def shows_tenant(self, condition: str | None) -> bool:
        return self._accepts(condition or "", SETTING)

    def _accepts(self, condition: str, setting: str) -> bool:
        return any(self._is_set(form) for form in _forms(condition, setting))

    def _is_set(self, form: str) -> bool:
        if form not in self._known:
            value = self._connection.execute(text(f"SELECT {form}")).scalar_one()
            self._known[form] = value not in (None, "", False)
        return self._known[form]


def _forms(condition: str, setting: str) -> Iterator[str]:
    """The ways in which the condition reads the setting: plainly, or with its signature verified."""
    if f"current_setting('{setting}'" in condition:
        yield f"current_setting('{setting}', true)"
    if f"{setting}()" in condition:
        yield f"{setting}()"
