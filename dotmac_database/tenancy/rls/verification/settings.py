"""Settings that the policies read, and that have a value before a session has set its tenant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, text

from .findings import Finding
from .plans import Plan
from .roles import ReachableRoles

_SECURITY = "row_security"


def setting_findings(connection: Connection, plan: Plan, reach: ReachableRoles, *, fresh: bool) -> Iterator[Finding]:
    """The settings that have a value in each new session, by roles, the database, the server or the connection.

    ``fresh``: the transaction has just begun. If a setting then has a value that new sessions do not have, an earlier
    transaction on this connection has left the value by a SET without LOCAL. The function sends three statements, and
    one for each setting. The latter reset the settings, so call the function in a savepoint.
    """
    names = [*plan.settings, _SECURITY]
    stored = connection.execute(text(_STORED), {"names": names, "roles": reach.oids}).mappings().all()
    for row in stored:
        yield _stored(dict(row))
    before = _values(connection, names)
    for name in names:
        connection.execute(text(f"RESET {name}"))
    after = _values(connection, names)
    for name in names:
        if _affects(name, after[name]) and name not in {row["name"] for row in stored}:
            cause = "it is set in every new session, by the server's configuration or the connection's options"
            yield Finding(f"setting {name}", _risk(name, cause), f"ALTER SYSTEM RESET {name}; SELECT pg_reload_conf()")
        elif fresh and _affects(name, before[name]) and not _affects(name, after[name]):
            cause = "an earlier SET without LOCAL left its value on the connection, where the next session gets it"
            yield Finding(f"setting {name}", _risk(name, cause), f"RESET {name}")


def _values(connection: Connection, names: Sequence[str]) -> dict[str, str | None]:
    columns = ", ".join(f"current_setting('{name}', true)" for name in names)
    values = connection.execute(text(f"SELECT {columns}")).one()
    return dict(zip(names, values, strict=True))


def _affects(name: str, value: str | None) -> bool:
    """Whether a value of a setting changes what the policies do."""
    return value == "off" if name == _SECURITY else bool(value)


def _stored(row: dict[str, str | None]) -> Finding:
    role, database, name = row["role"], row["database"], row["name"]
    if role is None:
        where, remedy = f"database {database}", f"ALTER DATABASE {database} RESET {name}"
        if database is None:
            where, remedy = "all roles", f"ALTER ROLE ALL RESET {name}"
    elif database is None:
        where, remedy = f"role {role}", f"ALTER ROLE {role} RESET {name}"
    else:
        where, remedy = f"role {role} in database {database}", f"ALTER ROLE {role} IN DATABASE {database} RESET {name}"
    return Finding(where, _risk(str(name), f"{name} is set in every new session"), remedy)


def _risk(name: str, cause: str) -> str:
    if name == _SECURITY:
        return f"{cause}: statements that the policies should filter fail instead"
    return f"{cause}: the policies read it as if the transaction had set it"


_STORED = """
SELECT quote_ident(r.rolname) AS role, quote_ident(d.datname) AS database,
  lower(split_part(o.setting, '=', 1)) AS name
FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS o (setting)
LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
WHERE (s.setrole = 0 OR s.setrole = ANY(CAST(:roles AS oid[])))
  AND (s.setdatabase = 0 OR d.datname = current_database())
  AND lower(split_part(o.setting, '=', 1)) = ANY(CAST(:names AS text[]))
  AND CASE WHEN lower(split_part(o.setting, '=', 1)) = 'row_security'
    THEN lower(split_part(o.setting, '=', 2)) IN ('off', 'false', '0', 'no')
    ELSE split_part(o.setting, '=', 2) <> '' END
ORDER BY 1 NULLS FIRST, 2 NULLS FIRST, 3
"""
