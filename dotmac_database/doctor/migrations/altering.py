"""Judges the parts of ALTER TABLE."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..facts import TableFacts
from ..findings import DoctorFinding
from .parsing import constraint_of, deparsed, functions_in, name_of, names, type_of
from .rules import CONSTRAINT, DROP, NOT_NULL_COLUMN, OLD_CODE, REWRITE, SET_NOT_NULL, UNIQUE
from .types import printed_type, rewrites

if TYPE_CHECKING:
    from postgast import pg_query_pb2 as pg

    from .judging import Judge, Name

_SERIALS = ("serial", "bigserial", "smallserial", "serial2", "serial4", "serial8")
_IN_BATCHES = "Add a second column, fill it in batches (a trigger writes both meanwhile), then swap the names."


def alterations(judge: Judge, node: pg.AlterTableStmt) -> Iterator[DoctorFinding]:
    """The findings of an ALTER TABLE on a table that exists before the migrations."""
    name = name_of(node.relation)
    table = judge.existing(name)
    if table is None:
        return
    judge.locks(table)
    for each in node.cmds:
        yield from Alteration(judge, table, name, node, each.alter_table_cmd).findings()


class Alteration:
    """One part of an ALTER TABLE."""

    def __init__(
        self, judge: Judge, table: TableFacts, name: Name, node: pg.AlterTableStmt, command: pg.AlterTableCmd
    ) -> None:
        self.judge = judge
        self.table = table
        self.name = name
        self.node = node
        self.command = command

    def findings(self) -> Iterator[DoctorFinding]:
        """The findings of the part."""
        from postgast import pg_query_pb2 as pg

        kinds = {
            pg.AT_AddColumn: self._add_column,
            pg.AT_AlterColumnType: self._type,
            pg.AT_SetNotNull: self._set_not_null,
            pg.AT_AddConstraint: self._add_constraint,
            pg.AT_ValidateConstraint: self._validate,
            pg.AT_DropColumn: self._drop_column,
            pg.AT_SetLogged: self._anew,
            pg.AT_SetUnLogged: self._anew,
            pg.AT_SetTableSpace: self._anew,
            pg.AT_SetAccessMethod: self._anew,
        }
        kind = kinds.get(self.command.subtype)
        if kind is not None:
            yield from kind()

    def _add_column(self) -> Iterator[DoctorFinding]:
        from postgast import pg_query_pb2 as pg

        column = getattr(self.command, "def").column_def
        default = constraint_of(column, pg.CONSTR_DEFAULT)
        volatile = set[str]() if default is None else self.judge.volatile(functions_in(default.raw_expr))
        generated = constraint_of(column, pg.CONSTR_GENERATED)
        numbered = constraint_of(column, pg.CONSTR_IDENTITY) is not None or type_of(column.type_name)[0] in _SERIALS
        if volatile:
            yield self._rewriting_column(column, f"its default {min(volatile)}() differs for each row")
        elif numbered or (generated is not None and generated.generated_kind != "v"):
            cause = "each row gets a number" if numbered else "its value is stored in each row"
            yield self.judge.finding(REWRITE, self.table, column.colname, _anew(cause), (), _IN_BATCHES)
        elif (
            default is None
            and generated is None
            and any(constraint_of(column, kind) for kind in (pg.CONSTR_NOTNULL, pg.CONSTR_PRIMARY))
        ):
            yield self._required_column(column)
        for kind in (pg.CONSTR_UNIQUE, pg.CONSTR_PRIMARY):
            if constraint_of(column, kind) is not None:
                risk = "It builds a unique index while nobody can read or write the table"
                remedy = "Add the column, then the index CONCURRENTLY, then the constraint USING INDEX."
                yield self.judge.finding(UNIQUE, self.table, column.colname, risk, (), remedy)
        for kind in (pg.CONSTR_FOREIGN, pg.CONSTR_CHECK):
            if constraint_of(column, kind) is not None:
                remedy = "Add the column, then the constraint NOT VALID, and VALIDATE it in a transaction of its own."
                yield self.judge.finding(CONSTRAINT, self.table, column.colname, _SCAN, (), remedy)

    def _rewriting_column(self, column: pg.ColumnDef, cause: str) -> DoctorFinding:
        from postgast import pg_query_pb2 as pg

        plain = self._changed()
        plain_column = getattr(plain.cmds[0].alter_table_cmd, "def").column_def
        default = constraint_of(column, pg.CONSTR_DEFAULT)
        remaining = [
            each
            for each in plain_column.constraints
            if each.constraint.contype not in (pg.CONSTR_DEFAULT, pg.CONSTR_NOTNULL)
        ]
        del plain_column.constraints[:]
        plain_column.constraints.extend(remaining)
        later = pg.AlterTableStmt(relation=self.node.relation, objtype=self.node.objtype)
        command = pg.AlterTableCmd(subtype=pg.AT_ColumnDefault, name=column.colname, behavior=pg.DROP_RESTRICT)
        if default is not None:
            getattr(command, "def").CopyFrom(default.raw_expr)
        later.cmds.append(pg.Node(alter_table_cmd=command))
        sql = (deparsed("alter_table_stmt", plain), deparsed("alter_table_stmt", later))
        remedy = ";\n".join(sql) + ";\nthen fill the rows in batches, and only then SET NOT NULL."
        return self.judge.finding(REWRITE, self.table, column.colname, _anew(cause), sql, remedy)

    def _required_column(self, column: pg.ColumnDef) -> DoctorFinding:
        from postgast import pg_query_pb2 as pg

        plain = self._changed()
        plain_column = getattr(plain.cmds[0].alter_table_cmd, "def").column_def
        remaining = [each for each in plain_column.constraints if each.constraint.contype != pg.CONSTR_NOTNULL]
        del plain_column.constraints[:]
        plain_column.constraints.extend(remaining)
        sql = (deparsed("alter_table_stmt", plain),)
        remedy = f"{sql[0]};\nthen fill the rows in batches, and SET NOT NULL; or give it a DEFAULT."
        risk = "It fails if the table has a row, and old code that does not know the column can't insert any more"
        return self.judge.finding(NOT_NULL_COLUMN, self.table, column.colname, risk, sql, remedy)

    def _type(self) -> Iterator[DoctorFinding]:
        column = getattr(self.command, "def").column_def
        facts = self.table.columns.get(self.command.name)
        converts = column.HasField("raw_default")
        if facts is None or (not converts and not rewrites(printed_type(facts.type), type_of(column.type_name))):
            return
        cause = f"{facts.type} becomes another type"
        yield self.judge.finding(REWRITE, self.table, self.command.name, _anew(cause), (), _IN_BATCHES)

    def _set_not_null(self) -> Iterator[DoctorFinding]:
        column = self.command.name
        facts = self.table.columns.get(column)
        if (self.name, column) in self.judge.not_null or (facts is not None and not facts.nullable):
            return
        quoted = facts.sql if facts is not None else f'"{column}"'
        condition = f"CHECK (({quoted} IS NOT NULL))"
        if any(each.kind == "c" and each.valid and each.definition == condition for each in self.table.constraints):
            return
        name = f'"{self.table.name}_{column}_not_null"'
        sql = (
            f"ALTER TABLE {self.table.sql} ADD CONSTRAINT {name} CHECK ({quoted} IS NOT NULL) NOT VALID",
            f"ALTER TABLE {self.table.sql} VALIDATE CONSTRAINT {name}",
            f"ALTER TABLE {self.table.sql} ALTER COLUMN {quoted} SET NOT NULL",
            f"ALTER TABLE {self.table.sql} DROP CONSTRAINT {name}",
        )
        risk = "It reads the whole table, which nobody can read or write meanwhile"
        yield self.judge.finding(SET_NOT_NULL, self.table, column, risk, sql, ";\n".join(sql) + _EACH)

    def _add_constraint(self) -> Iterator[DoctorFinding]:
        from postgast import pg_query_pb2 as pg

        constraint = getattr(self.command, "def").constraint
        name = constraint.conname
        if constraint.contype in (pg.CONSTR_UNIQUE, pg.CONSTR_PRIMARY, pg.CONSTR_EXCLUSION):
            if not constraint.indexname:
                yield self._building(constraint)
            return
        if constraint.contype not in (pg.CONSTR_FOREIGN, pg.CONSTR_CHECK):
            return
        if constraint.skip_validation:
            self.judge.added_here.add((self.name, name))
            column = _not_null_column(constraint)
            if column is not None:
                self.judge.pending_checks[self.name, name] = column
            return
        better = self._changed()
        getattr(better.cmds[0].alter_table_cmd, "def").constraint.skip_validation = True
        getattr(better.cmds[0].alter_table_cmd, "def").constraint.initially_valid = False
        sql = (deparsed("alter_table_stmt", better), f'ALTER TABLE {self.table.sql} VALIDATE CONSTRAINT "{name}"')
        yield self.judge.finding(CONSTRAINT, self.table, name, _SCAN, sql, ";\n".join(sql) + _EACH)

    def _building(self, constraint: pg.Constraint) -> DoctorFinding:
        from postgast import pg_query_pb2 as pg

        risk = "It builds the index while nobody can read or write the table"
        name = constraint.conname or f"{self.table.name}_{'pkey' if constraint.contype == pg.CONSTR_PRIMARY else 'key'}"
        if constraint.contype == pg.CONSTR_EXCLUSION:
            remedy = "PostgreSQL can't build it without the lock: do it when nobody uses the table."
            return self.judge.finding(UNIQUE, self.table, name, risk, (), remedy)
        columns = ", ".join(f'"{each}"' for each in names(constraint.keys))
        kind = "PRIMARY KEY" if constraint.contype == pg.CONSTR_PRIMARY else "UNIQUE"
        sql = (
            f'CREATE UNIQUE INDEX CONCURRENTLY "{name}" ON {self.table.sql} ({columns})',
            f'ALTER TABLE {self.table.sql} ADD CONSTRAINT "{name}" {kind} USING INDEX "{name}"',
        )
        remedy = ";\n".join(sql) + ";\nthe first one in op.get_context().autocommit_block()."
        return self.judge.finding(UNIQUE, self.table, name, risk, sql, remedy)

    def _validate(self) -> Iterator[DoctorFinding]:
        key = self.name, self.command.name
        column = self.judge.pending_checks.get(key)
        if column is None:
            column = self._checked_column()
        if column is not None:
            self.judge.not_null.add((self.name, column))
        if self.judge.in_transaction and key in self.judge.added_here:
            risk = f"{_SCAN}, since the transaction still has the lock of ADD CONSTRAINT"
            yield self.judge.finding(
                CONSTRAINT, self.table, self.command.name, risk, (), "VALIDATE it in the next migration."
            )

    def _checked_column(self) -> str | None:
        """The column of a CHECK (… IS NOT NULL) that the database has, and that is validated now."""
        for each in self.table.constraints:
            if each.sql.strip('"') == self.command.name:
                for column in self.table.columns.values():
                    if each.definition.startswith(f"CHECK (({column.sql} IS NOT NULL))"):
                        return column.name
        return None

    def _drop_column(self) -> Iterator[DoctorFinding]:
        risk = "Processes that still run the old code name the column in each SELECT, and fail"
        yield self.judge.finding(DROP, self.table, self.command.name, risk, (), OLD_CODE)

    def _anew(self) -> Iterator[DoctorFinding]:
        yield self.judge.finding(
            REWRITE, self.table, "", _anew("its storage changes"), (), "Do it while nobody uses it."
        )

    def _changed(self) -> pg.AlterTableStmt:
        """A copy of the statement with this part only."""
        from postgast import pg_query_pb2 as pg

        copy = pg.AlterTableStmt()
        copy.CopyFrom(self.node)
        del copy.cmds[:]
        copy.cmds.append(pg.Node(alter_table_cmd=self.command))
        return copy


def _not_null_column(constraint: pg.Constraint) -> str | None:
    """The column of CHECK (column IS NOT NULL); None: the condition is another one."""
    from postgast import pg_query_pb2 as pg

    test = constraint.raw_expr.null_test
    if constraint.raw_expr.WhichOneof("node") != "null_test" or test.nulltesttype != pg.IS_NOT_NULL:
        return None
    fields = names(test.arg.column_ref.fields)
    return fields[-1] if fields else None


_SCAN = "It reads the whole table, in which nobody can write meanwhile"
_EACH = ";\neach in a migration of its own, since a transaction keeps its locks until its end."


def _anew(cause: str) -> str:
    return f"It writes the table anew, since {cause}: nobody can read or write it meanwhile"
