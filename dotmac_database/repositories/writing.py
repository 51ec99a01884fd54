"""The writing half of a repository, written once on the sync session."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar, overload

from sqlalchemy import Result, delete, insert, select
from sqlalchemy import inspect as sa_inspect
from sqlalchemy.orm.attributes import set_committed_value

from ..errors import DuplicateEntityError, StaleEntityError, TenantIsolationError, ValidationError
from ..query import FiltersLike, filters_of
from ..sessions import keep, writing
from ..statements.bulk import BATCH, Unnested, update_many
from ..statements.reads import Bound, Reader
from ..statements.writes import Values, Writer, is_sql
from ..tenancy.context import ALL_TENANTS
from .reading import ReadingRepository

M = TypeVar("M")

_FEW = 20
"""Below so many rows arrays are not worth their while."""

_FRESH: Mapping[str, Any] = {"populate_existing": True, "synchronize_session": False}


class WritingRepository(ReadingRepository[M]):
    """Writes. Each is whole or not at all; ``auto_commit`` commits it, except inside a transaction, which it joins.

    ``user_id`` is the audit user; None takes the ambient one of `acting_as`.
    """

    def create(self, data: Any, user_id: str | None = None) -> M:
        """Insert one row and give it back with all its columns loaded; one INSERT, then COMMIT.

        ``data`` is a dict or a Pydantic object, whose unset fields are left to their defaults; it is not changed.
        Raises `ValidationError` for an unknown key, `TenantIsolationError` for another tenant's id,
        `DuplicateEntityError` and `ConstraintViolationError` as the database says.
        """
        values = self.values_for_create(self._writer(user_id).for_create(data))
        with self._writing():
            self._refuse_held(values)
            entity = self._made(values)
            self._session.add(entity)
            self._flush()
            self._complete(entity)
            keep(self._session, entity)
        return entity

    @overload
    def bulk_create(
        self, rows: Iterable[Any], user_id: str | None = None, *, returning: Literal[True] = True
    ) -> builtins.list[M]: ...
    @overload
    def bulk_create(self, rows: Iterable[Any], user_id: str | None = None, *, returning: Literal[False]) -> int: ...
    @overload
    def bulk_create(
        self, rows: Iterable[Any], user_id: str | None = None, *, returning: bool
    ) -> builtins.list[M] | int: ...
    def bulk_create(
        self, rows: Iterable[Any], user_id: str | None = None, *, returning: bool = True
    ) -> builtins.list[M] | int:
        """Insert many rows, all or none: one INSERT per batch for each set of fields that the rows have.

        Gives the rows in their order, or with ``returning=False`` their number, by the fastest way of
        the driver. No events of single objects are sent.
        """
        writer = self._writer(user_id)
        prepared = [self.values_for_create(writer.for_create(row)) for row in rows]
        self._columns_only(prepared)
        if not prepared:
            return [] if returning else 0
        with self._writing():
            if not returning:
                for _, members in writer.runs(prepared):
                    self._insert_many(writer, members)
                return len(prepared)
            created: dict[int, M] = {}
            for places, members in writer.runs(prepared):
                result = self._session.scalars(
                    writer.insert(returning=True), members, execution_options={**_FRESH, **self._options}
                )
                created.update(zip(places, result, strict=True))
            entities = [created[place] for place in range(len(prepared))]
            keep(self._session, *entities)
        return entities

    def upsert(self, data: Any, conflict_fields: Sequence[str], user_id: str | None = None) -> M:
        """Insert one row, or change the one that has the same ``conflict_fields``; one statement.

        The fields must be those of a unique constraint, the tenant's column left out or not. A soft-deleted
        row in the way is changed and restored. A row of another tenant stays as it is: `DuplicateEntityError`.
        """
        return self.bulk_upsert([data], conflict_fields, user_id)[0]

    def bulk_upsert(
        self, rows: Iterable[Any], conflict_fields: Sequence[str], user_id: str | None = None
    ) -> builtins.list[M]:
        """`upsert` many rows, all or none, and give them back in their order; one statement per batch."""
        writer = self._writer(user_id)
        if len(self.traits.tables) != 1:
            raise ValidationError(f"{self.traits.name} spans several tables, which no one statement can upsert.")
        prepared = [self.values_for_create(writer.for_create(row)) for row in rows]
        self._columns_only(prepared)
        conflict = writer.conflict_columns(conflict_fields)
        keys = [self.traits.mapper.get_property_by_column(column).key for column in conflict]
        identities = [tuple(row.get(key) for key in keys) for row in prepared]
        if len(set(identities)) != len(identities):
            raise ValidationError(f"{self.traits.name}: two rows have the same {', '.join(conflict_fields)}.")
        found: dict[tuple[Any, ...], M] = {}
        with self._writing():
            for _, members in writer.runs(prepared, keep_none=True):
                for entity in self._upserted(writer, members, conflict):
                    found[tuple(getattr(entity, key) for key in keys)] = entity
            entities = [found.get(identity) for identity in identities]
            if any(entity is None for entity in entities):
                for entity in found.values():
                    self._session.expire(entity)  # it has values that are about to be rolled back
                raise DuplicateEntityError(
                    f"{self.traits.name} exists already: {', '.join(conflict_fields)}.", fields=tuple(conflict_fields)
                )
            keep(self._session, *entities)
        return [entity for entity in entities if entity is not None]

    def update(
        self, entity_id: Any, data: Any, user_id: str | None = None, *, expected_version: int | None = None
    ) -> M:
        """Change what was set in ``data`` and give the row back; one UPDATE … RETURNING, then COMMIT.

        Where the class has validators, listeners or several tables it is a SELECT … FOR UPDATE and a flush. Raises
        `EntityNotFoundError` where there is no such row, `StaleEntityError` where its version is not
        ``expected_version``, `ValidationError` for an unknown key.
        """
        writer = self._writer(user_id)
        reader = writer.reader
        key = reader.key(entity_id)
        if expected_version is not None and self.traits.version is None:
            raise ValidationError(f"{self.traits.name} has no version to expect.", field="expected_version")
        values = self._without_key(writer.for_update(data), key)
        if values:
            values = self.values_for_update(writer.stamped(values))
        with self._writing():
            entity = self._change(writer, key, values, expected_version)
            keep(self._session, entity)
        return entity

    def delete(self, entity_id: Any, soft_delete: bool = True, user_id: str | None = None) -> bool:
        """Delete one row; False where there is none. One statement, then COMMIT.

        Softly where the class has columns for it, unless ``soft_delete`` is False: then for good, also a row
        that is soft-deleted already. A class with relationships is loaded first, so that its cascades are kept.
        """
        softly = soft_delete and self.traits.soft_deletes
        writer = self._writer(user_id, include_deleted=not softly)
        key = writer.reader.key(entity_id)
        with self._writing():
            if softly:
                return self._change_or_none(writer, key, writer.deletion()) is not None
            if self._directly() and not self.traits.relationships:
                statement = delete(self.model_class).where(
                    *writer.reader.key_conditions(), *writer.reader.scope.root(self.traits)
                )
                parameters = {**writer.reader.scope.parameters, **writer.reader.key_parameters(key)}
                return self._counted(Bound(statement, parameters)) > 0
            entity = self._locked(writer.reader, key)
            if entity is None:
                return False
            self._session.delete(entity)
            self._flush()
            return True

    def restore(self, entity_id: Any, user_id: str | None = None) -> M:
        """Undo a soft delete and give the row back; one statement. Raises `EntityNotFoundError` where there is none."""
        if not self.traits.soft_deletes:
            raise ValidationError(f"{self.traits.name} has no soft-delete columns, so nothing can be restored.")
        writer = self._writer(user_id, include_deleted=True)
        key = writer.reader.key(entity_id)
        with self._writing():
            entity = self._change(writer, key, writer.deletion(deleted=False), None)
            keep(self._session, entity)
        return entity

    def bulk_update(self, rows: Iterable[Any], user_id: str | None = None) -> int:
        """Change many rows, each named by the primary key in it, all or none; gives how many there were.

        One UPDATE per batch for each set of fields that the rows have.
        """
        writer = self._writer(user_id)
        reader, names = writer.reader, self.traits.primary_key
        changes: dict[tuple[Any, ...], Values] = {}
        for row in rows:
            values = writer.for_update(row)
            if self.traits.tenant in names and self.tenant_id is not ALL_TENANTS:
                values[self.traits.tenant] = self.tenant_id
            if any(name not in values for name in names):
                raise ValidationError(f"Each row must name its primary key: {', '.join(names)}.", field=names[0])
            key = reader.key(tuple(values.pop(name) for name in names))
            if key in changes:
                raise ValidationError(f"Two rows name the same {self.traits.name}.", field=names[0])
            if values:
                changes[key] = self.values_for_update(writer.stamped(values))
        if not changes:
            return 0
        with self._writing():
            if not self._directly() or any(self._needs_unit(values) for values in changes.values()):
                return sum(self._change_or_none(writer, key, values) is not None for key, values in changes.items())
            return self._update_many(writer, changes)

    def update_where(
        self, filters: FiltersLike, data: Any, user_id: str | None = None, *, allow_all: bool = False
    ) -> int:
        """Change all rows that match and give their number; one UPDATE.

        Raises `ValidationError` where the filters hold nothing back, unless ``allow_all``.
        """
        writer = self._writer(user_id)
        found = writer.reader.analysed(filters_of(filters))
        self._refuse_all(found.unbounded, allow_all)
        values = writer.for_update(data)
        self._refuse_key(values)
        if not values:
            return 0
        values = self.values_for_update(writer.stamped(values))
        with self._writing():
            if self._directly() and not self._needs_unit(values):
                return self._counted(writer.update_where(found, values))
            return self._change_each(writer, found, values)

    def delete_where(
        self,
        filters: FiltersLike,
        soft_delete: bool = True,
        user_id: str | None = None,
        *,
        allow_all: bool = False,
    ) -> int:
        """Delete all rows that match and give their number; one statement, soft where the class can.

        Raises `ValidationError` where the filters hold nothing back, unless ``allow_all``. Deleting for good
        follows the database's foreign keys, not the ORM's cascades.
        """
        softly = soft_delete and self.traits.soft_deletes
        writer = self._writer(user_id, include_deleted=not softly)
        found = writer.reader.analysed(filters_of(filters))
        self._refuse_all(found.unbounded, allow_all)
        with self._writing():
            if not softly:
                return self._counted(writer.delete_where(found))
            if self._directly():
                return self._counted(writer.update_where(found, writer.deletion()))
            return self._change_each(writer, found, writer.deletion())

    def _writing(self) -> Any:
        return writing(self._session, auto_commit=self.auto_commit, model=self.model_class)

    def _directly(self) -> bool:
        """Whether rows may be changed by statements alone, without the session's unit of work."""
        flushes = (*self._session.dispatch.before_flush, *self._session.dispatch.after_flush)
        return self.traits.direct_writes and all(getattr(each, "dotmac_internal", False) for each in flushes)

    def _needs_unit(self, values: Values) -> bool:
        return any(key not in self.traits.columns for key in values)

    def _made(self, values: Values) -> M:
        """A new entity by its own constructor; what that does not take is set afterwards."""
        accepted = self.traits.constructor_keys
        given = {key: value for key, value in values.items() if accepted is None or key in accepted}
        entity = self.model_class(**given)
        for key in values.keys() - given.keys():
            setattr(entity, key, values[key])
        return entity

    def _refuse_held(self, values: Values) -> None:
        """Refuse the key of an object that the session holds, before the ORM warns of two with one identity."""
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
        """Flush, once it is sure that nothing of another tenant is among it."""
        tenant, key = self.tenant_id, self.traits.tenant
        if key is not None and tenant is not ALL_TENANTS:
            for entity in (*self._session.deleted, *self._session.dirty):
                if isinstance(entity, self.model_class) and sa_inspect(entity).dict.get(key, tenant) != tenant:
                    raise TenantIsolationError(f"{self.traits.name}: a row of another tenant would be changed.")
        self._session.flush()

    def _complete(self, entity: M) -> None:
        """Load what the flush could not give back, in one statement, if there is any such column."""
        missing = sa_inspect(entity).unloaded & set(self.traits.mapper.column_attrs.keys())
        for key in missing & self.traits.null_unless_set:
            if key not in sa_inspect(entity).expired_attributes:
                set_committed_value(entity, key, None)
                missing.discard(key)
        if missing:
            self._session.refresh(entity, attribute_names=sorted(missing))

    def _change(self, writer: Writer, key: tuple[Any, ...], values: Values, expected: int | None) -> M:
        entity = self._change_or_none(writer, key, values, expected)
        if entity is None:
            if expected is not None and self._scalars(writer.reader.by_key(key), {}):
                raise StaleEntityError(f"{self.traits.name} has changed: its version is not {expected} any more.")
            raise self._not_found()
        return entity

    def _change_or_none(
        self, writer: Writer, key: tuple[Any, ...], values: Values, expected: int | None = None
    ) -> M | None:
        """Change one row, by a statement where that is enough; None: it is missing, or stale."""
        if not values:
            return self._if_fresh(self._scalars(writer.reader.by_key(key), {"populate_existing": True}), expected)
        if self._directly() and not self._needs_unit(values):
            rows = self._scalars(writer.update_by_key(key, values, expected), _FRESH)
            return rows[0] if rows else None
        entity = self._locked(writer.reader, key)
        if entity is None or self._if_fresh([entity], expected) is None:
            return None
        self._set(entity, values)
        self._flush()
        self._complete(entity)
        return entity

    def _if_fresh(self, rows: Sequence[M], expected: int | None) -> M | None:
        version = self.traits.version
        if rows and (expected is None or version is None or getattr(rows[0], version) == expected):
            return rows[0]
        return None

    def _locked(self, reader: Reader, key: tuple[Any, ...]) -> M | None:
        bound = reader.by_key(key)
        locking = Bound(bound.statement.with_for_update(of=self.model_class), bound.parameters)
        return next(iter(self._scalars(locking, {"populate_existing": True})), None)

    def _set(self, entity: M, values: Values) -> None:
        for key, value in values.items():
            setattr(entity, key, value)
        version = self.traits.version
        if version is not None and self.traits.mapper.version_id_col is None:
            setattr(entity, version, getattr(entity, version) + 1)

    def _change_each(self, writer: Writer, found: Any, values: Values) -> int:
        """Change rows one by one in the unit of work, for classes whose listeners must see it."""
        reader = writer.reader
        statement = select(self.model_class).where(*reader.where(found)).with_for_update(of=self.model_class)
        entities = self._scalars(
            Bound(statement, {**reader.scope.parameters, **found.parameters}), {"populate_existing": True}
        )
        for entity in entities:
            self._set(entity, values)
        self._flush()
        return len(entities)

    def _insert_many(self, writer: Writer, members: builtins.list[Values]) -> None:
        rows = Unnested(writer, members)
        if not rows.possible or len(members) < _FEW:
            self._session.execute(writer.insert(returning=False), members, execution_options=self._options)
            return
        for start in range(0, len(members), BATCH):
            columns, source = rows.source(members[start : start + BATCH])
            statement = insert(self.traits.tables[0]).from_select(columns, source, include_defaults=False)
            self._session.execute(statement, execution_options=self._options)

    def _upserted(self, writer: Writer, members: builtins.list[Values], conflict: builtins.list[Any]) -> Iterator[M]:
        """The rows of an upsert of equal fields, a statement a batch."""
        statement = writer.upsert(list(members[0]), conflict)
        rows = Unnested(writer, members)
        how = {**_FRESH, **self._options}
        if rows.possible and len(members) >= _FEW:
            for start in range(0, len(members), BATCH):
                columns, source = rows.source(members[start : start + BATCH])
                arrays = statement.from_select(columns, source, include_defaults=False)
                yield from self._session.scalars(arrays, execution_options=how)
            return
        size = max(1, self._dialect.max_parameters // len(members[0]))
        for start in range(0, len(members), size):
            yield from self._session.scalars(statement.values(members[start : start + size]), execution_options=how)

    def _update_many(self, writer: Writer, changes: Mapping[tuple[Any, ...], Values]) -> int:
        keys = list(changes)
        written = set[tuple[Any, ...]]()
        for places, members in writer.runs(list(changes.values())):
            for bound in update_many(writer, [keys[place] for place in places], members):
                written.update(map(tuple, self._result(bound, {"synchronize_session": False}).all()))
        self._show({key: changes[key] for key in keys if key in written})
        return len(written)

    def _show(self, changes: Mapping[tuple[Any, ...], Values]) -> None:
        """Let the objects that the session holds have the values that were written."""
        held = self._session.identity_map
        version = self.traits.version
        for key, values in changes.items():
            entity = held.get(self.traits.mapper.identity_key_from_primary_key(key))
            if entity is None:
                continue
            for name, value in values.items():
                set_committed_value(entity, name, value)
            if version is not None and version in sa_inspect(entity).dict:
                set_committed_value(entity, version, getattr(entity, version) + 1)

    def _counted(self, bound: Bound) -> int:
        """Run an UPDATE or DELETE and count its rows; objects that the session holds follow."""
        holds = any(isinstance(entity, self.model_class) for entity in self._session.identity_map.values())
        return int(self._result(bound, {"synchronize_session": "fetch" if holds else False}).rowcount)

    def _result(self, bound: Bound, how: Mapping[str, Any]) -> Any:
        result: Result[Any] = self._execute(bound, how)
        return result

    def _columns_only(self, rows: Sequence[Values]) -> None:
        """Refuse what one statement for many rows can't take: relationships and SQL expressions."""
        for row in rows:
            for key, value in row.items():
                if key not in self.traits.columns or is_sql(value):
                    raise ValidationError(f"{self.traits.name}.{key} can't be written in bulk.", field=key)

    def _without_key(self, values: Values, key: tuple[Any, ...]) -> Values:
        """The values without the primary key, which may be repeated but not changed."""
        for name, part in zip(self.traits.primary_key, key, strict=True):
            if name in values and values.pop(name) != part:
                raise ValidationError(f"{self.traits.name}.{name}: a primary key can't be changed.", field=name)
        return values

    def _refuse_key(self, values: Values) -> None:
        for name in self.traits.primary_key:
            if name in values:
                raise ValidationError(f"{self.traits.name}.{name}: a primary key can't be changed.", field=name)

    def _refuse_all(self, unbounded: bool, allow_all: bool) -> None:
        if unbounded and not allow_all:
            raise ValidationError(
                f"{self.traits.name}: the filters match every row; pass allow_all=True if that is meant.",
                field="filters",
            )
