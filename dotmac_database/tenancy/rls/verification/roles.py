"""The roles whose rights a connection has: its own role, roles that it inherits from, and roles that it can become."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from .findings import Finding

_ATTRIBUTES = {
    "bypasses": ("BYPASSRLS", "bypasses every policy"),
    "creates": ("CREATEROLE", "can give itself, or a role that it creates, rights that it does not have"),
    "replicates": ("REPLICATION", "can read every row from the write-ahead log, which no policy covers"),
}
_PREDEFINED = {
    "pg_read_all_data": "it reads everything that no policy covers: materialized views, and tables without a policy",
    "pg_write_all_data": "it writes to every table",
    "pg_execute_server_program": "it runs programs as the server's account, and can thereby act as a superuser",
    "pg_read_server_files": "it reads the server's files, including the files of the tables",
    "pg_write_server_files": "it writes to the server's files, and thereby becomes a superuser",
}


@dataclass(frozen=True, slots=True)
class Role:
    """A role whose rights the connection has or can get.

    ``own``: it is the current role or the role that logged in. ``becomes``: the connection can become it by SET ROLE,
    or grant itself the right to do so; otherwise it only inherits rights. ``through`` is the member, as a quoted name,
    through which the connection gets its rights; None for the own roles.
    """

    oid: int
    name: str
    quoted: str
    superuser: bool
    bypasses: bool
    creates: bool
    replicates: bool
    own: bool
    current: bool
    becomes: bool
    through: str | None

    @property
    def revoke_membership(self) -> str:
        """The statement that takes the role's rights away from the connection."""
        return f"REVOKE {self.quoted} FROM {self.through}"


@dataclass(frozen=True, slots=True)
class ReachableRoles:
    """All roles whose rights the connection has or can get."""

    roles: Sequence[Role]

    @property
    def oids(self) -> list[int]:
        """The oids of the roles whose rights are inspected.

        Superusers are omitted, since they have all rights, unless the connection's current role is a superuser.
        """
        return [role.oid for role in self.roles if role.current or not role.superuser]

    @property
    def bypasses_policies(self) -> bool:
        """Whether the connection's current role bypasses all policies."""
        return any(role.current and (role.superuser or role.bypasses) for role in self.roles)

    @property
    def superuser(self) -> bool:
        """Whether the connection's current role is a superuser."""
        return any(role.current and role.superuser for role in self.roles)

    @property
    def current(self) -> Role:
        """The connection's current role."""
        return next(role for role in self.roles if role.current)

    def get(self, oid: int) -> Role | None:
        """The role with this oid; None: the connection can't get its rights."""
        return next((role for role in self.roles if role.oid == oid), None)

    def revoke(self, name: str, grantees: Sequence[str] = (), privilege: str = "ALL") -> str:
        """The REVOKE of rights on an object from PUBLIC, the current role, and other ``grantees``."""
        others = sorted(set(grantees) - {"PUBLIC", self.current.quoted})
        return f"REVOKE {privilege} ON {name} FROM {', '.join(('PUBLIC', self.current.quoted, *others))}"


def reach_of(connection: Connection) -> ReachableRoles:
    """The roles whose rights the connection has or can get. One statement."""
    return ReachableRoles([Role(**row) for row in connection.execute(text(_REACH)).mappings()])


def role_findings(reach: ReachableRoles) -> Iterator[Finding]:
    """The findings about the attributes and memberships of the roles."""
    for role in reach.roles:
        if role.own:
            yield from _own(role)
        elif not reach.superuser:
            yield from _reached(role)


def _own(role: Role) -> Iterator[Finding]:
    name = f"role {role.name}"
    if role.superuser:
        yield Finding(name, "a superuser passes every policy", "connect as an ordinary role")
        return
    for field, (attribute, risk) in _ATTRIBUTES.items():
        if getattr(role, field):
            yield Finding(name, f"{attribute}: it {risk}", f"ALTER ROLE {role.quoted} NO{attribute}")


def _reached(role: Role) -> Iterator[Finding]:
    name = f"role {(role.through or '').strip(chr(34))}"
    remedy = role.revoke_membership
    if role.name in _PREDEFINED:
        yield Finding(name, f"it is a member of {role.name}: {_PREDEFINED[role.name]}", remedy)
    if not role.becomes:
        return
    if role.superuser:
        yield Finding(name, f"it may become {role.name}, a superuser, who bypasses every policy", remedy)
        return
    for field, (attribute, risk) in _ATTRIBUTES.items():
        if getattr(role, field):
            yield Finding(name, f"it may become {role.name}, which has {attribute} and {risk}", remedy)


# A membership has the columns inherit_option and set_option since PostgreSQL 16. On older servers both count as true.
_REACH = """
WITH RECURSIVE memberships AS (
  SELECT m.member, m.roleid, coalesce((to_jsonb(m) ->> 'inherit_option')::bool, true) AS inherits,
    coalesce((to_jsonb(m) ->> 'set_option')::bool, true) AS sets, m.admin_option AS administers
  FROM pg_auth_members m
  UNION ALL
  SELECT d.datdba, r.oid, true, true, false FROM pg_database d, pg_roles r
  WHERE d.datname = current_database() AND r.rolname = 'pg_database_owner'
), reached AS (
  SELECT r.oid AS role, NULL::oid AS through, true AS becomes
  FROM pg_roles r WHERE r.rolname IN (current_user, session_user)
  UNION
  SELECT m.roleid, m.member, (reached.becomes AND m.sets) OR m.administers
  FROM reached JOIN memberships m ON m.member = reached.role JOIN pg_roles r ON r.oid = reached.role
  WHERE NOT r.rolsuper AND (m.inherits OR m.administers OR (reached.becomes AND m.sets))
)
SELECT r.oid::int8 AS oid, r.rolname::text AS name, quote_ident(r.rolname) AS quoted, r.rolsuper AS superuser,
  r.rolbypassrls AS bypasses, r.rolcreaterole AS creates, r.rolreplication AS replicates,
  r.rolname IN (current_user, session_user) AS own, r.rolname = current_user AS current,
  bool_or(reached.becomes) AS becomes, min(quote_ident(m.rolname)) AS through
FROM reached JOIN pg_roles r ON r.oid = reached.role LEFT JOIN pg_roles m ON m.oid = reached.through
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9 ORDER BY own DESC, name
"""
