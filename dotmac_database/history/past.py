"""Sends SELECTs that read rows as they were at a moment.

A compiler puts another name in the place of each table, and before a statement is sent, a common table expression for
each of these names is written in front of it. So filters, joins, subqueries and loads of relationships stay as they
are, and no table can be missed: the compiler refuses those without a history. The moment is no part of the compiled
statement, which is cached for all moments.
"""

# SQLAlchemy's compilers are not typed: for mypy, their methods return `Any` instead of a str.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from weakref import WeakSet

from sqlalchemy import Column, Connection, Dialect, Engine, Executable, Table, event
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import ORMExecuteState, Session
from sqlalchemy.sql.elements import ColumnClause
from sqlalchemy.sql.selectable import TableClause

from ..dialects.history_past import past_rows
from ..dialects.history_triggers import has_history
from ..dialects.settings import ANNOUNCING
from ..errors import MisuseError, ValidationError
from ..execution.state import state_of
from ..execution.strict import refuse_lazy_load
from ..types import as_utc, utc_now
from .tables import history_of, recorded

T = TypeVar("T")
READING: WeakSet[Connection] = WeakSet()
"""The connections whose statements read the past now. The guard, which chooses their dialect, must know."""

_OPEN: WeakSet[Session] = WeakSet()
"""The sessions of the past whose connection reads the past now."""

_DIALECTS = "_dotmac_past"
_MOST_DIALECTS = 8
_NO_COLUMNS = ("*", "1")
"""The literals of the toolkit and of SQLAlchemy that read no column."""
_WITH = re.compile(r"\s*(?:/\*.*?\*/\s*)*WITH\b(\s+RECURSIVE\b)?\s*", re.DOTALL)


def valid_moment(moment: datetime) -> datetime:
    """The moment in UTC; a naive one is in UTC already. Raises `ValidationError` for one in the future."""
    if not isinstance(moment, datetime):
        raise ValidationError(f"as_of() takes a datetime, not a {type(moment).__name__}.", field="moment")
    utc = as_utc(moment)
    if utc > utc_now():
        raise ValidationError("as_of() takes a moment in the past; this one is in the future.", field="moment")
    return utc.astimezone(UTC)


@dataclass(frozen=True, eq=False)
class Past:
    """A moment, and the session that reads the rows of that moment, on the connection of the session ``present``."""

    moment: datetime
    present: Session
    session: Session

    @classmethod
    def of(cls, present: Session, bind: Engine | Connection, moment: datetime) -> Past:
        """The past of a session, which has its dialect from ``bind``. No I/O.

        Raises `ValidationError` for a moment in the future.
        """
        session = Session(bind, expire_on_commit=False, join_transaction_mode="rollback_only")
        session.autoflush = False
        past = cls(valid_moment(moment), present, session)
        state_of(session).read_only = True
        event.listen(session, "do_orm_execute", past._check)
        event.listen(session, "before_flush", past._refuse_flush)
        return past

    def read(self, connection: Connection, work: Callable[[], T]) -> T:
        """The result of ``work()``, whose statements in the past's session are sent on a connection of the present."""
        session, bind = self.session, self.session.bind
        session.bind = connection
        _OPEN.add(session)
        try:
            with _statements_at(connection, self.moment):
                result = work()
                session.commit()  # ends the session's own transaction, and leaves that of the connection open
                return result
        except BaseException:
            session.close()
            raise
        finally:
            _OPEN.discard(session)
            session.bind = bind

    def _check(self, execution: ORMExecuteState) -> None:
        """Refuse whatever is no SELECT in `read`, so that no statement reads the present."""
        refuse_lazy_load(execution)
        if not execution.is_select or self.session not in _OPEN:
            raise _only_reads()

    def _refuse_flush(self, *_: object) -> None:
        raise _only_reads()


def _only_reads() -> MisuseError:
    return MisuseError("The repository of as_of() only reads, by its methods: the past can't be changed.")


@contextmanager
def _statements_at(connection: Connection, moment: datetime) -> Iterator[None]:
    """A block in which the connection's SELECTs read the rows of a moment."""
    if not has_history(connection.dialect.name):
        raise MisuseError("as_of() needs PostgreSQL or SQLite.")

    def compile_for_past(
        connection: Connection, statement: Executable, rows: Any, row: Any, _options: Mapping[str, object]
    ) -> tuple[Executable, Any, Any]:
        if ANNOUNCING not in _options:
            connection.dialect = past_dialect(connection.dialect)
        return statement, rows, row

    def prepend(
        connection: Connection,
        _cursor: object,
        statement: str,
        parameters: object,
        context: DefaultExecutionContext | None,
        _many: bool,
    ) -> tuple[str, object]:
        return _at(connection, statement, context, moment), parameters

    dialect = connection.dialect
    READING.add(connection)
    event.listen(connection, "before_execute", compile_for_past, retval=True)
    event.listen(connection, "before_cursor_execute", prepend, retval=True)
    try:
        yield
    finally:
        READING.discard(connection)
        event.remove(connection, "before_execute", compile_for_past)
        event.remove(connection, "before_cursor_execute", prepend)
        connection.dialect = dialect


