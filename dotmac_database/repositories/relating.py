"""Loads relationships with options of their own into the entities that a read returns."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

from sqlalchemy.orm import Mapper
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.base import instance_dict, instance_state
from sqlalchemy.orm.collections import collection_adapter

from ..execution.partial import note_partial
from ..execution.state import keep
from ..execution.strict import make_strict
from ..field_names import names_for
from ..models.traits import traits_of
from ..policies import Right
from ..query import RelationshipsLike
from ..statements.reads import Bound, Reader
from ..statements.related import Branch, branches_of, related
from .core import SyncDb
from .running import Rows, StatementRunner

M = TypeVar("M")
Objects: TypeAlias = builtins.list[Any]
Classes: TypeAlias = set[Mapper[Any]]


class RelationshipLoader(StatementRunner[M, SyncDb]):
    """Reads entities with their relationships. All its methods are private."""

    def _loading(self, reader: Reader, bound: Bound, relationships: RelationshipsLike) -> Rows:
        """The rows of a read of entities, whose relationships are loaded.

        A relationship with options takes one statement after the read, for any number of rows.
        """
        if not isinstance(relationships, Mapping):
            names = names_for(self.model_class, relationships) if relationships else ()
            return self._fetched(reader.loading(bound, names))
        branch = branches_of(self.traits, relationships, reader.scope.rules)
        rows = self._fetched(reader.loading(bound, [*branch.plain]))
        if branch.has_options and rows:
            entities = [row[0] for row in rows]
            passed = {self.traits.mapper.base_mapper, *_plain_classes(reader, branch)}
            self._load_branches(reader, entities, branch, "", passed)
            if self._strict:
                make_strict(self._session, entities)
            self._rule_objects(entities)
        return rows

    def _entities(self, reader: Reader, bound: Bound, relationships: RelationshipsLike = None) -> builtins.list[M]:
        entities: builtins.list[M] = [row[0] for row in self._loading(reader, bound, relationships)]
        keep(self._session, *entities)
        return entities

    def _load_branches(
        self, reader: Reader, entities: Iterable[object], branch: Branch, way: str, passed: Classes
    ) -> None:
        parents = builtins.list({id(each): each for each in entities}.values())
        for name, below in branch.branches.items():
            relationship = reader.traits.relationships[name]
            target = traits_of(relationship.mapper.class_)
            path = f"{way}{name}"
            beginning = f"{path}."
            deferred = frozenset(
                each.removeprefix(beginning) for each in self._undeferred if each.startswith(beginning)
            )
            deleted = reader.scope.include_deleted or (below.options is not None and below.options.include_deleted)
            scope = replace(reader.scope, include_deleted=deleted, conditions=(), right=Right.READ)
            inner = Reader(target, scope, self._dialect, undeferred=deferred)
            if below.options is not None:
                members = self._load(reader, inner, parents, name, below, passed)
            else:
                members = _loaded(parents, name, many=bool(relationship.uselist))
            if below.has_options and members:
                self._load_branches(inner, members, below, beginning, passed)

    def _load(
        self, reader: Reader, inner: Reader, parents: Objects, name: str, below: Branch, passed: Classes
    ) -> Objects:
        """Load one relationship of the parents in one statement, and return the related objects."""
        relationship = reader.traits.relationships[name]
        options = below.options
        assert options is not None
        by_key = {reader.key(reader.traits.key_of(each)): each for each in parents}
        bound = related(inner, reader, relationship, options, builtins.list(by_key))
        bound = inner.loading(bound, [*below.plain])
        if inner.traits.mapper.base_mapper in passed:
            # A second read of an object would discard the relationships that the first one has loaded.
            bound = replace(bound, execution_options={"populate_existing": False})
        passed.update({inner.traits.mapper.base_mapper, *_plain_classes(inner, below)})
        rows: Rows = self._read(
            lambda execution_options: builtins.list(self._execute(bound, execution_options).unique().all())
        )
        members: dict[object, Objects] = {id(each): [] for each in by_key.values()}
        for row in rows:
            members[id(by_key[reader.key(row[1:])])].append(row[0])
        for parent in by_key.values():
            if name in instance_state(parent).committed_state:
                continue  # it has changes that are not flushed
            within = members[id(parent)]
            value: object = within if relationship.uselist else next(iter(within), None)
            set_committed_value(parent, name, value)
            note_partial(parent, name)
        loaded = [row[0] for row in rows]
        keep(self._session, *loaded)
        return loaded


def _loaded(parents: Iterable[object], name: str, *, many: bool) -> Objects:
    """The objects in a relationship that is loaded already."""
    members: Objects = []
    for parent in parents:
        value = instance_dict(parent).get(name)
        if value is not None:
            members.extend(collection_adapter(value) if many else (value,))
    return members


def _plain_classes(reader: Reader, branch: Branch) -> Classes:
    """The classes that a read loads by the paths without options."""
    classes: Classes = set()
    for name, below in branch.branches.items():
        if below.options is None:
            target = traits_of(reader.traits.relationships[name].mapper.class_)
            classes |= {target.mapper.base_mapper, *_plain_classes(replace(reader, traits=target), below)}
    return classes
