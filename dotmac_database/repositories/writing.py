"""The methods that write single rows, implemented once, on the sync session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NoReturn, TypeVar

from sqlalchemy import Result, null, select
from sqlalchemy import inspect as sa_inspect
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.base import instance_dict
from sqlalchemy.sql.elements import Null
from sqlalchemy.util import duck_type_collection

from ..dialects import translated
from ..errors import DuplicateEntityError, MisuseError, StaleEntityError, TenantIsolationError, ValidationError
from ..execution.asyncpg import insert, write
from ..execution.routes import (
    DIRECT,
    Circumstance,
    Reason,
    Route,
    Sender,
    change_refusal,
    log_route,
    needs_object,
    write_route,
)
from ..execution.state import keep
from ..execution.work import writing
from ..models.traits import traits_of
from ..statements.data import NewRow, Values, is_sql
from ..statements.inheritance import deletions, levels_of, of_key, spreads
from ..statements.reads import Bound, Reader, for_update
from ..statements.writes import Writer
from ..tenancy.context import ALL_TENANTS
from ..tenancy.related import stamp_by_related
from .core import SyncDb
from .deleting import UnitOfWorkDeletion, deletion_refusal, enforces_keys, follow_database
from .explaining import ExplainingRepository

M = TypeVar("M")

FRESH: Mapping[str, Any] = {"populate_existing": True, "synchronize_session": False}


def assign(entity: Any, key: str, value: Any) -> None:
    """Set an attribute. Listeners and validators get None for a JSON column's SQL NULL, since they expect None."""
    if type(value) is not Null:
        setattr(entity, key, value)
        return
    setattr(entity, key, None)
    instance_dict(entity)[key] = value


