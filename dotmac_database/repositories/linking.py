"""Links rows by to-many relationships, without loading what is linked already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sqlalchemy import and_, not_, or_, select, update
from sqlalchemy.sql import ColumnElement

from ..actors import current_actor
from ..dialects.own_statements import OWN
from ..errors import EntityNotFoundError
from ..execution.routes import Circumstance, Sender, change_refusal
from ..field_names import FieldName, name_for
from ..models.traits import Traits
from ..policies import ModelRules, Right
from ..statements.data import Values
from ..statements.inheritance import nothing
from ..statements.links import Link, LinkStatements, link_of, targets_of
from ..statements.reads import Bound, Reader, for_update
from ..statements.rules import RulesInSql
from ..statements.scope import Scope
from ..statements.writes import Writer
from ..tenancy.context import ALL_TENANTS
from .changing import RowWriter
from .core import SyncDb

M = TypeVar("M")

_COUNTING = {OWN: True, "preserve_rowcount": True}
"""Without the second option, SQLAlchemy does not keep the number of rows that an INSERT has written."""


@dataclass(frozen=True)
class _Ends:
    """The parent of links, with the ``values`` of its attributes and its tenant, and the targets."""

    link: Link
    values: Values
    tenant: object
    targets: Reader
    keys: Sequence[tuple[object, ...]]


class LinkMethods(RowWriter[M, SyncDb]):
    """Links rows by many-to-many relationships, and by one-to-many relationships. Each call is atomic.

    The row and its targets must exist in the tenant and not be soft-deleted, else `EntityNotFoundError` is raised. With
    `ALL_TENANTS` both must belong to the same tenant. Two SELECTs, and one statement that writes, however many rows
    there are; on SQLite one statement more. Raises `ValidationError` for a relationship that is unknown, to-one, or
    viewonly; that has a condition of its own; or whose table has other columns that must be given.

    The row is locked until the transaction ends. If rows are linked twice at the same time, there is one link. The
    session's objects load the relationship, and its reverse, again. For children by a foreign key, audit columns and
    versions are written as by `update`; if their class has listeners, they are loaded and flushed.
    """

    def link(self, entity_id: object, relationship: FieldName, ids: Iterable[object]) -> int:
        """Link the rows with the primary keys ``ids`` to a row, and return how many links are new.

        A child by a foreign key leaves its former parent. See `LinkMethods`.
        """
        return self._link(entity_id, relationship, ids, adds=True, removes=False)[0]

    def unlink(self, entity_id: object, relationship: FieldName, ids: Iterable[object]) -> int:
        """Remove the links of a row to the rows with the primary keys ``ids``, and return how many were removed.

        The foreign keys of children become NULL; `ValidationError` is raised if they can't. See `LinkMethods`.
        """
        return self._link(entity_id, relationship, ids, adds=False, removes=True)[1]

    def set_links(self, entity_id: object, relationship: FieldName, ids: Iterable[object]) -> tuple[int, int]:
        """Link a row to the rows with the primary keys ``ids`` and to no others. Returns how many were added, removed.

        Links to soft-deleted rows remain. As `link` and `unlink` otherwise, with two statements that write.
        """
        return self._link(entity_id, relationship, ids, adds=True, removes=True)

    def _link(
        self, entity_id: object, relationship: FieldName, ids: Iterable[object], *, adds: bool, removes: bool
    ) -> tuple[int, int]:
        link = link_of(self.traits, name_for(self.model_class, relationship))
        if removes:
            link.refuse_required()
        key = self._reader().key(entity_id)
        keys_of = Reader(link.target_traits, Scope(ALL_TENANTS), self._dialect).key
        keys = list(dict.fromkeys(map(keys_of, ids)))
        with self._writing(self._write_route(Sender.STATEMENT, Circumstance.STATEMENT, is_single=False)):
            self._session.flush()
            ends = self._ends(link, key, keys)
            write = self._write_rows if link.secondary is not None else self._write_children
            counts = write(ends, adds=adds, removes=removes)
            self._expire(link)
        return counts

    def _ends(self, link: Link, key: tuple[object, ...], keys: Sequence[tuple[object, ...]]) -> _Ends:
        """Lock the parent, and check that the targets exist. Raises `EntityNotFoundError`."""
        traits, reader = self.traits, self._reader(right=Right.UPDATE)
        if self._dialect.locks_whole:
            everything = self._reader(include_deleted=True)
            self._execute(Bound(nothing(everything), everything.scope.parameters), {"synchronize_session": False})
        names: list[str] = [name for name, _ in link.parent]
        if traits.tenant is not None and traits.tenant not in names:
            names.append(traits.tenant)
        columns: list[Any] = [traits.attribute(name) for name in names]
        where = [*reader.key_conditions(), *reader.scope.root(traits)]
        # FOR NO KEY UPDATE: a foreign key to the row, which another link may need, can be checked meanwhile.
        statement: Any = select(*columns).where(*where)
        statement = for_update(traits, statement, key_share=True)
        parameters = {**reader.scope.parameters, **reader.key_parameters(key)}
        row = self._execute(Bound(statement, parameters), {}).first()
        if row is None:
            self._refuse_denied(self._writer(None), key)
            raise self._not_found()
        values = dict(zip(names, row, strict=True))
        tenant = self.tenant_id if traits.tenant is None else values[traits.tenant]
        targets = Reader(link.target_traits, Scope(tenant, rules=reader.scope.rules), self._dialect)
        if keys:
            own = [link.target_traits.attribute(name) for name in link.target_traits.primary_key]
            existing = self._execute(targets_of(targets, own, keys), {}).all()
            if len(existing) != len(keys):
                name = link.target_traits.name
                raise EntityNotFoundError(f"There is no such {name}.", model=name)
        return _Ends(link, values, tenant, targets, keys)

    def _write_rows(self, ends: _Ends, *, adds: bool, removes: bool) -> tuple[int, int]:
        """Write rows of the secondary table."""
        statements = LinkStatements(ends.link, ends.targets, ends.values, ends.tenant)
        added = removed = 0
        if removes and (adds or ends.keys):
            removed = self._counted_rows(statements.delete(ends.keys, others=adds))
        if adds and ends.keys:
            added = self._counted_rows(statements.insert(ends.keys))
        return added, removed

    def _counted_rows(self, statement: Any) -> int:
        arguments = {"mapper": self.traits.mapper}
        result: Any = self._session.execute(statement, execution_options=_COUNTING, bind_arguments=arguments)
        return int(result.rowcount)

    def _write_children(self, ends: _Ends, *, adds: bool, removes: bool) -> tuple[int, int]:
        """Write the foreign keys of the children."""
        traits = ends.link.target_traits
        linked = [traits.attribute(child) == ends.values[key] for key, child in ends.link.changed]
        own: list[Any] = [traits.attribute(name) for name in traits.primary_key]
        chosen = ends.targets.dialect.row_among(own, "dotmac_keys")
        added = removed = 0
        if removes and (adds or ends.keys):
            to_remove = and_(*linked, not_(chosen) if adds else chosen)
            removed = self._changed_children(ends, to_remove, dict.fromkeys(child for _, child in ends.link.changed))
        if adds and ends.keys:
            other = or_(
                *(traits.attribute(child).is_distinct_from(ends.values[key]) for key, child in ends.link.changed)
            )
            values = {child: ends.values[key] for key, child in ends.link.changed}
            added = self._changed_children(ends, and_(chosen, other), values)
        return added, removed

    def _changed_children(self, ends: _Ends, condition: ColumnElement[bool], values: Values) -> int:
        if ends.targets.scope.rules is not None:
            rules = self._rules.of(ends.link.target_traits) if self._rules is not None else None
            if rules is not None:
                return self._changed_ruled(ends, condition, values, rules)
        targets, traits = ends.targets, ends.link.target_traits
        writer = Writer(targets, current_actor())
        values = writer.stamped(values)
        own: list[Any] = [traits.attribute(name) for name in traits.primary_key]
        where = [condition, *targets.scope.root(traits)]
        parameters = {
            **targets.scope.parameters,
            **targets.dialect.row_parameters(own, "dotmac_keys", ends.keys),
        }
        if change_refusal(self._session, traits, [values]) is None:
            statement: Any = update(traits.model).where(*where).values({**values, **writer.next_version()})
            return self._counted_of(Bound(statement, parameters), traits.model)
        children = for_update(traits, select(traits.model).where(*where))
        entities = self._execute(Bound(children, parameters), {"populate_existing": True}).scalars().unique().all()
        for entity in entities:
            for key, value in values.items():
                setattr(entity, key, value)
            if traits.version is not None and traits.mapper.version_id_col is None:
                setattr(entity, traits.version, traits.next_count(entity))
        self._flush()
        return len(entities)

    def _changed_ruled(self, ends: _Ends, condition: ColumnElement[bool], values: Values, rules: ModelRules) -> int:
        """As `_changed_children`, for children whose class has a policy: they are locked, judged and changed as rows.

        Raises `PermissionDeniedError` if the actor can read one of them, but not change it. Two SELECTs more.
        """
        traits = ends.link.target_traits
        for child in values:
            if child in rules.read_only:
                raise rules.denied_field(f"{self.traits.name}.{ends.link.name}")
        own: list[Any] = [traits.attribute(name) for name in traits.primary_key]
        chosen_keys = self._dialect.row_parameters(own, "dotmac_keys", ends.keys)
        keys: list[set[tuple[object, ...]]] = []
        for right in (Right.READ, Right.UPDATE):
            scope = replace(ends.targets.scope, right=right)
            chosen: Any = select(*own).where(condition, *scope.root(traits))
            statement: Any = for_update(traits, chosen)
            bound = ends.targets.confined(Bound(statement, {**scope.parameters, **chosen_keys}))
            keys.append({ends.targets.key(tuple(row)) for row in self._execute(bound, {}).all()})
        readable, changeable = keys
        if readable - changeable:
            raise rules.denied(Right.UPDATE)
        if not readable:
            return 0
        chosen = ends.targets.dialect.row_among(own, "dotmac_keys")
        limited = replace(ends, targets=replace(ends.targets, scope=replace(ends.targets.scope, rules=None)))
        limited = replace(limited, keys=list(readable))
        count = self._changed_children(limited, chosen, values)
        self._refuse_children(traits, rules, list(readable), ends.tenant)
        return count

    def _refuse_children(
        self, traits: Traits[Any], rules: ModelRules, keys: Sequence[tuple[object, ...]], tenant: object
    ) -> None:
        """Raise `PermissionDeniedError` if the actor may not store one of the children, as it was written."""
        rule = rules.stored_rule(Right.UPDATE)
        if rule is True or self._rules is None:
            return
        scope = Scope(tenant, include_deleted=True)
        condition = RulesInSql(self._rules, self._dialect, self.traits).condition(rule, traits, traits.model, scope)
        reader = Reader(traits, replace(scope, conditions=(condition,)), self._dialect)
        own: list[Any] = [traits.attribute(name) for name in traits.primary_key]
        bound = reader.confined(targets_of(reader, own, keys))
        if len(self._execute(bound, {}).all()) < len(keys):
            raise rules.denied_values(Right.UPDATE)

    def _expire(self, link: Link) -> None:
        """Let the session's objects load the relationship and its reverse again, since any of them can be stale."""
        for entity in list(self._session.identity_map.values()):
            if isinstance(entity, self.model_class):
                self._session.expire(entity, [link.name])
            if link.reverse is not None and isinstance(entity, link.target_traits.model):
                self._session.expire(entity, [link.reverse])
