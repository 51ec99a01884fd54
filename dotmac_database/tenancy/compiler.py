"""A compiler whose statements are confined: whatever is read or changed is the served tenant's.

A guarded session's connection compiles with it (`confining`). It acts where SQLAlchemy renders each FROM, after the ORM
has made its joins, so that no way of writing a statement passes it by: subqueries, common table expressions, unions,
loads of relationships, subselects within VALUES and SET. The condition stands where it changes nothing else: in WHERE,
in the ON of an outer join for what may be missing there, and in a subselect of its own within a FULL JOIN. So a
statement has the rows that it would have in a database of that tenant alone.

What it can't see through it names in ``opaque`` (text) and ``unknown`` (tables and functions that the mapped classes'
metadata does not have); the look at the connection, in `wire`, refuses those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Dialect, Table, and_, exists, literal_column, select, tuple_
from sqlalchemy.sql import operators
from sqlalchemy.sql.compiler import COLLECT_CARTESIAN_PRODUCTS, NO_LINTING
from sqlalchemy.sql.elements import BinaryExpression, BooleanClauseList, ColumnClause, ColumnElement, Grouping
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import AliasedReturnsRows, FromGrouping, Join, SelectBase, TableClause, Values

from ..dialects.own import OwnTable
from .fragments import FragmentCompiler, Quoting, unknown_hooks
from .parameters import ScopeParameter, owner_parameter
from .tables import TABLES, Owner, Reference, inherited_from

Tie = tuple[tuple[Any, str], Any]
"""A column that a condition equates with something: the name of what it is of, its key, and the other side."""


_Base: Any = FragmentCompiler  # SQLAlchemy's compilers are not typed


class ConfiningCompiler(_Base):  # type: ignore[misc]  # as above
    """The part that is laid over a dialect's own compiler."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        self.touched: set[Table] = set()
        self.owner_columns: dict[str, Any] = {}
        self.scopes: dict[str, Any] = {}
        self._owner_parameters: dict[Any, Any] = {}
        self._confined: set[int] = set()
        self._exempt: dict[int, Any] = {}
        # Which FROMs are tied to each other is looked at in what changes rows.
        kw["linting"] = kw.get("linting", NO_LINTING) | COLLECT_CARTESIAN_PRODUCTS
        super().__init__(*args, **kw)

    # What is read: the rows of every FROM.

    def _compose_select_body(
        self, text: Any, select: Any, compile_state: Any, inner_columns: Any, froms: Any, *rest: Any
    ) -> Any:
        self._look_for_custom(select)
        self._look_at_hints(select)
        outside, self._confined = self._confined, set()
        ties = list(_ties(select._where_criteria))
        conditions = [condition for each in froms for condition in self._conditions(each, ties)]
        if conditions:
            select = select._clone()
            select._where_criteria += tuple(conditions)
        text = super()._compose_select_body(text, select, compile_state, inner_columns, froms, *rest)
        self._confined = outside
        return text

    def visit_select(self, select_stmt: Any, *args: Any, **kw: Any) -> Any:
        """SQLAlchemy's hook; a SELECT within a FULL JOIN's condition is confined by itself."""
        kw.pop("dotmac_apart", None)
        return super().visit_select(select_stmt, *args, **kw)

    def visit_join(self, join: Any, asfrom: bool = False, from_linter: Any = None, **kw: Any) -> Any:
        """SQLAlchemy's hook: a join, with the conditions on what an outer join may leave out in its ON."""
        if join.full:
            kw["dotmac_apart"] = True
        elif join.isouter and not kw.get("dotmac_apart"):
            conditions = list(self._conditions(join.right, list(_ties((join.onclause,)))))
            if conditions:
                clone = join._clone()
                clone.onclause = and_(join.onclause, *conditions)
                join = clone
        return super().visit_join(join, asfrom=asfrom, from_linter=from_linter, **kw)

    def visit_table(self, table: Any, asfrom: bool = False, iscrud: bool = False, **kw: Any) -> Any:
        """SQLAlchemy's hook: a table that stands as a FROM must have been confined."""
        apart = kw.pop("dotmac_apart", False)
        text: str = super().visit_table(table, asfrom=asfrom, iscrud=iscrud, **kw)
        if not asfrom:
            return text
        owner = self._owner_of(table)
        if owner is None:
            return text
        alias = kw.get("enclosing_alias")
        if alias is not None and alias.element is not table:
            alias = None  # a subquery, of which this is a FROM
        if apart and alias is None:
            return self._by_itself(table, text, self.preparer.quote(table.name))
        place = id(_plain(table) if iscrud else table if alias is None else alias)
        if not apart and place not in self._confined and place not in self._exempt:
            self._refuse(f"The place of {table.name!r}")
        return text

    def visit_alias(self, alias: Any, asfrom: bool = False, **kw: Any) -> Any:
        """SQLAlchemy's hook: an alias of a table, confined as a table is."""
        table = _table_of(alias)
        apart = kw.get("dotmac_apart", False)
        text: str = super().visit_alias(alias, asfrom=asfrom, **kw)
        if not (apart and asfrom and table is not None and self._owner_of(table)):
            return text
        return self._by_itself(alias, text, text.rpartition(" AS ")[2])

    def _by_itself(self, source: Any, text: str, name: str) -> str:
        """A table as a subselect, where no other place has the condition: within a FULL JOIN."""
        if self.preparer.schema_for_object(_table_of(source)) and source is _table_of(source):
            self._refuse(f"The table {source.name!r}, which has a schema, within a FULL JOIN without an alias")
        conditions = list(self._own_conditions(source, []))
        where = f" WHERE {self.process(and_(*conditions))}" if conditions else ""
        return f"(SELECT * FROM {text}{where}) AS {name}"  # noqa: S608 - rendered by SQLAlchemy

    def _conditions(self, source: Any, ties: list[Tie]) -> Iterator[ColumnElement[bool]]:
        """The conditions on a FROM that its WHERE, or the ON around it, must have."""
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

    def _recognize(self, source: Any) -> None:
        """Refuse a FROM of an unknown kind. A function is looked at where it is rendered, as every function is."""
        if isinstance(source, (FromGrouping, AliasedReturnsRows)):
            self._recognize(source.element)
        elif isinstance(source, Join):
            self._recognize(source.left)
            self._recognize(source.right)
        elif not isinstance(source, (TableClause, SelectBase, Values, FunctionElement)) and not hasattr(
            source, "_returning"
        ):
            self._refuse(f"A {type(source).__name__} as a FROM")

    def _owner_of(self, table: Any) -> Owner | None:
        """The owner of a table's rows; notes what is touched, and what is not known."""
        if not isinstance(table, Table) or not TABLES.knows(table):
            if not isinstance(table, OwnTable) and table.name.lower() not in self.tenant_free:
                self._refuse(f"The table {table.name!r}, which no mapped class's metadata has,")
            return None
        owner = TABLES.owner(table)
        if owner is not None:
            self.touched.add(table._deannotate() if table._annotations else table)
            if owner.is_unknown:
                self._refuse(f"The table {table.name!r}, of which no column says whose its rows are,")
        return owner

    def _own_conditions(self, source: Any, ties: list[Tie]) -> Iterator[ColumnElement[bool]]:
        """The conditions that a table's, or an alias's, rows are the tenant's; none where ``ties`` say it already."""
        table: Any = _table_of(source)
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

    def _tenant(self, column: Any) -> Any:
        """The parameter that takes the served tenant."""
        parameter = self._owner_parameters.get(column)
        if parameter is None:
            parameter = self._owner_parameters[column] = owner_parameter(len(self._owner_parameters), column)
            self.owner_columns[parameter.key] = column
        return parameter

    def _is_scoped(self, source: Any, column: Any, ties: list[Tie]) -> bool:
        """Whether a repository has compared the tenant's column with its own parameter already."""
        for (name, key), other in ties:
            if key == column.key and name == _name(source) and isinstance(other, ScopeParameter):
                self.scopes[other.key] = column
                return True
        return False

    def _is_tied(self, source: Any, reference: Reference, ties: list[Tie]) -> bool:
        """Whether the rows are equated, in all columns of the reference, with rows that are confined by themselves."""
        visible = set(map(_name, self.stack[-1]["correlate_froms"])) if self.stack else set()
        found: set[Any] | None = None
        for here, there in reference.pairs:
            names = {
                _name(other.table)
                for (name, key), other in ties
                if key == here.key
                and name == _name(source)
                and isinstance(other, ColumnClause)
                and other.key == there.key
                and _plain(_table_of(other.table)) is reference.table
                and _name(other.table) in visible
            }
            found = names if found is None else found & names
        return bool(found)

    # What is changed: the rows of the target, tied to whatever stands beside it.

    def visit_update(self, update_stmt: Any, visiting_cte: Any = None, **kw: Any) -> Any:
        """SQLAlchemy's hook: UPDATE of the tenant's rows alone."""
        target = _target(update_stmt)
        text = super().visit_update(self._confined_change(update_stmt), visiting_cte=visiting_cte, **kw)
        self._check_tied(update_stmt)
        owner = self._owner_of(target)
        if owner is not None and owner.column is not None:
            self._check_given(update_stmt, _plain(target), owner.column)
        return text

    def _check_given(self, update_stmt: Any, table: Any, column: Any) -> None:
        """Have a tenant that an UPDATE sets compared with the session's before it is sent."""
        of = [mapper for mapper in TABLES.classes_of(table) if mapper.columns.contains_column(column)]
        keys = {column.key, column.name, *(mapper.get_property_by_column(column).key for mapper in of)}
        for given, value in _values(update_stmt).items():
            if getattr(given, "key", given) not in keys:
                continue
            name = self.bind_names.get(value)
            if name is None:
                self._refuse(f"An UPDATE that takes the tenant of {table.name!r} from an expression")
            else:
                self.scopes[name] = column
        if column.key in (self.column_keys or ()):
            self.scopes[column.key] = column

    def visit_delete(self, delete_stmt: Any, visiting_cte: Any = None, **kw: Any) -> Any:
        """SQLAlchemy's hook: DELETE of the tenant's rows alone."""
        text = super().visit_delete(self._confined_change(delete_stmt), visiting_cte=visiting_cte, **kw)
        self._check_tied(delete_stmt)
        return text

    def visit_insert(self, insert_stmt: Any, visited_bindparam: Any = None, visiting_cte: Any = None, **kw: Any) -> Any:
        """SQLAlchemy's hook: INSERT, whose rows were stamped before; one within another statement was not."""
        self._look_at_hints(insert_stmt)
        if self._owner_of(_target(insert_stmt)) is not None and (visiting_cte is not None or self.stack):
            self._refuse(f"An INSERT into {insert_stmt.table.name!r} within another statement")
        return super().visit_insert(insert_stmt, visited_bindparam=visited_bindparam, visiting_cte=visiting_cte, **kw)

    def _confined_change(self, statement: Any) -> Any:
        self._look_for_custom(statement)
        self._look_at_hints(statement)
        target = _target(statement)
        statement = self._inherited_change(statement, target)
        ties = list(_ties(statement._where_criteria))
        self._confined.add(id(_plain(target)))
        conditions = list(self._own_conditions(target, ties))
        for source in _beside(statement, target):
            conditions += self._conditions(source, ties)
        return statement.where(*conditions) if conditions else statement

    def _inherited_change(self, statement: Any, target: Any) -> Any:
        """Tie the tables of an inherited class's parents, which SQLAlchemy puts beside the target as they are."""
        beside = _beside(statement, target)
        ways = [way for way in inherited_from(_plain(target)) if any(table in beside for table, _ in way)]
        if not ways:
            return statement
        parents = ways[0]
        tables = [table for table, _ in parents]
        chain = parents[: max(tables.index(source) for source in beside if source in tables) + 1]
        sources = (each for value in _values(statement).values() for each in getattr(value, "_from_objects", ()))
        if any(_plain(each) in tables for each in sources):
            return statement.where(*(condition for _, condition in chain))
        source = _plain(target)
        for table, condition in chain:
            source = source.join(table, condition)
        keys = list(_plain(target).primary_key.columns)
        matching = select(*keys).select_from(source).where(*statement._where_criteria).correlate(None)
        statement = statement._clone()
        statement._where_criteria = (_columns(keys).in_(matching),)
        return statement

    def _check_tied(self, statement: Any) -> None:
        """Refuse a change for which another table only has to hold some row, which no condition ties to the changed."""
        if self.stack or self.from_linter is None:
            return
        linter: Any = self.from_linter
        apart, _ = linter.lint()
        used = {_name(each) for value in _values(statement).values() for each in getattr(value, "_from_objects", ())}
        used.discard(_name(_target(statement)))  # a column of its own, as in SET n = n + 1, ties nothing
        if apart and not any(_name(each) in used for each in linter.froms):
            self._refuse(f"A change of {statement.table.name!r} beside tables that no condition ties to it")