class WritingRepository(ExplainingRepository[M, SyncDb]):
    """Writes. Each write is atomic. With ``auto_commit`` it is committed, unless it is part of an open transaction.

    ``user_id`` is the audit user; None: the current one of `acting_as`.
    """

    def create(self, data: Any, user_id: str | None = None) -> M:
        """Insert one row and return it with all columns loaded. One INSERT, then COMMIT.

        ``data`` is a dict or a Pydantic object, and is not changed. A Pydantic object's defaults are written, but for a
        default of None the column's own default applies. Raises `ValidationError` for an unknown key,
        `TenantIsolationError` for another tenant's id, and `DuplicateEntityError` or `ConstraintViolationError` if the
        row violates a constraint.
        """
        writer = self._writer(user_id)
        values = writer.refuse_nulls(self.values_for_create(writer.for_create(data).values), new=True)
        refusal = Circumstance.CONDITIONS if self._conditioned else None
        bound = None if refusal else writer.insert_of(values)
        if bound is None:
            refusal = refusal or Circumstance.MODEL
            if isinstance(data, self.model_class):
                self._unlink(data, values)
        route = self._create_route(values, refusal)
        created: Sequence[M] | None = None
        if bound is not None and route is DIRECT:
            log_route(self.model_class, route)
            with translated(self.model_class):
                created = write(self._session, bound.statement, bound.parameters, self.traits)
            if created is None:
                route = self._create_route(values, Circumstance.STATEMENT)
        if created is None:
            with self._writing(route) as without_begin:
                if bound is not None and route.sender is Sender.DRIVER:
                    created = insert(self._session, bound.statement, bound.parameters, self.traits)
                if created is None:
                    created = [self._flushed(values, without_begin)]
                keep(self._session, *created)
        return created[0]

    def _create_route(self, values: Values, refusal: Reason | None) -> Route:
        is_single = self._is_one_insert(values)
        return self._write_route(Sender.UNIT_OF_WORK, refusal, is_single=is_single, is_insert=True)

    def _unlink(self, data: Any, values: Values) -> None:
        """Remove the caller's object from collections of related objects, which would insert it as a second row.

        The object's own attributes keep their values.
        """
        if not sa_inspect(data).transient:
            return
        for key in self.traits.relationships.keys() & values.keys():
            if not self.traits.relationships[key].uselist and values[key] is not None:
                setattr(data, key, None)
                set_committed_value(data, key, values[key])

    def _release_members(self, data: Any, values: Values) -> None:
        """Detach the members of the caller's collections, as they would bring the caller's object into the session.

        The object's own attributes keep their values.
        """
        if not sa_inspect(data).transient:
            return
        for key in self.traits.relationships.keys() & values.keys():
            if self.traits.relationships[key].uselist and values[key]:
                given = values[key]
                kind: Any = duck_type_collection(given) or list
                values[key] = kind(given)
                setattr(data, key, kind())
                set_committed_value(data, key, given.values() if kind is dict else values[key])

    def _flushed(self, values: Values, without_begin: Callable[[], None]) -> M:
        """Insert a new object by the session's unit of work."""
        self._refuse_held(values)
        entity = self._made(values)
        self._session.add(entity)
        session = self._session
        if len(session.new) == 1 and not (session.dirty or session.deleted):
            without_begin()
        self._flush()
        self._complete(entity)
        return entity

    def update(self, entity_id: Any, data: Any, user_id: str | None = None, *, expected_version: Any = None) -> M:
        """Write the fields that are set in ``data`` and return the row. One UPDATE … RETURNING, then COMMIT.

        If the class has validators, listeners or several tables, it is a SELECT … FOR UPDATE and a flush. Raises
        `EntityNotFoundError` if there is no such row, `StaleEntityError` if its version is not ``expected_version``,
        and `ValidationError` for an unknown key.
        """
        writer = self._writer(user_id)
        reader = writer.reader
        key = reader.key(entity_id)
        if expected_version is not None:
            expected_version = writer.expected(expected_version)
        values = self._without_key(writer.for_update(data), key)
        if values:
            values = writer.refuse_nulls(self.values_for_update(writer.stamped(values)), new=False)
        route = self._change_route(values)
        changed = self._changed_directly(route, writer, key, values, expected_version)
        if changed is not None:
            return changed[0] if changed else self._refused(reader, key, expected_version)
        with self._writing(route) as without_begin:
            if route.sender is not Sender.UNIT_OF_WORK:
                without_begin()
            elif isinstance(data, self.model_class):
                self._unlink(data, values)
                self._release_members(data, values)
            entity = self._change(writer, key, values, expected_version)
            keep(self._session, entity)
        return entity

    def delete(
        self,
        entity_id: Any,
        soft_delete: bool = True,
        user_id: str | None = None,
        *,
        expected_version: Any = None,
    ) -> bool:
        """Delete one row. Returns False if there is none. One statement, then COMMIT.

        If the class has soft-delete columns, the row is only marked as deleted, unless ``soft_delete`` is False, which
        also deletes a row that is already marked. For the rows that refer to a deleted row, the relationship's
        ``cascade="delete"`` comes first: the object is loaded, and its children are deleted as objects. Otherwise the
        database's ``ON DELETE`` rule applies. Without a rule, the ORM sets the children's foreign keys to NULL if the
        columns are nullable; if not, existing children raise `ConstraintViolationError`. If the row's version is not
        ``expected_version`` (None: any version), `StaleEntityError` is raised, after one more statement.
        """
        softly = soft_delete and self.traits.soft_deletes
        writer = self._writer(user_id, include_deleted=not softly)
        reader = writer.reader
        key = reader.key(entity_id)
        if expected_version is not None:
            expected_version = writer.expected(expected_version)
        values = writer.deletion() if softly else {}
        if softly:
            route = self._change_route(values)
            marked = self._changed_directly(route, writer, key, values, expected_version)
            if marked is not None:
                return bool(marked) or self._is_missing(reader, key, expected_version)
        else:
            route = self._write_route(Sender.STATEMENT, Circumstance.STATEMENT)
        with self._writing(route) as without_begin:
            if softly:
                if route.sender is not Sender.UNIT_OF_WORK:
                    without_begin()
                gone = self._change_or_none(writer, key, values, expected_version) is not None
            else:
                gone = self._deleted_for_good(writer, key, expected_version, route, without_begin)
            return gone or self._is_missing(reader, key, expected_version)

    def _deleted_for_good(
        self, writer: Writer, key: tuple[Any, ...], expected: Any, route: Route, without_begin: Callable[[], None]
    ) -> bool:
        """Delete one row, by a statement alone if possible. Returns False if it is missing, or its version is stale."""
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
            if entity is None or self._if_fresh([entity], expected) is None:
                return False
            enforced = enforces_keys(self._session, self.traits)
            UnitOfWorkDeletion(self._session, self.tenant_id, enforced=enforced).delete(self._whole(entity))
            self._flush()
            gone = True
        if gone:
            follow_database(self._session, self.traits, [key])
        return gone

    def restore(self, entity_id: Any, user_id: str | None = None) -> M:
        """Undo a soft deletion and return the row. One statement. Raises `EntityNotFoundError` if there is no row."""
        if not self.traits.soft_deletes:
            raise MisuseError(f"{self.traits.name} has no soft-delete columns, so nothing can be restored.")
        writer = self._writer(user_id, include_deleted=True)
        key = writer.reader.key(entity_id)
        values = writer.deletion(deleted=False)
        route = self._change_route(values)
        restored = self._changed_directly(route, writer, key, values, None)
        if restored is not None:
            return restored[0] if restored else self._refused(writer.reader, key, None)
        with self._writing(route) as without_begin:
            if route.sender is not Sender.UNIT_OF_WORK:
                without_begin()
            entity = self._change(writer, key, values, None)
            keep(self._session, entity)
        return entity

    def _write_route(
        self, sender: Sender, refusal: Reason | None = None, *, is_single: bool = True, is_insert: bool = False
    ) -> Route:
        """The route of a write, which ``sender`` sends if the driver can't."""
        with translated(self.model_class):
            return write_route(
                self._session,
                self.traits,
                auto_commit=self.auto_commit,
                sender=sender,
                refusal=refusal,
                is_single=is_single,
                is_insert=is_insert,
            )

    def _change_route(self, values: Values) -> Route:
        """The route of a write that changes one row: by an UPDATE … RETURNING, or by a flush."""
        refusal = change_refusal(self._session, self.traits, [values]) if values else Circumstance.NO_VALUES
        if refusal is not None:
            return self._write_route(Sender.UNIT_OF_WORK, refusal, is_single=False)
        return self._write_route(Sender.STATEMENT, Circumstance.CONDITIONS if self._conditioned else None)

    def _changed_directly(
        self, route: Route, writer: Writer, key: tuple[Any, ...], values: Values, expected: Any
    ) -> Sequence[M] | None:
        """The changed row, or an empty list, of an UPDATE that the driver sent and committed; None: it was not sent."""
        if route is not DIRECT:
            return None
        log_route(self.model_class, route)
        bound = writer.update_by_key(key, values, expected)
        with translated(self.model_class):
            return write(self._session, bound.statement, bound.parameters, self.traits)

    def _writing(self, route: Route) -> AbstractContextManager[Callable[[], None]]:
        return writing(self._session, route, auto_commit=self.auto_commit, model=self.model_class)

    def _is_one_insert(self, values: Values) -> bool:
        """Whether a flush of a new object with these values sends one INSERT, if nothing else is pending."""
        mapper = self.traits.mapper
        return (
            self.traits.direct_writes
            and not needs_object(self.traits, values)
            and not mapper.dispatch.before_insert
            and not mapper.dispatch.after_insert
        )

    def _made(self, values: Values) -> M:
        """A new entity, made by its constructor. Values that the constructor does not accept are set afterwards."""
        values = {**self._reader().typed_defaults(), **values}
        nulls = [key for key, value in values.items() if type(value) is Null]
        # A JSON column without a value becomes SQL NULL. If it has a default, NULL must be set explicitly, below.
        values = {key: value for key, value in values.items() if type(value) is not Null}
        accepted = self.traits.constructor_keys
        given = {key: value for key, value in values.items() if accepted is None or key in accepted}
        for key in self.traits.constructor_needs - given.keys():
            if key not in self.traits.columns or key in self.traits.required:
                raise ValidationError(f"{self.traits.name}.{key} must be given.", field=key)
            given[key] = None
        entity = self.model_class(**given)
        for key in values:
            if key not in given:
                setattr(entity, key, values[key])
        for key in nulls:
            if key not in self.traits.null_unless_set or key in instance_dict(entity):
                assign(entity, key, null())
        return entity

    def _new_row(self, writer: Writer, data: Any, index: int | None = None, *, new: bool = True) -> NewRow:
        """The values of one row in a statement for many rows, after its class's constructor and validators.

        ``new`` is False if the row may already exist: then None is written even if the column has a default. Raises
        `ValidationError` for relationships and SQL expressions, which are not possible in such a statement.
        """
        values, unset = writer.for_create(data)
        values = writer.refuse_nulls(self.values_for_create(values), new=new, index=index)
        for key, value in values.items():
            if key not in self.traits.columns or writer.is_expression(key, value):
                raise MisuseError(
                    f"{self.traits.name}.{key} can't be written so: create() and update() alone take relationships and "
                    "SQL expressions.",
                    field=key,
                )
        if self.traits.constructs:
            made = self._values_made(values)
            unset |= made.keys() - values.keys()
            values = made
        return NewRow(values, unset - self.traits.stamped if unset else unset)

    def _values_made(self, values: Values) -> Values:
        """The values after the class's constructor and validators, from an object that is not in the session."""
        entity = self._made(values)
        held = instance_dict(entity)
        made: Values = {}
        for key in self.traits.columns:
            # The default of a mapped dataclass is a class attribute, not in the object's own dict.
            value = held[key] if key in held else getattr(entity, key)
            if value is not None or key in values:
                made[key] = value
        for key, value in values.items():
            if type(value) is Null and made[key] is None:
                made[key] = value
        return made

    def _refuse_held(self, values: Values) -> None:
        """Raise `DuplicateEntityError` if the session holds an object with this key, before the ORM warns about it."""
        key = tuple(values.get(name) for name in self.traits.primary_key)
        if None in key or not len(self._session.identity_map):
            return
        held = self._session.identity_map.get(self.traits.mapper.identity_key_from_primary_key(key))
        if held is None:
            return
        everywhere = self._reader(include_deleted=True)
        if self._execute(everywhere.has_key(everywhere.key(key)), {}).first() is not None:
            fields = self.traits.primary_key
            raise DuplicateEntityError(f"{self.traits.name} exists already: {', '.join(fields)}.", fields=fields)
        self._session.expunge(held)  # its row is gone, so the key is free

    def _flush(self) -> None:
        """Flush, after checking that no object of another tenant is changed or deleted."""
        stamp_by_related(self._session)
        tenant, key = self.tenant_id, self.traits.tenant
        if key is not None and tenant is not ALL_TENANTS:
            for entity in (*self._session.deleted, *self._session.dirty):
                if isinstance(entity, self.model_class) and sa_inspect(entity).dict.get(key, tenant) != tenant:
                    raise TenantIsolationError(f"{self.traits.name}: a row of another tenant would be changed.")
        self._session.flush()

    def _complete(self, entity: M) -> None:
        """Load the columns that the flush did not return, in one statement, if there are any."""
        missing = sa_inspect(entity).unloaded & set(self.traits.mapper.column_attrs.keys())
        for key in missing & self.traits.null_unless_set:
            if key not in sa_inspect(entity).expired_attributes:
                set_committed_value(entity, key, None)
                missing.discard(key)
        if missing:
            reader = self._reader(include_deleted=True)
            self._fresh(reader, reader.key(self.traits.key_of(entity)))

    def _change(self, writer: Writer, key: tuple[Any, ...], values: Values, expected: Any) -> M:
        entity = self._change_or_none(writer, key, values, expected)
        return self._refused(writer.reader, key, expected) if entity is None else entity

    def _refused(self, reader: Reader, key: tuple[Any, ...], expected: Any) -> NoReturn:
        """Raise the error for a row that was not changed: it is missing, or its version is stale."""
        self._is_missing(reader, key, expected)
        raise self._not_found()

    def _is_missing(self, reader: Reader, key: tuple[Any, ...], expected: Any) -> Literal[False]:
        """Raise `StaleEntityError` if the row exists, so that the write failed on its version; else return False."""
        if expected is not None and self._fetched(reader.by_key(key)):
            raise StaleEntityError(f"{self.traits.name} has changed: its version is not {expected} any more.")
        return False

    def _change_or_none(self, writer: Writer, key: tuple[Any, ...], values: Values, expected: Any = None) -> M | None:
        """Change one row, by a statement if possible. Returns None if the row is missing, or its version is stale."""
        if not values:
            return self._if_fresh(self._fresh(writer.reader, key), expected)
        if change_refusal(self._session, self.traits, [values]) is None:
            rows = self._scalars(writer.update_by_key(key, values, expected), FRESH)
            return rows[0] if rows else None
        entity = self._locked(writer.reader, key)
        if entity is None or self._if_fresh([entity], expected) is None:
            return None
        self._set(entity, values)
        self._flush()
        self._complete(entity)
        return entity

    def _if_fresh(self, rows: Sequence[M], expected: Any) -> M | None:
        version = self.traits.version
        if rows and (expected is None or version is None or getattr(rows[0], version) == expected):
            return rows[0]
        return None

    def _fresh(self, reader: Reader, key: tuple[Any, ...], *, lock: bool = False) -> Sequence[M]:
        """The current row with this key, or an empty list. An object in the session is refreshed."""
        bound = reader.loading(reader.by_key(key), ())
        statement = reader.whole(bound.statement)
        statement = for_update(self.traits, statement) if lock else statement
        return self._scalars(Bound(statement, bound.parameters), {"populate_existing": True})

    def _locked(self, reader: Reader, key: tuple[Any, ...]) -> M | None:
        return next(iter(self._fresh(reader, key, lock=True)), None)

    def _set(self, entity: M, values: Values) -> None:
        discriminator = self.traits.discriminator
        for key, value in values.items():
            if key != discriminator:
                assign(entity, key, value)
            elif is_sql(value) or getattr(entity, key) != value:
                raise ValidationError(f"{self.traits.name}.{key}: a row stays of its class.", field=key)
        version = self.traits.version
        if version is not None and self.traits.mapper.version_id_col is None:
            setattr(entity, version, self.traits.next_count(entity))

    def _counted(self, bound: Bound) -> int:
        """Run an UPDATE or DELETE, update the session's objects, and return the number of rows."""
        return self._counted_of(bound, self.model_class)

    def _counted_of(self, bound: Bound, model: type[Any]) -> int:
        holds = any(isinstance(entity, model) for entity in self._session.identity_map.values())
        return int(self._result(bound, {"synchronize_session": "fetch" if holds else False}).rowcount)

    def _deleted(self, reader: Reader, keys: Bound) -> int:
        """Delete the entities with the selected keys from all tables of their class, in batches."""
        total, limit = 0, keys.parameters["dotmac_limit"]
        while True:
            found = [tuple(row) for row in self._execute(keys, {}).all()]
            deleted = 0
            if found:
                *children, root = deletions(reader, found)
                for bound in children:
                    self._result(bound, {"synchronize_session": False})
                deleted = self._counted_of(root, levels_of(self.traits)[-1].model)
            total += deleted
            if len(found) < limit or limit == 1 or not deleted:
                return total

    def _whole(self, entity: M) -> Any:
        """The entity as an object of its most derived class, so that all its tables and cascades are included.

        Without a discriminator column, rows are loaded as objects of the repository's class. Then the subclasses are
        queried, the most derived first.
        """
        mapper = self.traits.mapper
        below = [each for each in mapper.self_and_descendants if each is not mapper and not each.concrete]
        if mapper.polymorphic_on is not None or not below:
            return entity
        key = self._reader().key(self.traits.key_of(entity))
        self._session.expunge(entity)  # else the query would return this object from the identity map
        for each in reversed(below):
            lower = traits_of(each.class_)
            same = [lower.attribute(name) == part for name, part in zip(self.traits.primary_key, key, strict=True)]
            found = self._scalars(Bound(select(each.class_).where(*same)), {})
            if found:
                return found[0]
        self._session.add(entity)
        return entity

    def _result(self, bound: Bound, execution_options: Mapping[str, Any]) -> Any:
        result: Result[Any] = self._execute(bound, execution_options)
        return result

    def _without_key(self, values: Values, key: tuple[Any, ...]) -> Values:
        """The values without the primary key, which may be repeated but not changed."""
        for name, part in zip(self.traits.primary_key, key, strict=True):
            if name in values and values.pop(name) != part:
                raise ValidationError(f"{self.traits.name}.{name}: a primary key can't be changed.", field=name)
        return values
