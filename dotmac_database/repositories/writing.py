"""The methods that write single rows, implemented once, on the sync session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn, TypeVar

from sqlalchemy import inspect as sa_inspect
from sqlalchemy import select
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.base import instance_dict
from sqlalchemy.util import duck_type_collection

from ..errors import DuplicateEntityError, MisuseError, StaleEntityError, ValidationError
from ..execution.routes import (
    Circumstance,
    Reason,
    Route,
    Sender,
    change_refusal,
    log_route,
    needs_flush,
)
from ..field_names import RowData
from ..models.traits import traits_of
from ..policies import Right
from ..statements.data import Values
from ..statements.inheritance import of_key, spreads
from ..statements.reads import Bound
from ..statements.writes import Writer
from .acting import acts_for_user
from .changing import RowWriter
from .core import SyncDb
from .deleting import UnitOfWorkDeletion, deletion_refusal, enforces_keys, follow_database
from .rights import exercises_deletion

M = TypeVar("M")


class WriteMethods(RowWriter[M, SyncDb]):
    """Writes. Each write is atomic. With ``auto_commit`` it is committed, unless it is part of an open transaction.

    ``user_id`` is the actor, for the audit columns and for the history, as if the method were called in `acting_as`;
    None: the current one of `acting_as`.
    """

    @acts_for_user
    def create(self, data: RowData[M], user_id: str | None = None) -> M:
        """Insert one row and return it with all columns loaded. One INSERT, then COMMIT.

        ``data`` is a dict or a Pydantic object, and is not changed. The defaults of a Pydantic object are written, but
        instead of a default None the column's own default is used. Raises `ValidationError` for an unknown key,
        `TenantIsolationError` for another tenant's id, and `DuplicateEntityError` or `ConstraintViolationError` if the
        row violates a constraint.
        """
        writer = self._writer(user_id) if self._rules is None else self._creator(user_id)
        values = writer.refuse_nulls(self.values_for_create(writer.for_create(data).values), new=True)
        conditioned = self._has_conditions
        refusal: Reason | None = Circumstance.CONDITIONS if conditioned else Circumstance.MODEL
        bound, entity = (None, None) if conditioned else self._insert_of(writer, values)
        is_open = self._rules is not None and self._is_open_creation(values, entity, is_final=bound is not None)
        if bound is not None and not is_open:
            route = self._write_route(Sender.UNIT_OF_WORK, is_checked=True)  # by `_insert_of`
            by_driver = route.sender is Sender.DRIVER
            created = self._by_driver(route, bound, is_insert=True, entity=entity) if by_driver else None
            if created is not None:
                return created[0]
            refusal = Circumstance.STATEMENT if by_driver else route.reason
        elif isinstance(data, self.model_class):
            self._unlink(data, values)
        is_single = not is_open and self._is_one_insert(values)
        route = self._write_route(Sender.UNIT_OF_WORK, refusal, is_single=is_single)
        with self._writing(route) as without_begin:
            entity = self._flushed(values, entity, without_begin, is_open=is_open)
            self._note_written(entity)
        return entity

    def _is_open_creation(self, values: Values, entity: M | None, *, is_final: bool) -> bool:
        """Whether only the stored row shows if it may be stored. ``is_final``: a flush can't change the values."""
        if is_final:
            return self._is_open(values if entity is None else self._values_of(entity, values))
        self._refuse_creation()
        return self._judge(Right.CREATE) is not None or bool(self.traits.relationships.keys() & values.keys())

    def _insert_of(self, writer: Writer, values: Values) -> tuple[Bound | None, M | None]:
        """The INSERT of a row, and its object if the class's constructor or validators must be called for it.

        No INSERT if the session's unit of work must insert the row, which then inserts this object, if there is one.
        """
        if self.traits.direct_creates:
            return writer.insert_of(values), None
        by_columns = values.keys() <= self.traits.columns.keys() and not writer.holds_sql(values)
        if not by_columns or not self.traits.inserts_constructed or self._held(values) is not None:
            return None, None
        entity = self._new_object(values)
        if self.traits.relationships.keys() & instance_dict(entity).keys():
            return None, entity
        return writer.insert_of(self._values_of(entity, values)), entity

    def _flushed(
        self, values: Values, entity: M | None, without_begin: Callable[[], None], *, is_open: bool = False
    ) -> M:
        """Insert a new object by the session's unit of work. ``is_open``: rules can refuse the stored row."""
        if entity is None:
            self._refuse_held(values)
            entity = self._new_object(values)
        session = self._session
        if is_open:
            self._refuse_related(values, is_update=False)
        earlier = frozenset(map(id, session.new)) if is_open else frozenset[int]()  # objects of SQLModel have no hash
        session.add(entity)
        related = [each for each in session.new if id(each) not in earlier and each is not entity] if is_open else []
        if not is_open and len(session.new) == 1 and not (session.dirty or session.deleted):
            without_begin()
        self._flush()
        self._complete(entity)
        if is_open:
            self._refuse_stored([entity], Right.CREATE)
            self._refuse_related_stored(related)
        return entity

    def _held(self, values: Values) -> object | None:
        """The object with the key of these values that the session holds."""
        key = tuple(values.get(name) for name in self.traits.primary_key)
        if None in key or not len(self._session.identity_map):
            return None
        return self._session.identity_map.get(self.traits.mapper.identity_key_from_primary_key(key))

    def _refuse_held(self, values: Values) -> None:
        """Raise `DuplicateEntityError` if the session holds an object with this key and its row exists.

        Otherwise the ORM would only warn that the new object replaces it.
        """
        held = self._held(values)
        if held is None:
            return
        key = tuple(values.get(name) for name in self.traits.primary_key)
        everywhere = self._unruled()
        if self._execute(everywhere.has_key(everywhere.key(key)), {}).first() is not None:
            fields = self.traits.primary_key
            raise DuplicateEntityError(f"{self.traits.name} exists already: {', '.join(fields)}.", fields=fields)
        self._session.expunge(held)  # its row is gone, so the key is free

    def _is_one_insert(self, values: Values) -> bool:
        """Whether a flush of a new object with these values sends one INSERT, if nothing else is pending."""
        mapper = self.traits.mapper
        return (
            self.traits.direct_writes
            and not needs_flush(self.traits, values)
            and not mapper.dispatch.before_insert
            and not mapper.dispatch.after_insert
        )

    def _unlink(self, data: M, values: Values) -> None:
        """Remove the caller's object from collections of related objects, which would insert it as a second row.

        The object's own attributes keep their values.
        """
        if not sa_inspect(data).transient:
            return
        for key in self.traits.relationships.keys() & values.keys():
            if not self.traits.relationships[key].uselist and values[key] is not None:
                setattr(data, key, None)
                set_committed_value(data, key, values[key])

    def _release_members(self, data: M, values: Values) -> None:
        """Detach the members of the caller's collections, as they would bring the caller's object into the session.

        The object's own attributes keep their values.
        """
        if not sa_inspect(data).transient:
            return
        for key in self.traits.relationships.keys() & values.keys():
            if self.traits.relationships[key].uselist and values[key]:
                members = values[key]
                kind: Any = duck_type_collection(members) or list
                values[key] = kind(members)
                setattr(data, key, kind())
                set_committed_value(data, key, members.values() if kind is dict else values[key])

    @acts_for_user
    def update(
        self, entity_id: Any, data: RowData[M], user_id: str | None = None, *, expected_version: Any = None
    ) -> M:
        """Write the fields that are set in ``data`` and return the row. One UPDATE … RETURNING, then COMMIT.

        If the class has validators, listeners or several tables, the write is a SELECT … FOR UPDATE and an UPDATE.
        Raises `EntityNotFoundError` if there is no such row, `StaleEntityError` if the row's version is not
        ``expected_version``, and `ValidationError` for an unknown key.
        """
        writer = self._writer(user_id)
        key = writer.reader.key(entity_id)
        if expected_version is not None:
            expected_version = writer.expected(expected_version)
        values = self._without_key(writer.for_update(data), key)
        if values:
            values = writer.refuse_nulls(self.values_for_update(writer.stamped(values)), new=False)
        is_open = False
        if self._rules is not None and values and change_refusal(self._session, self.traits, [values]) is None:
            writer, is_open = self._restricted(writer, values)
        route = self._change_route(values, is_single=not is_open)
        changed = self._changed_directly(route, writer, key, values, expected_version)
        if changed is not None:
            return changed[0] if changed else self._refused(writer, key, expected_version)
        with self._writing(route) as without_begin:
            by_flush = route.sender is Sender.UNIT_OF_WORK
            if self._rules is not None and by_flush:
                is_open = bool(values)
                self._refuse_related(values, is_update=True)
            if not by_flush:
                without_begin()
            elif isinstance(data, self.model_class):
                self._unlink(data, values)
                self._release_members(data, values)
            entity = self._change(writer, key, values, expected_version, by_flush=by_flush)
            if is_open:
                self._refuse_stored([entity], Right.UPDATE)
            self._note_written(entity)
        return entity

    @acts_for_user
    @exercises_deletion
    def restore(self, entity_id: Any, user_id: str | None = None) -> M:
        """Undo a soft deletion and return the row. One statement. Raises `EntityNotFoundError` if there is no row."""
        if not self.traits.soft_deletes:
            raise MisuseError(f"{self.traits.name} has no soft-delete columns, so nothing can be restored.")
        writer = self._writer(user_id, include_deleted=True, right=Right.DELETE)
        key = writer.reader.key(entity_id)
        values = writer.deletion(deleted=False)
        route = self._change_route(values)
        restored = self._changed_directly(route, writer, key, values, None)
        if restored is not None:
            return restored[0] if restored else self._refused(writer, key, None)
        with self._writing(route) as without_begin:
            by_flush = route.sender is Sender.UNIT_OF_WORK
            if not by_flush:
                without_begin()
            entity = self._change(writer, key, values, None, by_flush=by_flush)
            self._note_written(entity)
        return entity

    def _change_route(self, values: Values, *, is_single: bool = True) -> Route:
        """The route of a write that changes one row: by an UPDATE … RETURNING, or by a flush."""
        refusal = change_refusal(self._session, self.traits, [values]) if values else Circumstance.NO_VALUES
        if refusal is not None:
            return self._write_route(Sender.UNIT_OF_WORK, refusal, is_single=False)
        refusal = Circumstance.CONDITIONS if self._conditioned else None
        return self._write_route(Sender.STATEMENT, refusal, is_single=is_single)

    def _changed_directly(
        self, route: Route, writer: Writer, key: tuple[object, ...], values: Values, expected: object
    ) -> Sequence[M] | None:
        """A list with the row that the driver has changed, or an empty list. None: nothing was sent."""
        if route.sender is not Sender.DRIVER:
            return self._changed_in_savepoint(route, writer, key, values, expected)
        return self._by_driver(route, writer.update_by_key(key, values, expected))

    def _change(
        self, writer: Writer, key: tuple[object, ...], values: Values, expected: object, *, by_flush: bool
    ) -> M:
        entity = self._change_or_none(writer, key, values, expected, by_flush=by_flush)
        return self._refused(writer, key, expected) if entity is None else entity

    def _refused(self, writer: Writer, key: tuple[object, ...], expected: object) -> NoReturn:
        """Raise the error for a row that was not changed: it is missing or denied, or its version is stale."""
        self._refuse_existing(writer, key, expected)
        raise self._not_found()

    def _refuse_existing(self, writer: Writer, key: tuple[object, ...], expected: object) -> Literal[False]:
        """Raise the error for a row that exists, but was not written. Returns False if there is no such row.

        `StaleEntityError`: its version was not the expected one. `PermissionDeniedError`: the actor can only read it.
        """
        if expected is not None and self._fetched(writer.reader.by_key(key)):
            raise StaleEntityError(f"{self.traits.name} has changed: its version is not {expected} any more.")
        if self._rules is not None:
            self._refuse_denied(writer, key)
        return False

    def _without_key(self, values: Values, key: tuple[object, ...]) -> Values:
        """The values without the primary key, which may be repeated but not changed."""
        for name, part in zip(self.traits.primary_key, key, strict=True):
            if name in values and values.pop(name) != part:
                raise ValidationError(f"{self.traits.name}.{name}: a primary key can't be changed.", field=name)
        return values

    @acts_for_user
    @exercises_deletion
    def delete(
        self,
        entity_id: Any,
        soft_delete: bool = True,
        user_id: str | None = None,
        *,
        expected_version: Any = None,
    ) -> bool:
        """Delete one row. Returns False if there is none. One statement, then COMMIT.

        If the class has soft-delete columns, the row is only marked as deleted. With ``soft_delete=False`` it is
        deleted, even if it is marked already. If its version is not ``expected_version`` (None: any version),
        `StaleEntityError` is raised, after one more statement.

        What happens to the children, which are the rows that refer to a deleted row, depends on the relationship. With
        ``cascade="delete"`` the row is loaded, and its children are deleted as objects. Otherwise the database's
        ``ON DELETE`` rule applies. If there is no such rule, the ORM sets the children's foreign keys to NULL, or, if
        the columns are not nullable, `ConstraintViolationError` is raised if there are children.
        """
        softly = soft_delete and self.traits.soft_deletes
        writer = self._writer(user_id, include_deleted=not softly, right=Right.DELETE)
        key = writer.reader.key(entity_id)
        if expected_version is not None:
            expected_version = writer.expected(expected_version)
        values = writer.deletion() if softly else {}
        if softly:
            route = self._change_route(values)
            marked = self._changed_directly(route, writer, key, values, expected_version)
            if marked is not None:
                return bool(marked) or self._refuse_existing(writer, key, expected_version)
        else:
            route = self._write_route(Sender.STATEMENT, Circumstance.STATEMENT)
        with self._writing(route) as without_begin:
            if softly:
                by_flush = route.sender is Sender.UNIT_OF_WORK
                if not by_flush:
                    without_begin()
                gone = self._change_or_none(writer, key, values, expected_version, by_flush=by_flush) is not None
            else:
                gone = self._deleted_for_good(writer, key, expected_version, route, without_begin)
            return gone or self._refuse_existing(writer, key, expected_version)

    def _deleted_for_good(
        self, writer: Writer, key: tuple[object, ...], expected: object, route: Route, without_begin: Callable[[], None]
    ) -> bool:
        """Delete one row, by a DELETE without a flush if possible.

        Returns False if the row is missing, or its version is stale.
        """
        in_one_table = not spreads(self.traits)
        refusal = deletion_refusal(self._session, self.traits, key)
        if (in_one_table or expected is None) and refusal is None:
            if in_one_table:
                without_begin()
                gone = self._counted(writer.delete_by_key(key, expected)) > 0
            else:
                gone = self._deleted(writer.reader, of_key(writer.reader, key)) > 0
        else:
            log_route(self.model_class, Route(Sender.UNIT_OF_WORK, route.boundary, refusal))
            entity = self._locked(writer.reader, key)
            if entity is None or self._if_expected_version([entity], expected) is None:
                return False
            enforced = enforces_keys(self._session, self.traits)
            UnitOfWorkDeletion(self._session, self.tenant_id, enforced=enforced).delete(self._whole(entity))
            self._flush()
            gone = True
        if gone:
            follow_database(self._session, self.traits, [key])
        return gone

    def _whole(self, entity: M) -> object:
        """The entity as an object of its most derived class, so that all its tables and cascades are included.

        Without a discriminator column, SQLAlchemy loads rows as objects of the repository's class. Therefore the
        subclasses are then queried for the row, the most derived subclass first.
        """
        mapper = self.traits.mapper
        below = [each for each in mapper.self_and_descendants if each is not mapper and not each.concrete]
        if mapper.polymorphic_on is not None or not below:
            return entity
        key = self._reader().key(self.traits.key_of(entity))
        self._session.expunge(entity)  # otherwise the query would return this object from the identity map
        for each in reversed(below):
            lower = traits_of(each.class_)
            same = [lower.attribute(name) == part for name, part in zip(self.traits.primary_key, key, strict=True)]
            objects = self._scalars(Bound(select(each.class_).where(*same)), {})
            if objects:
                return objects[0]
        self._session.add(entity)
        return entity