def _target(statement: Any) -> Any:
    """The table that is written: in bulk the ORM writes an inherited class's rows table by table."""
    annotations = statement._annotations
    for name in ("_emit_update_table", "_emit_insert_table"):
        if name in annotations:
            return annotations[name]
    return statement.table


def _beside(statement: Any, target: Any) -> list[Any]:
    """The FROMs that an UPDATE or DELETE names beside its target, each once."""
    found: dict[Any, Any] = {}
    for element in (*statement._where_criteria, *_values(statement).values()):
        for source in getattr(element, "_from_objects", ()):
            if _name(source) != _name(target):
                found.setdefault(_name(source), _plain(source))
    return list(found.values())


def _values(statement: Any) -> dict[Any, Any]:
    """What an UPDATE sets, by column."""
    return {**(getattr(statement, "_values", None) or {}), **dict(getattr(statement, "_ordered_values", None) or ())}


def _plain(table: Any) -> Any:
    return table._deannotate() if getattr(table, "_annotations", None) else table


def _table_of(source: Any) -> Any:
    """The table that a FROM is, or is an alias or a sample of; None: it is something else."""
    while isinstance(source, AliasedReturnsRows):
        source = source.element
    return source if isinstance(source, TableClause) else None


def _aliases(source: Any) -> Iterator[Any]:
    """A FROM, and what it is an alias of, up to the table."""
    yield source
    while isinstance(source, AliasedReturnsRows) and isinstance(source.element, AliasedReturnsRows):
        source = source.element
        yield source


