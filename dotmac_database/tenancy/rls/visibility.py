"""Whether policies hide rows from the role of a connection, which would make a report or an export incomplete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Row, Table, text

from ...dialects.features import has_policies
from ...errors import PermissionDeniedError
from .policies import POLICY, quoted
from .signature import ALL_TENANTS_SETTING, SETTING

_RELATIONS = text("""
SELECT named.name, c.oid, row_security_active(c.oid) AS is_ruled, has_table_privilege(c.oid, 'SELECT') AS is_readable
FROM unnest(CAST(:names AS text[])) AS named (name) JOIN pg_class c ON c.oid = to_regclass(named.name)
""")
_POLICIES = text("""
SELECT p.polrelid AS oid, p.polname AS name, p.polpermissive AS is_permissive,
  pg_get_expr(p.polqual, p.polrelid) AS condition
FROM pg_policy p
WHERE p.polrelid = ANY (CAST(:oids AS oid[])) AND p.polcmd IN ('*', 'r') AND (0 = ANY (p.polroles) OR EXISTS (
  SELECT FROM unnest(p.polroles) AS role (oid) WHERE role.oid <> 0 AND pg_has_role(role.oid, 'USAGE')))
""")


class _Hidden(NamedTuple):
    """A table whose rows the role does not see. ``by_policy`` is False if the role may not read the table at all."""

    table: Table
    by_policy: bool


def check_visible(connection: Connection, tables: Sequence[Table], needs: str) -> None:
    """Raise `PermissionDeniedError` unless the connection's role sees all rows of ``tables``. At most six statements.

    Policies of the toolkit hide nothing while the transaction's setting for all tenants is on, which this function does
    not set (see `announce_tenant`); with signed settings, it must have been signed. If the transaction has a tenant, it
    is enough that this tenant's rows are seen. A policy of any other kind is taken to hide rows.

    ``needs`` says for the message what a `RowLevelSecurity` needs, so that such a policy shows the rows.
    """
    hidden = _hidden_tables(connection, tables)
    if not hidden:
        return
    quote = connection.dialect.identifier_preparer.quote
    role = quote(str(connection.exec_driver_sql("SELECT current_user").scalar_one()))
    unreadable = ", ".join(sorted(each.table.fullname for each in hidden if not each.by_policy))
    if unreadable:
        raise PermissionDeniedError(f"The role {role} may not read {unreadable}: grant it SELECT, or use another role.")
    names = ", ".join(sorted(each.table.fullname for each in hidden))
    raise PermissionDeniedError(
        f"Row-level security hides rows of {names} from the role {role}: use a role with BYPASSRLS, or a "
        f"RowLevelSecurity that has {needs}."
    )


def _hidden_tables(connection: Connection, tables: Sequence[Table]) -> list[_Hidden]:
    if not has_policies(connection.dialect.name) or not tables:
        return []
    by_name = {quoted(table): table for table in tables}
    relations = connection.execute(_RELATIONS, {"names": list(by_name)}).all()
    ruled = [row for row in relations if row.is_ruled]
    policies = connection.execute(_POLICIES, {"oids": [row.oid for row in ruled]}).all() if ruled else []
    accepts = _Acceptance(connection)
    result = [_Hidden(by_name[row.name], by_policy=False) for row in relations if not row.is_readable]
    for row in ruled:
        own = [each for each in policies if each.oid == row.oid]
        shows = any(
            accepts.shows_all(each.condition) or accepts.shows_tenant(each) for each in own if each.is_permissive
        )
        shows = shows and all(accepts.shows_all(each.condition) for each in own if not each.is_permissive)
        if row.is_readable and not shows:
            result.append(_Hidden(by_name[row.name], by_policy=True))
    return result


class _Acceptance:
    """Whether the conditions of the toolkit's policies accept the settings of the transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[str, bool] = {}

    def shows_all(self, condition: str | None) -> bool:
        """Whether the condition is true for all rows."""
        return condition in (None, "true") or any(
            condition.endswith(f" OR {written})") and self._is_set(setting) for written, setting in _ACROSS.items()
        )

    def shows_tenant(self, policy: Row[tuple[object, ...]]) -> bool:
        """Whether the policy is the toolkit's, and the transaction has a tenant, whose rows it then shows."""
        return policy.name == POLICY and any(
            written in policy.condition and self._is_set(setting) for written, setting in _TENANT.items()
        )

    def _is_set(self, setting: str) -> bool:
        if setting not in self._known:
            value = self._connection.execute(text(f"SELECT {setting}")).scalar_one()
            self._known[setting] = value not in (None, "", False)
        return self._known[setting]


_ACROSS = {
    f"(current_setting('{ALL_TENANTS_SETTING}'::text, true) = 'on'::text)": (
        f"current_setting('{ALL_TENANTS_SETTING}', true)"
    ),
    f"( SELECT {ALL_TENANTS_SETTING}() AS all_tenants)": f"{ALL_TENANTS_SETTING}()",
}
_TENANT = {f"current_setting('{SETTING}'": f"current_setting('{SETTING}', true)", f"{SETTING}()": f"{SETTING}()"}
"""What PostgreSQL shows of a condition that reads a setting, plainly or by its signature; and how to read it."""
