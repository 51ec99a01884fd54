"""Row-level security: PostgreSQL's own ring.

https://www.postgresql.org/docs/current/ddl-rowsecurity.html
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, Connection, MetaData, Table, bindparam, func, literal_column, select
from sqlalchemy.types import Text

from ..dialects.own import OWN
from ..dialects.stale_plans import OPENING
from ..errors import DatabaseError, ValidationError
from .policies import ACROSS, SETTING, enable, protected_tables, quoted, remove, run_ddl
from .raw_sql import refusal
from .signature import Secret, Signer, find_signature_holes, function_statements
from .verification import Finding, Plan, find_holes

__all__ = ["ACROSS", "SETTING", "Finding", "RowLevelSecurity", "announce_tenant"]

_LOCAL: ColumnElement[bool] = literal_column("true")
_SET_TENANT = select(
    func.set_config(SETTING, bindparam("tenant", type_=Text()), _LOCAL),
    func.set_config(ACROSS, bindparam("across", type_=Text()), _LOCAL),
)


def announce_tenant(connection: Connection, tenant: str | None, across: bool, signer: Signer | None = None) -> None:
    """Name the tenant for the open transaction: SET LOCAL, so that it never travels with a pooled connection.

    One statement. With a ``signer`` the values are signed.
    """
    values = {"tenant": tenant or "", "across": "on" if across else ""}
    if signer is not None:
        settings = ((SETTING, "tenant"), (ACROSS, "across"))
        values = {name: signer.sign(setting, values[name]) if values[name] else "" for setting, name in settings}
    connection.execute(_SET_TENANT, values, execution_options={OWN: True, OPENING: True})


class RowLevelSecurity:
    """Policies for the tenants' tables of ``metadata``. All methods are sync; use `AsyncConnection.run_sync`.

    ``all_tenants``: the policies let sessions across while `unscoped` is open, by a second setting of the
    transaction. False: only a role that has a policy of its own, or BYPASSRLS, gets across; to all others an
    unscoped session shows no row. It also spares the planner an OR.

    ``secret``, of at least 16 bytes, has the settings signed, so that raw SQL can't name another tenant: the policies
    believe a setting only with an HMAC that is checked inside of the database. Raw SQL of any kind is then let through
    to the policies. It needs `install_secret`, and an application's role that does not own the tables. One secret
    serves one database. Of several the first signs and all are accepted (``secret=(new, old)``), for a change of
    secrets. Without one, anybody who can send any SQL can make the setting what they like; guarded sessions therefore
    refuse raw SQL whose structure is not known to be harmless.

    ``harmless_functions`` are names of functions of your own, or of an extension, that raw SQL may call, with their
    schema where it is written: they neither run SQL that is given to them nor change settings. With a secret, too: a
    connection that called another function is replaced before it serves another session.
    """

    def __init__(
        self,
        metadata: MetaData,
        *,
        all_tenants: bool = True,
        secret: Secret = None,
        harmless_functions: Collection[str] = (),
    ) -> None:
        self.metadata = metadata
        self.harmless_functions = frozenset(harmless_functions)
        self.all_tenants = all_tenants
        self.signer = None if secret is None else Signer(secret)

    def refusal(self, sql: str) -> str | None:
        """What in raw SQL is not known to leave the settings alone, in words; None: all is, or settings are signed."""
        return None if self.signer is not None else refusal(sql, self.harmless_functions)

    def tables(self) -> list[tuple[Table, str | None]]:
        """The tenants' tables, parents first, and the name of each one's tenant column.

        None: a joined child's table, or one between many and many, whose rows belong to the tenant of those that they
        refer to.
        """
        found = protected_tables(self.metadata)
        return [(table, None if column is None else column.name) for table, column in found.items()]

    def create_statements(self) -> list[str]:
        """The DDL that turns the policies on: ENABLE and FORCE, USING and WITH CHECK.

        With a secret also that of the functions that check signatures, in the schema ``dotmac``. The secret is not in
        it: migrations may hold these statements.
        """
        signed = self.signer is not None
        policies = [
            statement
            for table, column in self.tables()
            for statement in enable(table, column, all_tenants=self.all_tenants, signed=signed)
        ]
        return [*function_statements(), *policies] if signed else policies

    def drop_statements(self) -> list[str]:
        """The DDL that turns them off again. The schema ``dotmac`` stays: other metadata may use its functions."""
        return [statement for table, _ in reversed(self.tables()) for statement in remove(quoted(table))]

    def apply(self, connection: Connection) -> None:
        """Run `create_statements`, and `install_secret` if there is one, in the connection's transaction; no commit.

        Repeatable. The connection's role becomes the owner of the functions.
        """
        _postgresql(connection)
        run_ddl(connection.execute, self.create_statements())
        if self.signer is not None:
            self.signer.install(connection)

    def install_secret(self, connection: Connection) -> None:
        """Put the key of each secret, and no other, into the database, where migrations have made the functions.

        As the tables' owner; two statements, which replace the keys for everybody at the commit, which is the
        caller's. The key is derived from the secret and sent as a parameter that logs show as ``***``. Raises
        `ValidationError` without a secret.
        """
        _postgresql(connection)
        if self.signer is None:
            raise ValidationError("RowLevelSecurity has no secret that could be installed.", field="secret")
        self.signer.install(connection)

    def verify(self, connection: Connection, *, attempts: bool = True, accepted: Collection[str] = ()) -> list[Finding]:
        """The holes in the database, as the connection's role sees it; none in a sound one.

        Looks at the roles within reach, settings, tables, policies, partitions and inheritance, views, functions,
        triggers, rules and grants. ``attempts``: unless no policy binds the role, it also tries, as no tenant and as
        two made-up ones, to read, update, delete and insert other tenants' rows. A trigger BEFORE DELETE fires where a
        row could be deleted. All is done in savepoints of the connection's transaction that are rolled back. An
        attempt waits for a lock half a second at most, and ends after two seconds; what could not be tried is no
        finding. Tables of more than 8 MB are tried on their first 1,000 pages, and as far as the role can read. In a
        read-only transaction it only tries to read. ``accepted`` are the objects, by `Finding.object`, of findings that
        were looked at and are left out: a trigger, say, that writes to an audit table which no tenant can read.

        Nineteen statements, and seven more for each policy that this process has not compared before, one more for
        each round of functions that triggers' functions call. With ``attempts`` seven more, and four for each attempt,
        of which there are twelve at most for each table; with a secret five more. Raises `DatabaseError` on another
        database than PostgreSQL, and on a connection that commits each statement.
        """
        _postgresql(connection)
        findings = find_holes(connection, self._plan(), attempts=attempts)
        if self.signer is not None:
            findings += [Finding(*each) for each in find_signature_holes(connection, self.signer)]
        return [finding for finding in findings if finding.object not in accepted]

    def _plan(self) -> Plan:
        """What a sound database has."""
        signed = self.signer is not None
        tables = self.tables()
        protected = {table for table, _ in tables}
        return Plan(
            tables,
            enable=lambda table, column: enable(table, column, all_tenants=self.all_tenants, signed=signed),
            name_tenant=lambda connection, tenant: announce_tenant(
                connection, tenant, across=False, signer=self.signer
            ),
            settings=(SETTING, ACROSS),
            statements=function_statements() if signed else (),
            listed=[table for table in self.metadata.tables.values() if table not in protected],
        )


def _postgresql(connection: Connection) -> None:
    if connection.dialect.name != "postgresql":
        raise DatabaseError("Row-level security is PostgreSQL's; this is another database.")