def _name(source: Any) -> Any:
    """What a FROM is called within one statement."""
    if isinstance(source, Table):
        return source.key
    return getattr(source, "name", None) or id(source)


def _columns(columns: list[Any]) -> Any:
    return columns[0] if len(columns) == 1 else tuple_(*columns)


def _ties(criteria: Iterable[Any]) -> Iterator[Tie]:
    """What the conditions, all of which must hold, equate."""
    waiting = list(criteria)
    while waiting:
        element = waiting.pop()
        if isinstance(element, Grouping):
            waiting.append(element.element)
        elif isinstance(element, BooleanClauseList) and element.operator is operators.and_:
            waiting.extend(element.clauses)
        elif isinstance(element, BinaryExpression) and element.operator is operators.eq:
            for one, other in ((element.left, element.right), (element.right, element.left)):
                if isinstance(one, ColumnClause) and one.table is not None:
                    yield (_name(one.table), one.key), other


_CONFINING = "_dotmac_confining"


def confining(dialect: Dialect, tenant_free: frozenset[str] = frozenset()) -> Dialect:
    """The dialect as it is, but for its compiler. One for each state of the mapped classes.

    It shares the attributes of ``dialect``, and is another object, so that SQLAlchemy keeps its statements apart.
    """
    held: dict[Any, Any] = dialect.__dict__.setdefault(_CONFINING, {})
    version = TABLES.current()
    if held.get("version") != version:
        held.clear()
        held["version"] = version
    made: Dialect | None = held.get(tenant_free)
    if made is None:
        made = held[tenant_free] = _made(dialect, tenant_free)
    return made


def _made(dialect: Any, tenant_free: frozenset[str]) -> Dialect:
    base, preparer = dialect.statement_compiler, type(dialect.identifier_preparer)
    own = {"tenant_free": tenant_free, **unknown_hooks(base)}
    compiler = type(f"Confining{base.__name__}", (ConfiningCompiler, base), own)
    quoting = type(f"Quoting{preparer.__name__}", (Quoting, preparer), {})(dialect)
    kind = type(dialect)
    members = {
        "statement_compiler": compiler,
        "identifier_preparer": property(lambda _: quoting),
        "supports_statement_cache": dialect.supports_statement_cache,  # SQLAlchemy wants it of each class
    }
    made: Any = object.__new__(type(kind.__name__, (kind,), members))
    made.__dict__ = dialect.__dict__
    confined: Dialect = made
    return confined
