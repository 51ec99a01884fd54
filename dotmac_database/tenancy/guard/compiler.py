"""A compiler that confines statements: they read and change only rows of the session's tenant.

The connection of a guarded session compiles with it (`confining`). It adds the tenant's condition where SQLAlchemy
renders each FROM, after the ORM has made its joins, so that it covers every form of statement: subqueries, common
table expressions, unions, loads of relationships, and subqueries in VALUES and SET. The condition is placed where
it changes nothing else: in WHERE, in the ON of an outer join for its optional side, and in a subquery within a FULL
JOIN. Thus a statement returns the rows that it would return in a database with only that tenant's rows.

What it can't analyse is reported in ``opaque`` (text) and ``unknown`` (tables and functions that are not in the
metadata of the mapped classes); the checks in `connection` refuse these.
"""

# SQLAlchemy's compilers are not typed: for mypy, their methods return `Any` instead of a str.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from sqlalchemy import (
    Column,
    Delete,
    Dialect,
    FromClause,
    Insert,
    Select,
    Table,
    Update,
    and_,
    exists,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.sql import operators
from sqlalchemy.sql.compiler import COLLECT_CARTESIAN_PRODUCTS, NO_LINTING, Linting
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    ColumnClause,
    ColumnElement,
    Grouping,
)
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import (
    AliasedReturnsRows,
    FromGrouping,
    Join,
    NamedFromClause,
    ReturnsRows,
    SelectBase,
    TableClause,
    Values,
)

from ...dialects.own_statements import OwnTable
from ...sqlalchemy_internals import annotations_of, clone, values_of, without_annotations
from ..parameters import ScopeParameter, owner_parameter
from ..tables import TABLES, Owner, Reference, inherited_from
from .fragments import FragmentCompiler, Quoting, unknown_hooks

Name: TypeAlias = str | int
"""The name of a FROM within its statement, or its id if it has no name."""

Equality: TypeAlias = tuple[tuple[Name, str], object]
"""An equality: the column on one side, as the name of its FROM and its key, and the expression on the other side."""

Change: TypeAlias = Update | Delete