def _at(connection: Connection, statement: str, context: DefaultExecutionContext | None, moment: datetime) -> str:
    """The statement with the common table expressions of a moment."""
    if context is not None and ANNOUNCING in context.execution_options:
        return statement
    compiled = None if context is None else context.compiled
    if not isinstance(compiled, PastCompiler):
        raise _only_reads()
    if not compiled.past_tables:
        return statement
    parts = []
    for table, name in compiled.past_tables.items():
        history = history_of(table)
        assert history is not None
        names = None if compiled.reads_text else compiled.past_columns.get(table.key, ())
        parts.append(f"{name} AS ({past_rows(connection, table, history, recorded(table).tenant, moment, names)})")
    text = ", ".join(parts)
    if connection.dialect.paramstyle in ("format", "pyformat"):
        text = text.replace("%", "%%")
    own = _WITH.match(statement)
    if own is None:
        return f"WITH {text} {statement}"
    return f"WITH{own[1] or ''} {text}, {statement[own.end() :]}"


class PastCompiler:
    """The mixin for a compiler class: it reads each table by the name in ``past_tables``.

    ``past_columns`` are the names of the columns that the statement reads, by the key of their table. ``reads_text``:
    it has a text, which may read others. Raises `MisuseError` for a table without a history and for a private column.
    """

    def __init__(self, *args: object, **kw: object) -> None:
        self.past_tables: dict[Table, str] = {}
        self.past_columns: dict[str, set[str]] = {}
        self.reads_text = False
        super().__init__(*args, **kw)

    def visit_table(self, table: TableClause, asfrom: bool = False, iscrud: bool = False, **kw: Any) -> str:
        """Render a table (called by SQLAlchemy)."""
        text: str = super().visit_table(table, asfrom=asfrom, iscrud=iscrud, **kw)  # type: ignore[misc]  # the dialect's compiler has it
        if not asfrom:
            self.reads_text = True  # the whole row
            return text
        known = table.metadata.tables.get(table.key) if isinstance(table, Table) else None
        if known is None or history_of(known) is None:
            raise MisuseError(f"as_of() can't read {table.name}, which has no history.")
        if "SELECT" in text:
            raise MisuseError(f"as_of() can't read {table.name} within a FULL JOIN.")
        name = self.past_tables.setdefault(known, f"dotmac_past_{len(self.past_tables)}")
        if any(each is not known and each.name == known.name for each in self.past_tables):
            raise MisuseError(f"as_of() can't read two tables of the name {table.name}.")
        alias = kw.get("enclosing_alias")
        if alias is not None and alias.element is table:
            return name
        return f"{name} AS {self.preparer.quote(table.name)}"  # type: ignore[attr-defined]  # as above

    def visit_textclause(self, *args: object, **kw: object) -> str:
        """Render a text (called by SQLAlchemy)."""
        self.reads_text = True
        return super().visit_textclause(*args, **kw)  # type: ignore[misc]  # as above

    def visit_column(self, column: ColumnClause[Any], *args: object, **kw: object) -> str:
        """Render a column (called by SQLAlchemy)."""
        text: str = super().visit_column(column, *args, **kw)  # type: ignore[misc]  # as above
        table = column.table
        if table is None and not (column.is_literal and column.name in _NO_COLUMNS):
            self.reads_text = True
        for each in column.base_columns:
            if not isinstance(each, Column):
                continue
            if each.info.get("private"):
                raise MisuseError(f"as_of() can't read {each.table.name}.{each.name}: private columns have no history.")
            self.past_columns.setdefault(each.table.key, set()).add(each.name)
        if not isinstance(table, Table):
            return text
        if table.schema is None:
            return text
        return text.removeprefix(f"{self.preparer.quote_schema(table.schema)}.")  # type: ignore[attr-defined]  # as above


def past_dialect(dialect: Dialect) -> Dialect:
    """A copy of the dialect with a `PastCompiler`. SQLAlchemy caches its statements separately."""
    base = dialect.statement_compiler
    if issubclass(base, PastCompiler):
        return dialect
    copies: dict[type, Dialect] = dialect.__dict__.setdefault(_DIALECTS, {})
    copy = copies.get(base)
    if copy is None:
        if len(copies) >= _MOST_DIALECTS:
            copies.clear()
        compiler = type(f"Past{base.__name__}", (PastCompiler, base), {})
        kind = type(dialect)
        members = {"statement_compiler": compiler, "supports_statement_cache": dialect.supports_statement_cache}
        past: Dialect = object.__new__(type(kind.__name__, (kind,), members))
        past.__dict__ = dialect.__dict__
        copy = copies[base] = past
    return copy
