"""Row-level security: PostgreSQL's own ring.

https://www.postgresql.org/docs/current/ddl-rowsecurity.html
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, MetaData, Table, func, literal_column, select, text

from ..errors import DatabaseError
from .policies import ACROSS, SETTING, enable, protected_tables, quoted, remove
from .verification import Finding, Plan, find_holes

__all__ = ["ACROSS", "SETTING", "Finding", "RowLevelSecurity", "tell"]


def tell(connection: Connection, tenant: str | None, across: bool) -> None:
    """Name the tenant for the open transaction: SET LOCAL, so that it never travels with a pooled connection."""
    local: ColumnElement[bool] = literal_column("true")
    settings = (
        func.set_config(SETTING, tenant or "", local),
        func.set_config(ACROSS, "on" if across else "", local),
    )
    connection.execute(select(*settings))


class RowLevelSecurity:
    """Policies for the tenants' tables of ``metadata``. All methods are sync; use `AsyncConnection.run_sync`.

    ``all_tenants``: the policies let sessions across while `unscoped` is open, by a second setting of the
    transaction. False: only a role that has a policy of its own, or BYPASSRLS, gets across; to all others an
    unscoped session shows no row. It also spares the planner an OR.
    """

    def __init__(self, metadata: MetaData, *, all_tenants: bool = True) -> None:
        self.metadata = metadata
        self.all_tenants = all_tenants

    def tables(self) -> list[tuple[Table, str | None]]:
        """The tenants' tables, parents first, and the name of each one's tenant column.

        None: a joined child's table, or one between many and many, whose rows belong to the tenant of those that they
        refer to.
        """
        found = protected_tables(self.metadata)
        return [(table, None if column is None else column.name) for table, column in found.items()]

    def create_statements(self) -> list[str]:
        """The DDL that turns the policies on: ENABLE and FORCE, USING and WITH CHECK."""
        return [
            statement
            for table, column in self.tables()
            for statement in enable(table, column, all_tenants=self.all_tenants)
        ]

    def drop_statements(self) -> list[str]:
        """The DDL that turns them off again."""
        return [statement for table, _ in reversed(self.tables()) for statement in remove(quoted(table))]

    def apply(self, connection: Connection) -> None:
        """Run `create_statements` in the connection's transaction; does not commit. Repeatable."""
        _postgresql(connection)
        for statement in self.create_statements():
            connection.execute(text(statement.replace(":", "\\:")))

    def verify(self, connection: Connection, *, attempts: bool = True) -> list[Finding]:
        """The holes in the database, as the connection's role sees it; none in a sound one.

        Looks at the roles within reach, settings, tables, policies, partitions and inheritance, views, functions,
        triggers, rules and grants. ``attempts``: unless no policy binds the role, it also tries, as no tenant and as
        two made-up ones, to read, update, delete and insert other tenants' rows. A trigger BEFORE DELETE fires where a
        row could be deleted. All is done in savepoints of the connection's transaction that are rolled back. An
        attempt waits for a lock half a second at most, and ends after two seconds; what could not be tried is no
        finding. Tables of more than 8 MB are tried on their first 1,000 pages. In a read-only transaction it only
        tries to read.

        Nineteen statements, and seven more for each policy that this process has not compared before, one more for
        each function that a trigger's function calls. With ``attempts`` seven more, and four for each attempt, of
        which there are twelve at most for each table. Raises `DatabaseError` on another database than PostgreSQL, and
        on a connection that commits each statement.
        """
        _postgresql(connection)
        tables = self.tables()
        protected = {table for table, _ in tables}
        plan = Plan(
            tables,
            enable=lambda table, column: enable(table, column, all_tenants=self.all_tenants),
            name_tenant=lambda named, tenant: tell(named, tenant, across=False),
            settings=(SETTING, ACROSS),
            listed=[table for table in self.metadata.tables.values() if table not in protected],
        )
        return find_holes(connection, plan, attempts=attempts)


def _postgresql(connection: Connection) -> None:
    if connection.dialect.name != "postgresql":
        raise DatabaseError("Row-level security is PostgreSQL's; this is another database.")
