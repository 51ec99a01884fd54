"""PostgreSQL's row-level security: policies in the database confine each transaction to its tenant.

https://www.postgresql.org/docs/current/ddl-rowsecurity.html
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from sqlalchemy import ColumnElement, Connection, MetaData, Table, bindparam, func, literal_column, select
from sqlalchemy.orm import Session
from sqlalchemy.types import Text

from ...dialects.features import has_policies
from ...dialects.own_statements import OPENING, OWN
from ...errors import DatabaseError, ValidationError
from ...execution.state import SettingsProvider
from .policies import (
    ALL_TENANTS_SETTING,
    SETTING,
    drop_statements,
    enable_statements,
    protected_tables,
    quoted,
    run_ddl,
)
from .raw_sql import refusal
from .row_policies import RowPolicy
from .signature import Secret, Signer, find_signature_holes, function_statements
from .verification import Finding, Plan, find_findings

__all__ = ["ALL_TENANTS_SETTING", "SETTING", "Finding", "RowLevelSecurity", "announce_tenant"]

_LOCAL: ColumnElement[bool] = literal_column("true")
_SET_TENANT = select(
    func.set_config(SETTING, bindparam("tenant", type_=Text()), _LOCAL),
    func.set_config(ALL_TENANTS_SETTING, bindparam("across", type_=Text()), _LOCAL),
)


def announce_tenant(connection: Connection, tenant: str | None, across: bool, signer: Signer | None = None) -> None:
    """Set the tenant of the open transaction. One statement.

    The settings end with the transaction, as with SET LOCAL, so that they never stay on a pooled connection. With a
    ``signer`` they are signed. ``across``: the policies admit the rows of all tenants.
    """
    values = settings_of(tenant, across, signer)
    parameters = {"tenant": values[SETTING], "across": values[ALL_TENANTS_SETTING]}
    connection.execute(_SET_TENANT, parameters, execution_options={OWN: True, OPENING: True})


def settings_of(tenant: str | None, across: bool, signer: Signer | None = None) -> dict[str, str]:
    """The values of the settings that name the tenant; see `announce_tenant`."""
    values = {SETTING: tenant or "", ALL_TENANTS_SETTING: "on" if across else ""}
    if signer is None:
        return values
    return {setting: signer.sign(setting, value) if value else "" for setting, value in values.items()}


class RowLevelSecurity:
    """Policies for the tenants' tables of ``metadata``. All methods are sync; use `AsyncConnection.run_sync`.

    `dotmac_database.RowLevelSecurity` also has policies for the actors within a tenant, and describes all options.
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
        self.settings: tuple[str, ...] = (SETTING, ALL_TENANTS_SETTING)

    def refusal(self, sql: str) -> str | None:
        """Why raw SQL is refused, in words, because it might change the settings; None: it is allowed.

        With signed settings it is always allowed.
        """
        return None if self.signer is not None else refusal(sql, self.harmless_functions)

    def tables(self) -> list[tuple[Table, str | None]]:
        """The tenants' tables with the names of their tenant columns, parents before children.

        None: the table has no tenant column; its rows belong to the tenant of the parent rows they reference. Joined
        children's tables and association tables are such tables.
        """
        columns = protected_tables(self.metadata)
        return [(table, None if column is None else column.name) for table, column in columns.items()]

    def create_statements(self) -> list[str]:
        """The DDL that creates and enables the policies (ENABLE and FORCE, USING and WITH CHECK).

        With a secret it first creates the functions that verify signatures, in the schema ``dotmac``. The secret itself
        is not in the statements, so they can be committed as a migration.
        """
        signed = self.signer is not None
        policies = [
            statement
            for table, column in self.tables()
            for statement in enable_statements(table, column, all_tenants=self.all_tenants, signed=signed)
        ]
        return [*function_statements(self.settings), *policies] if signed else policies

    def drop_statements(self) -> list[str]:
        """The DDL that drops the policies. The schema ``dotmac`` stays, since other metadata can use its functions."""
        return [statement for table, _ in reversed(self.tables()) for statement in drop_statements(quoted(table))]

    def apply(self, connection: Connection) -> None:
        """Run `create_statements`, and with a secret `install_secret`, in the connection's transaction. No commit.

        It can be run repeatedly. With a secret, the connection's role becomes the owner of the functions.
        """
        _require_policies(connection)
        run_ddl(connection.execute, self.create_statements())
        if self.signer is not None:
            self.signer.install(connection)

    def install_secret(self, connection: Connection) -> None:
        """Replace all keys in the database by the keys of this object's secrets. Two statements; the caller commits.

        Run it as the tables' owner, after migrations have created the functions. From the commit on, the database
        accepts only signatures of these secrets. A key is derived from its secret, and sent as a parameter that logs
        show as ``***``. Raises `ValidationError` without a secret.
        """
        _require_policies(connection)
        if self.signer is None:
            raise ValidationError("RowLevelSecurity has no secret to install.", field="secret")
        self.signer.install(connection)

    def verify(self, connection: Connection, *, attempts: bool = True, accepted: Collection[str] = ()) -> list[Finding]:
        """The ways in which the connection's role could get past the policies; an empty list if there are none.

        It inspects the role and the roles that it can use, settings, tables, policies, partitions and inheritance,
        views, functions, triggers, rules and grants. ``accepted`` are the values of `Finding.object` to omit, for
        findings that you have reviewed, such as a trigger that writes to an audit table which no tenant can read.

        A policy's ``hidden`` and ``read_only`` columns are findings too, such as ``Note: hidden``: a policy of
        PostgreSQL rules rows only, so that these columns are ruled by repositories alone.

        ``attempts``: it also tries to read, update, delete and insert other tenants' rows, once without a tenant and
        once as each of two invented tenants. It makes no attempts if the role is exempt from policies anyway, and only
        reads in a read-only transaction. Everything is done in savepoints that are rolled back, but if a row can be
        deleted, its triggers BEFORE DELETE fire. An attempt waits at most half a second for a lock, and ends after two
        seconds; an attempt that could not be completed is no finding. In a table of more than 8 MB, attempts are
        limited to the first 1,000 pages, and to rows that the role can read.

        It sends nineteen statements; seven more for each policy that this process has not compared before; and one more
        for each level of functions that trigger functions call. With ``policies`` it sends one more. With ``attempts``
        it sends seven more, and four for each attempt, of which there are at most twelve for each table; with a secret
        six more. Raises `DatabaseError` on any database but PostgreSQL, and on a connection that commits each
        statement.
        """
        _require_policies(connection)
        findings = find_findings(connection, self._plan(), attempts=attempts)
        if self.signer is not None:
            findings += [Finding(*each) for each in find_signature_holes(connection, self.signer, self.settings)]
        findings += self._unenforced()
        return [finding for finding in findings if finding.object not in accepted]

    def row_policies(self) -> Mapping[Table, Sequence[RowPolicy]]:
        """The policies of actors' rights, by table."""
        return {}

    def session_settings(self, _session: Session, _tenant: Callable[[], object]) -> tuple[SettingsProvider, ...]:
        """The settings of a guarded session's transactions beside those of the tenant, which ``tenant()`` returns."""
        return ()

    def _unenforced(self) -> Iterable[Finding]:
        """What actors may not do, but no policy of PostgreSQL can refuse."""
        return ()

    def _plan(self) -> Plan:
        """The expected state of the database."""
        signed = self.signer is not None
        tables = self.tables()
        protected = {table for table, _ in tables}
        return Plan(
            tables,
            enable=lambda table, column: enable_statements(table, column, all_tenants=self.all_tenants, signed=signed),
            name_tenant=lambda connection, tenant: announce_tenant(
                connection, tenant, across=False, signer=self.signer
            ),
            settings=self.settings,
            statements=function_statements(self.settings) if signed else (),
            listed=[table for table in self.metadata.tables.values() if table not in protected],
        )


def _require_policies(connection: Connection) -> None:
    if not has_policies(connection.dialect.name):
        raise DatabaseError("Row-level security requires PostgreSQL; this is another database.")
