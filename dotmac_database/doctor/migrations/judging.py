"""Applies the rules to the statements of migrations, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from sqlalchemy import text

from ..examination import Examination
from ..facts import TableFacts
from ..findings import DoctorFinding, Severity
from .altering import alterations
from .parsing import Statement, deparsed, name_of, names
from .rules import DROP, IN_TRANSACTION, INDEX, LOCK_TIMEOUT, OLD_CODE, RENAME, REWRITE, Rule

if TYPE_CHECKING:
    from postgast import pg_query_pb2 as pg

Name = tuple[str | None, str]


class Judge:
    """Judges statements in their order, and remembers what earlier ones have done.

    Tables that the migrations create are empty, so that nothing on them takes long.
    """

    def __init__(self, examination: Examination) -> None:
        self.examination = examination
        self.in_transaction = False
        self.added_here: set[tuple[Name, str]] = set()
        """The constraints that were added NOT VALID in the open transaction."""
        self.not_null: set[tuple[Name, str]] = set()
        """The columns for which earlier statements have a validated CHECK (… IS NOT NULL)."""
        self.pending_checks: dict[tuple[Name, str], str] = {}
        """The columns of such constraints that are not validated yet, by table and constraint."""
        self._created: set[Name] = set()
        self._session_has_timeout = examination.settings.get("lock_timeout", "0") != "0"
        self._has_lock_timeout = self._session_has_timeout
        self._locked: tuple[str, TableFacts] | None = None
        self._revision = ""
        self._volatile: frozenset[str] | None = None

    def findings(self, statement: Statement) -> Iterator[DoctorFinding]:
        """The findings of one statement."""
        self._revision = statement.revision
        kinds: Mapping[str, Callable[[pg.Node], Iterator[DoctorFinding]]] = {
            "transaction_stmt": lambda node: self._transaction(node.transaction_stmt),
            "variable_set_stmt": lambda node: self._setting(node.variable_set_stmt),
            "create_stmt": lambda node: self._create(node.create_stmt.relation),
            "create_table_as_stmt": lambda node: self._create(node.create_table_as_stmt.into.rel),
            "index_stmt": lambda node: self._index(node.index_stmt),
            "drop_stmt": lambda node: self._drop(node.drop_stmt),
            "rename_stmt": lambda node: self._rename(node.rename_stmt),
            "vacuum_stmt": lambda node: self._vacuum(node.vacuum_stmt),
            "cluster_stmt": lambda node: self._anew(node.cluster_stmt.relation, "CLUSTER"),
            "reindex_stmt": lambda node: self._reindex(node.reindex_stmt),
            "alter_table_stmt": lambda node: alterations(self, node.alter_table_stmt),
        }
        judge = kinds.get(statement.kind)
        if judge is not None:
            yield from judge(statement.node)

    def last_findings(self) -> Iterator[DoctorFinding]:
        """The finding on all statements together: that the first lock has no timeout."""
        if self._locked is not None:
            where, table = self._locked
            risk = (
                "A statement that waits for its lock lets all later ones wait behind it, reads too "
                f"({self.examination.size(table)})."
            )
            sql = ("SET lock_timeout = '5s'",)
            yield self._of_rule(LOCK_TIMEOUT, where, risk, sql, f"{sql[0]} at the start of env.py's migrations.", table)

    def existing(self, name: Name) -> TableFacts | None:
        """The facts of a table; None: the migrations create it, or the database does not have it."""
        if self._normal(name) in self._created:
            return None
        return self.examination.facts.get((name[0] or self.examination.default_schema, name[1]))

    def locks(self, table: TableFacts) -> None:
        """Note that a statement waits for a lock on the table."""
        large = not self.examination.is_small(table)
        if not self._has_lock_timeout and (
            self._locked is None or (large and self.examination.is_small(self._locked[1]))
        ):
            self._locked = (self._label(table.label), table)

    def finding(
        self, rule: Rule, table: TableFacts, what: str, risk: str, sql: tuple[str, ...] = (), remedy: str = ""
    ) -> DoctorFinding:
        """A finding on a table. ``what`` is the column or index, or empty."""
        label = f"{table.label}.{what}" if what else table.label
        return self._of_rule(rule, self._label(label), f"{risk} ({self.examination.size(table)}).", sql, remedy, table)

    def volatile(self, functions: set[str]) -> set[str]:
        """Those of the functions that are volatile, so that each row gets a value of its own. One statement, once."""
        if functions and self._volatile is None:
            rows = self.examination.connection.execute(
                text("SELECT DISTINCT proname::text FROM pg_proc WHERE provolatile = 'v'")
            )
            self._volatile = frozenset(rows.scalars())
        return functions & (self._volatile or frozenset())

    def _label(self, label: str) -> str:
        return f"{self._revision}: {label}" if self._revision else label

    def _of_rule(
        self, rule: Rule, label: str, risk: str, sql: tuple[str, ...], remedy: str, table: TableFacts
    ) -> DoctorFinding:
        short = rule.by_size and self.examination.is_small(table)
        return DoctorFinding(
            label,
            risk,
            remedy or ";\n".join(sql),
            code=rule.code,
            severity=Severity.NOTE if short else rule.severity,
            sql=sql,
        )

    def _normal(self, name: Name) -> Name:
        return name[0] or self.examination.default_schema, name[1]

    def _transaction(self, node: pg.TransactionStmt) -> Iterator[DoctorFinding]:
        from postgast import pg_query_pb2 as pg

        if node.kind in (pg.TRANS_STMT_BEGIN, pg.TRANS_STMT_START):
            self.in_transaction = True
        elif node.kind in (pg.TRANS_STMT_COMMIT, pg.TRANS_STMT_ROLLBACK):
            self.in_transaction = False
            self.added_here.clear()
            self._has_lock_timeout = self._session_has_timeout
        yield from ()

    def _setting(self, node: pg.VariableSetStmt) -> Iterator[DoctorFinding]:
        if node.name == "lock_timeout":
            values = [each.a_const for each in node.args]
            self._has_lock_timeout = any(each.sval.sval.strip("0ms ") or each.ival.ival for each in values)
            if not node.is_local:
                self._session_has_timeout = self._has_lock_timeout
        yield from ()

    def _create(self, relation: pg.RangeVar) -> Iterator[DoctorFinding]:
        if self.existing(name_of(relation)) is None:  # IF NOT EXISTS leaves a table as it is
            self._created.add(self._normal(name_of(relation)))
        yield from ()

    def _index(self, node: pg.IndexStmt) -> Iterator[DoctorFinding]:
        table = self.existing(name_of(node.relation))
        if table is None:
            return
        self.locks(table)
        if node.concurrent:
            yield from self._refused_in_transaction(table, node.idxname, "CREATE INDEX CONCURRENTLY")
            return
        if table.partitioned:
            if not node.relation.inh:
                return  # ON ONLY: it builds nothing
            yield self.finding(INDEX, table, node.idxname, _BUILT, (), _PARTITIONED)
            return
        better = type(node)()
        better.CopyFrom(node)
        better.concurrent = True
        sql = (deparsed("index_stmt", better),)
        yield self.finding(INDEX, table, node.idxname, _BUILT, sql, _outside(sql))

    def _refused_in_transaction(self, table: TableFacts, what: str, command: str) -> Iterator[DoctorFinding]:
        if self.in_transaction:
            remedy = "with op.get_context().autocommit_block(): …"
            yield self.finding(
                IN_TRANSACTION, table, what, f"PostgreSQL refuses {command} in a transaction", (), remedy
            )

    def _drop(self, node: pg.DropStmt) -> Iterator[DoctorFinding]:
        from postgast import pg_query_pb2 as pg

        for each in node.objects:
            *schema, name = names(each.list.items)
            if node.remove_type == pg.OBJECT_TABLE:
                table = self.existing((schema[-1] if schema else None, name))
                if table is not None:
                    self.locks(table)
                    yield self.finding(DROP, table, "", "Processes that still run the old code fail", (), OLD_CODE)
            elif node.remove_type == pg.OBJECT_INDEX:
                yield from self._drop_index(node, name)

    def _drop_index(self, node: pg.DropStmt, name: str) -> Iterator[DoctorFinding]:
        tables = (each for each in self.examination.tables if any(index.name == name for index in each.indexes))
        table = next(tables, None)
        if table is None:
            return
        self.locks(table)
        if node.concurrent:
            yield from self._refused_in_transaction(table, name, "DROP INDEX CONCURRENTLY")
            return
        better = type(node)()
        better.CopyFrom(node)
        better.concurrent = True
        sql = (deparsed("drop_stmt", better),)
        risk = "It waits for all that use the table, and lets nobody read it meanwhile"
        yield self.finding(INDEX, table, name, risk, sql, _outside(sql))

    def _rename(self, node: pg.RenameStmt) -> Iterator[DoctorFinding]:
        from postgast import pg_query_pb2 as pg

        table = self.existing(name_of(node.relation))
        if table is None or node.rename_type not in (pg.OBJECT_COLUMN, pg.OBJECT_TABLE):
            return
        self.locks(table)
        column = node.subname if node.rename_type == pg.OBJECT_COLUMN else ""
        remedy = (
            'Rename the attribute only (mapped_column("old_name")), or add a new one, fill both, and drop the old one.'
        )
        yield self.finding(RENAME, table, column, "Processes that still run the old code fail", (), remedy)

    def _vacuum(self, node: pg.VacuumStmt) -> Iterator[DoctorFinding]:
        if not any(each.def_elem.defname == "full" for each in node.options):
            return
        for each in node.rels:
            yield from self._anew(each.vacuum_relation.relation, "VACUUM FULL")

    def _anew(self, relation: pg.RangeVar, command: str) -> Iterator[DoctorFinding]:
        table = self.existing(name_of(relation))
        if table is not None:
            self.locks(table)
            risk = f"{command} writes the table anew, and nobody can read or write it meanwhile"
            yield self.finding(REWRITE, table, "", risk, (), "pg_repack does the same without blocking.")

    def _reindex(self, node: pg.ReindexStmt) -> Iterator[DoctorFinding]:
        from postgast import pg_query_pb2 as pg

        table = self.existing(name_of(node.relation)) if node.kind == pg.REINDEX_OBJECT_TABLE else None
        if table is None or any(each.def_elem.defname == "concurrently" for each in node.params):
            return
        self.locks(table)
        sql = (f"REINDEX TABLE CONCURRENTLY {table.sql}",)
        yield self.finding(INDEX, table, "", "No row can be written meanwhile", sql, _outside(sql))


_BUILT = "No row can be written until the index is built"
_PARTITIONED = (
    "CREATE INDEX … ON ONLY the table, then CREATE INDEX CONCURRENTLY on each partition and ALTER INDEX … ATTACH "
    "PARTITION: PostgreSQL has no CONCURRENTLY for partitioned tables."
)


def _outside(sql: tuple[str, ...]) -> str:
    return f"with op.get_context().autocommit_block(): {sql[0]}"