class ConfiningCompiler(FragmentCompiler):
    """The mixin for the compiler class of a dialect."""

    def __init__(self, *args: object, linting: Linting = NO_LINTING, **kw: object) -> None:
        self.touched: set[Table] = set()
        self.owner_columns: dict[str, Column[object]] = {}
        self.scopes: dict[str, Column[object]] = {}
        self._owner_parameters: dict[Column[object], BindParameter[object]] = {}
        self._confined: set[int] = set()
        self._exempt: dict[int, FromClause] = {}
        # SQLAlchemy's linter collects how the FROMs are joined. `_check_tied` uses this for UPDATE and DELETE only.
        super().__init__(*args, linting=linting | COLLECT_CARTESIAN_PRODUCTS, **kw)

    # Reads: the rows of every FROM.

    def _compose_select_body(
        self,
        text: str,
        select: Select[Any],
        compile_state: object,
        inner_columns: object,
        froms: Iterable[FromClause],
        *rest: object,
    ) -> str:
        self._look_for_custom(select)
        self._look_at_hints(select)
        outside, self._confined = self._confined, set()
        ties = list(_ties(select._where_criteria))
        conditions = [condition for each in froms for condition in self._conditions(each, ties)]
        if conditions:
            select = clone(select)
            select._where_criteria += tuple(conditions)
        text = super()._compose_select_body(text, select, compile_state, inner_columns, froms, *rest)
        self._confined = outside
        return text

    def visit_select(self, select_stmt: Select[Any], *args: object, **kw: object) -> str:
        """Render a SELECT (called by SQLAlchemy). Its own FROMs are confined as usual, even within a FULL JOIN."""
        kw.pop("dotmac_apart", None)
        return super().visit_select(select_stmt, *args, **kw)

    def visit_join(self, join: Join, asfrom: bool = False, from_linter: object = None, **kw: object) -> str:
        """Render a join (called by SQLAlchemy). The conditions on an outer join's optional side are added to its ON."""
        if join.full:
            kw["dotmac_apart"] = True
        elif join.isouter and not kw.get("dotmac_apart"):
            conditions = list(self._conditions(join.right, list(_ties((join.onclause,)))))
            if conditions:
                onclause = and_(join.onclause, *conditions)  # type: ignore[arg-type]  # a join has an ON
                join = clone(join)
                join.onclause = onclause
        return super().visit_join(join, asfrom=asfrom, from_linter=from_linter, **kw)

    def visit_table(self, table: TableClause, asfrom: bool = False, iscrud: bool = False, **kw: Any) -> str:
        """Render a table (called by SQLAlchemy). If it is a FROM, its conditions must have been added before."""
        apart = kw.pop("dotmac_apart", False)
        text: str = super().visit_table(table, asfrom=asfrom, iscrud=iscrud, **kw)
        if not asfrom:
            return text
        owner = self._owner_of(table)
        if owner is None:
            return text
        alias = kw.get("enclosing_alias")
        if alias is not None and alias.element is not table:
            alias = None  # the alias belongs to a subquery, and this table is a FROM inside the subquery
        if apart and alias is None:
            return self._as_subquery(table, text, self.preparer.quote(table.name))
        place = id(without_annotations(table) if iscrud else table if alias is None else alias)
        if not apart and place not in self._confined and place not in self._exempt:
            self._mark_unknown(f"The table {table.name!r}, in a place where no condition can be added,")
        return text

    def visit_alias(self, alias: AliasedReturnsRows, asfrom: bool = False, **kw: object) -> str:
        """Render an alias of a table (called by SQLAlchemy). Within a FULL JOIN it becomes a subquery, like a table."""
        table = _table_of(alias)
        apart = kw.get("dotmac_apart", False)
        text: str = super().visit_alias(alias, asfrom=asfrom, **kw)
        if not (apart and asfrom and table is not None and self._owner_of(table)):
            return text
        return self._as_subquery(alias, text, text.rpartition(" AS ")[2])

    def _as_subquery(self, source: NamedFromClause, text: str, name: str) -> str:
        """Render a table within a FULL JOIN as a subquery, the only place for its condition."""
        if self.preparer.schema_for_object(_table_of(source)) and source is _table_of(source):
            self._mark_unknown(f"The table {source.name!r}, which has a schema, within a FULL JOIN without an alias")
        conditions = list(self._own_conditions(source, []))
        where = f" WHERE {self.process(and_(*conditions))}" if conditions else ""
        return f"(SELECT * FROM {text}{where}) AS {name}"  # noqa: S608 - rendered by SQLAlchemy

    def _conditions(self, source: FromClause, ties: list[Equality]) -> Iterator[ColumnElement[bool]]:
        """The conditions on a FROM, for the WHERE or ON of the enclosing statement."""
        if isinstance(source, FromGrouping):
            yield from self._conditions(source.element, ties)
        elif isinstance(source, Join):
            if source.full:
                self._recognize(source)
                return
            here = ties if source.isouter else [*ties, *_ties((source.onclause,))]
            yield from self._conditions(source.left, here)
            if not source.isouter:
                yield from self._conditions(source.right, here)
        else:
            self._recognize(source)
            if id(source) not in self._exempt and _table_of(source) is not None:
                self._confined.update(map(id, _aliases(source)))
                yield from self._own_conditions(source, ties)

    def _recognize(self, source: ReturnsRows) -> None:
        """Mark a FROM of an unknown kind as unknown. Functions are checked when they are rendered."""
        if isinstance(source, (FromGrouping, AliasedReturnsRows)):
            self._recognize(source.element)
        elif isinstance(source, Join):
            self._recognize(source.left)
            self._recognize(source.right)
        elif not isinstance(source, (TableClause, SelectBase, Values, FunctionElement)) and not hasattr(
            source, "_returning"
        ):
            self._mark_unknown(f"A {type(source).__name__} as a FROM")

    def _owner_of(self, table: NamedFromClause) -> Owner | None:
        """The owner of a table's rows. Records which tenants' tables are used, and which tables are unknown."""
        if not isinstance(table, Table) or not TABLES.knows(table):
            if not isinstance(table, OwnTable) and table.name.lower() not in self.tenant_free:
                self._mark_unknown(f"The table {table.name!r}, which is in no mapped class's metadata,")
            return None
        owner = TABLES.owner(table)
        if owner is not None:
            self.touched.add(without_annotations(table))
            if owner.is_unknown:
                self._mark_unknown(f"The table {table.name!r}, which has no column that determines the tenant,")
        return owner

    def _own_conditions(self, source: FromClause, ties: list[Equality]) -> Iterator[ColumnElement[bool]]:
        """The conditions by which the rows of a table or alias are the tenant's.

        There are none if the equalities in ``ties`` imply already that the rows are the tenant's.
        """
        table = _table_of(source)
        owner = self._owner_of(table) if table is not None else None
        if owner is None:
            return
        if owner.column is not None and not self._is_scoped(source, owner.column, ties):
            yield source.c[owner.column.key] == self._tenant(owner.column)
        for reference in owner.references:
            if not self._is_tied(source, reference, ties):
                yield _columns([source.c[here.key] for here, _ in reference.pairs]).in_(
                    select(*(there for _, there in reference.pairs)).correlate(None)
                )
        for reference, column in owner.extensions:
            child = reference.table.alias()
            self._exempt[id(child)] = child
            same = [child.c[there.key] == source.c[here.key] for here, there in reference.pairs]
            foreign = child.c[column.key].is_distinct_from(self._tenant(column))
            yield ~exists(select(literal_column("1")).select_from(child).where(*same, foreign).correlate(source))

    def _tenant(self, column: Column[object]) -> BindParameter[object]:
        """The parameter for the session's tenant."""
        parameter = self._owner_parameters.get(column)
        if parameter is None:
            parameter = self._owner_parameters[column] = owner_parameter(len(self._owner_parameters), column)
            self.owner_columns[parameter.key] = column
        return parameter

    def _is_scoped(self, source: FromClause, column: Column[object], ties: list[Equality]) -> bool:
        """Whether a repository has already compared the tenant column with its own parameter."""
        for (name, key), other in ties:
            if key == column.key and name == _name(source) and isinstance(other, ScopeParameter):
                self.scopes[other.key] = column
                return True
        return False

    def _is_tied(self, source: FromClause, reference: Reference, ties: list[Equality]) -> bool:
        """Whether the equalities join ``source`` by all columns of a reference to a FROM that is confined itself.

        The database resolves a column by the name of its FROM. So every visible FROM with that name must be the
        referenced table: another table under the same alias is not confined by the tenant of this one.
        """
        froms = self.stack[-1]["correlate_froms"] if self.stack else ()
        others = {_name(each) for each in froms if without_annotations(_table_of(each)) is not reference.table}
        visible = set(map(_name, froms)) - others
        tied: set[Name] | None = None
        for here, there in reference.pairs:
            names = {
                _name(other.table)
                for (name, key), other in ties
                if key == here.key
                and name == _name(source)
                and isinstance(other, ColumnClause)
                and other.key == there.key
                and without_annotations(_table_of(other.table)) is reference.table
                and _name(other.table) in visible
            }
            tied = names if tied is None else tied & names
        return bool(tied)

    # Changes: the rows of the target, and of the other FROMs, which must be joined to it.

    def visit_update(self, update_stmt: Update, visiting_cte: object = None, **kw: object) -> str:
        """Render an UPDATE of only the tenant's rows (called by SQLAlchemy)."""
        target = _target(update_stmt)
        text: str = super().visit_update(self._confined_change(update_stmt), visiting_cte=visiting_cte, **kw)
        self._check_tied(update_stmt)
        owner = self._owner_of(target)
        if owner is not None and owner.column is not None:
            self._check_new_tenant(update_stmt, without_annotations(target), owner.column)
        return text

    def _check_new_tenant(self, update_stmt: Update, table: Table, column: Column[object]) -> None:
        """If an UPDATE sets the tenant column, record its parameter: `connection` checks its value before sending."""
        classes = [mapper for mapper in TABLES.classes_of(table) if mapper.columns.contains_column(column)]
        keys = {column.key, column.name, *(mapper.get_property_by_column(column).key for mapper in classes)}
        for target, value in values_of(update_stmt).items():
            if getattr(target, "key", target) not in keys:
                continue
            name = self.bind_names.get(value)
            if name is None:
                self._mark_unknown(f"An UPDATE that takes the tenant of {table.name!r} from an expression")
            else:
                self.scopes[name] = column
        if column.key in (self.column_keys or ()):
            self.scopes[column.key] = column

    def visit_delete(self, delete_stmt: Delete, visiting_cte: object = None, **kw: object) -> str:
        """Render a DELETE of only the tenant's rows (called by SQLAlchemy)."""
        text: str = super().visit_delete(self._confined_change(delete_stmt), visiting_cte=visiting_cte, **kw)
        self._check_tied(delete_stmt)
        return text

    def visit_insert(
        self, insert_stmt: Insert, visited_bindparam: object = None, visiting_cte: object = None, **kw: object
    ) -> str:
        """Render an INSERT (called by SQLAlchemy). The tenant has been set in its rows before.

        An INSERT inside another statement has not been checked, so it is marked as unknown.
        """
        self._look_at_hints(insert_stmt)
        if self._owner_of(_target(insert_stmt)) is not None and (visiting_cte is not None or self.stack):
            self._mark_unknown(f"An INSERT into {insert_stmt.table.name!r} within another statement")
        return super().visit_insert(insert_stmt, visited_bindparam=visited_bindparam, visiting_cte=visiting_cte, **kw)

    def _confined_change(self, statement: Change) -> Change:
        self._look_for_custom(statement)
        self._look_at_hints(statement)
        target = _target(statement)
        statement = self._inherited_change(statement, target)
        ties = list(_ties(statement._where_criteria))
        self._confined.add(id(without_annotations(target)))
        conditions = list(self._own_conditions(target, ties))
        for source in _other_sources(statement, target):
            conditions += self._conditions(source, ties)
        return statement.where(*conditions) if conditions else statement

    def _inherited_change(self, statement: Change, target: NamedFromClause) -> Change:
        """Join the tables of parent classes, which SQLAlchemy adds beside the target without a condition."""
        beside = _other_sources(statement, target)
        chains = [
            each for each in inherited_from(without_annotations(target)) if any(table in beside for table, _ in each)
        ]
        if not chains:
            return statement
        parents = chains[0]
        tables: list[FromClause] = [table for table, _ in parents]
        chain = parents[: max(tables.index(source) for source in beside if source in tables) + 1]
        sources = (each for value in values_of(statement).values() for each in getattr(value, "_from_objects", ()))
        if any(without_annotations(each) in tables for each in sources):
            return statement.where(*(condition for _, condition in chain))
        source: FromClause = without_annotations(target)
        for table, condition in chain:
            source = source.join(table, condition)
        keys = list(without_annotations(target).primary_key.columns)
        matching = select(*keys).select_from(source).where(*statement._where_criteria).correlate(None)
        statement = clone(statement)
        statement._where_criteria = (_columns(keys).in_(matching),)
        return statement

    def _check_tied(self, statement: Change) -> None:
        """Mark an UPDATE or DELETE as unknown if it uses another table that no condition joins to the target.

        Such a statement would change all rows of the target if the other table contains any row.
        """
        if self.stack or self.from_linter is None:
            return
        apart, _ = self.from_linter.lint()
        names = {_name(each) for value in values_of(statement).values() for each in getattr(value, "_from_objects", ())}
        names.discard(_name(_target(statement)))  # a column of the same table, as in SET n = n + 1, is no join
        if apart and not any(_name(each) in names for each in self.from_linter.froms):
            name = statement.table.name  # type: ignore[union-attr]  # as in `_target`
            self._mark_unknown(f"A change of {name!r} with tables that no condition joins to it")


