"""The methods that write single rows, implemented once, on the sync session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NoReturn, TypeVar

from sqlalchemy import Result, null, select
from sqlalchemy import inspect as sa_inspect
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.base import instance_dict
from sqlalchemy.sql.elements import Null
from sqlalchemy.util import duck_type_collection

from ..dialects import translated
from ..direct import insert, write
from ..errors import DuplicateEntityError, MisuseError, StaleEntityError, TenantIsolationError, ValidationError
from ..models.traits import traits_of
from ..plainness import CHANGE, mapper_departure, session_listened
from ..sessions import keep, state_of, writing
from ..statements.cascades import deletion_of
from ..statements.data import NewRow, Values, is_sql
from ..statements.inheritance import deletions, levels_of, of_key, spreads
from ..statements.reads import Bound, Reader, for_update
from ..statements.writes import Writer
from ..tenancy.context import ALL_TENANTS
from ..tenancy.related import stamp_by_related
from .core import SyncDb
from .deleting import UnitOfWorkDeletion, enforces_keys, follow_database, holds_related
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
        bound = None if self._conditioned else writer.insert_of(values)
        created: Sequence[M] | None = None
        if bound is not None and self._commits_alone:
            with translated(self.model_class):
                created = write(self._session, bound.statement, bound.parameters, self.traits)
        if created is None:
            if bound is None and isinstance(data, self.model_class):
                self._unlink(data, values)
            with self._writing() as without_begin:
                if bound is not None:
                    created = insert(self._session, bound.statement, bound.parameters, self.traits)
                if created is None:
                    created = [self._flushed(values, without_begin)]
                keep(self._session, *created)
        return created[0]

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
        if self._is_one_insert(values):
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
        changed = self._changed_alone(writer, key, values, expected_version)
        if changed is not None:
            return changed[0] if changed else self._refused(reader, key, expected_version)
        with self._writing() as without_begin:
            if self._is_one_update(values):
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
        marked = self._changed_alone(writer, key, values, expected_version)
        if marked is not None:
            return bool(marked) or self._is_missing(reader, key, expected_version)
        with self._writing() as without_begin:
            if softly:
                if self._is_one_update(values):
                    without_begin()
                gone = self._change_or_none(writer, key, values, expected_version) is not None
            else:
                gone = self._deleted_for_good(writer, key, expected_version, without_begin)
            return gone or self._is_missing(reader, key, expected_version)

    def _deleted_for_good(
        self, writer: Writer, key: tuple[Any, ...], expected: Any, without_begin: Callable[[], None]
    ) -> bool:
        """Delete one row, by a statement alone if possible. Returns False if it is missing, or its version is stale."""
        in_one_table = not spreads(self.traits)
        if (in_one_table or expected is None) and self._deletes_by_statement(key):
            if in_one_table:
                without_begin()
                gone = self._counted(writer.delete_by_key(key, expected)) > 0
            else:
                gone = self._deleted(writer.reader, of_key(writer.reader, key)) > 0
        else:
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
        restored = self._changed_alone(writer, key, values, None)
        if restored is not None:
            return restored[0] if restored else self._refused(writer.reader, key, None)
        with self._writing() as without_begin:
            if self._is_one_update(values):
                without_begin()
            entity = self._change(writer, key, values, None)
            keep(self._session, entity)
        return entity

    @property
    def _commits_alone(self) -> bool:
        """Whether a write of one statement is committed by itself: it is not part of an open transaction."""
        session = self._session
        return self.auto_commit and not session.in_transaction() and not state_of(session).units

    def _changed_alone(self, writer: Writer, key: tuple[Any, ...], values: Values, expected: Any) -> Sequence[M] | None:
        """The changed row, or an empty list, of an UPDATE that the driver sent and committed; None: it was not sent."""
        if self._conditioned or not self._commits_alone or not self._is_one_update(values):
            return None
        bound = writer.update_by_key(key, values, expected)
        with translated(self.model_class):
            return write(self._session, bound.statement, bound.parameters, self.traits)

    def _writing(self) -> Any:
        return writing(self._session, auto_commit=self.auto_commit, model=self.model_class)

    def _directly(self) -> bool:
        """Whether rows may be written by statements, without the session's unit of work."""
        return self.traits.direct_writes and not session_listened(self._session, CHANGE)

    def _deletes_by_statement(self, key: tuple[Any, ...]) -> bool:
        """Whether the row may be deleted by a statement, since neither the ORM nor a listener has more to do."""
        traits, session = self.traits, self._session
        if not (traits.direct_deletes or spreads(traits)) or session_listened(session, CHANGE):
            return False
        if any(mapper_departure(each, CHANGE) for each in traits.mapper.self_and_descendants):
            return False
        deletion = deletion_of(traits)
        return (
            not deletion.needs_orm
            and not holds_related(session, traits, key, deletion.if_loaded)
            and (not deletion.needs_keys or enforces_keys(session, traits))
        )

    def _is_one_update(self, values: Values) -> bool:
        """Whether the values can be written by one UPDATE … RETURNING."""
        return bool(values) and self._directly() and not self._needs_unit(values)

    def _is_one_insert(self, values: Values) -> bool:
        """Whether a flush will send one INSERT and nothing else."""
        session, mapper = self._session, self.traits.mapper
        return (
            self.traits.direct_writes
            and not self._needs_unit(values)
            and not mapper.dispatch.before_insert
            and not mapper.dispatch.after_insert
            and len(session.new) == 1
            and not (session.dirty or session.deleted)
        )

    def _needs_unit(self, values: Values) -> bool:
        """Whether the values include more than columns, or the discriminator: these need an object."""
        traits = self.traits
        return traits.discriminator in values or any(key not in traits.columns for key in values)

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
        if self._is_one_update(values):
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