def _target(statement: Change | Insert) -> NamedFromClause:
    """The table that is written. In bulk operations the ORM writes an inherited class's rows table by table."""
    annotations = annotations_of(statement)
    for name in ("_emit_update_table", "_emit_insert_table"):
        if name in annotations:
            table: Table = annotations[name]
            return table
    return statement.table  # type: ignore[return-value]  # only MySQL can change a join


def _other_sources(statement: Change, target: NamedFromClause) -> list[FromClause]:
    """The distinct FROMs of an UPDATE or DELETE besides its target."""
    sources: dict[Name, FromClause] = {}
    for element in (*statement._where_criteria, *values_of(statement).values()):
        for source in getattr(element, "_from_objects", ()):
            if _name(source) != _name(target):
                sources.setdefault(_name(source), without_annotations(source))
    return list(sources.values())


def _table_of(source: ReturnsRows | None) -> TableClause | None:
    """The table of a FROM that is a table, or an alias or sample of a table; else None."""
    while isinstance(source, AliasedReturnsRows):
        source = source.element
    return source if isinstance(source, TableClause) else None


def _aliases(source: FromClause) -> Iterator[FromClause]:
    """The FROM itself and, if it is an alias of other aliases, these aliases too."""
    yield source
    while isinstance(source, AliasedReturnsRows) and isinstance(source.element, AliasedReturnsRows):
        source = source.element
        yield source


def _name(source: FromClause | None) -> Name:
    if isinstance(source, Table):
        return source.key
    return getattr(source, "name", None) or id(source)


def _columns(columns: Sequence[ColumnElement[Any]]) -> ColumnElement[Any]:
    return columns[0] if len(columns) == 1 else tuple_(*columns)


def _ties(criteria: Iterable[object]) -> Iterator[Equality]:
    """The equalities in conditions that are combined by AND."""
    pending = list(criteria)
    while pending:
        element = pending.pop()
        if isinstance(element, Grouping):
            pending.append(element.element)
        elif isinstance(element, BooleanClauseList) and element.operator is operators.and_:
            pending.extend(element.clauses)
        elif isinstance(element, BinaryExpression) and element.operator is operators.eq:
            for one, other in ((element.left, element.right), (element.right, element.left)):
                if isinstance(one, ColumnClause) and one.table is not None:
                    yield (_name(one.table), one.key), other


_CONFINING = "_dotmac_confining"


def confining(dialect: Dialect, tenant_free: frozenset[str] = frozenset()) -> Dialect:
    """A copy of the dialect with a confining compiler. A new copy is made after a change of the mapped classes.

    It shares the attributes of ``dialect``, but is another object, so that SQLAlchemy caches its statements separately.
    """
    copies: dict[object, Any] = dialect.__dict__.setdefault(_CONFINING, {})
    version = TABLES.current()
    if copies.get("version") != version:
        copies.clear()
        copies["version"] = version
    copy: Dialect | None = copies.get(tenant_free)
    if copy is None:
        copy = copies[tenant_free] = _confining_copy(dialect, tenant_free)
    return copy


def _confining_copy(dialect: Dialect, tenant_free: frozenset[str]) -> Dialect:
    base, preparer = dialect.statement_compiler, type(dialect.identifier_preparer)
    own = {"tenant_free": tenant_free, **unknown_hooks(base)}
    compiler = type(f"Confining{base.__name__}", (ConfiningCompiler, base), own)
    quoting = type(f"Quoting{preparer.__name__}", (Quoting, preparer), {})(dialect)
    kind = type(dialect)
    members = {
        "statement_compiler": compiler,
        "identifier_preparer": property(lambda _: quoting),
        "supports_statement_cache": dialect.supports_statement_cache,  # SQLAlchemy requires it on each class
    }
    copy: Dialect = object.__new__(type(kind.__name__, (kind,), members))
    copy.__dict__ = dialect.__dict__
    return copy
