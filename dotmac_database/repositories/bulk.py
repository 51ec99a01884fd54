"""What a repository does to many rows at once, in as few statements as it can."""

from __future__ import annotations

import builtins
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Any, Literal, TypeVar, overload

from sqlalchemy import Column, select
from sqlalchemy import inspect as sa_inspect
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.sql import Executable
from sqlalchemy.sql.elements import Null

from ..departures import READ_BY_DRIVER, WRITE_INSIDE, mapper_departure, session_departure
from ..dialects.copying import copy
from ..dialects.own_statements import OWN
from ..errors import DuplicateEntityError, MisuseError, ValidationError
from ..execution.objects import objects_of
from ..execution.routes import (
    ARRAYS_FROM,
    Circumstance,
    Reason,
    Route,
    Sender,
    bulk_sender,
    change_refusal,
    rows_sender,
)
from ..execution.state import keep
from ..models.traits import VersionSource
from ..query import FiltersLike, filters_of
from ..statements.bulk import (
    BATCH,
    Unnested,
    each_parameters,
    insert_from,
    update_by_arrays,
    update_each,
    update_many,
    updates_by_arrays,
)
from ..statements.data import NewRow, Values
from ..statements.filters import Analysis
from ..statements.inheritance import matching, spreads
from ..statements.new_keys import new_keys
from ..statements.reads import Bound, for_update
from ..statements.rows import Key, Rows, changed_rows, new_rows, rows_of
from ..statements.upserts import VersionStep, conflict_columns, meets_living_only, upsert, upsert_many
from ..statements.writes import Writer
from ..tenancy.context import ALL_TENANTS
from .changing import FRESH, RowWriter
from .core import RepositoryCore, SyncDb
from .deleting import follow_database

M = TypeVar("M")

_log = logging.getLogger(__name__)

_TRIES = 10
"""The most attempts of an upsert while others change the same row. After that, it is a `DuplicateEntityError`."""


class BulkMethods(RowWriter[M, SyncDb]):
    """Methods that write many rows. Each call is atomic."""

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
        """Insert many rows atomically: one INSERT per batch for each set of fields that the rows have.

        A batch has at most 10,000 rows, and without arrays, as on SQLite, also a limited number of values. The rows of
        a batch are read and validated before it is sent, and released afterwards. If the
        database generates the key by an expression (such as a random UUID), one SELECT for each batch gets the keys
        first. SQLAlchemy may need a statement for each row if the returned rows can't be matched with the given ones by
        their keys: if a trigger makes the key, if the database pads it, or if a row is in several tables.

        Returns the rows in the given order. With ``returning=False`` it returns their number, and uses the fastest
        possible way: COPY from 500 rows on, if the table, its columns, row-level security and the session's listeners
        allow it. The constructor and `@validates` methods of the class apply to each row, as in `create`. No object is
        flushed, so ``before_insert`` and ``after_insert`` events are not fired. The exception are classes of which one
        INSERT can't create objects (`Traits.inserted_in_bulk`).
        """
        writer = self._writer(user_id)
        remaining = iter(rows)
        first = builtins.list(islice(remaining, BATCH))
        if not first:
            return [] if returning else 0
        groups = self._new_rows(writer, first, 0)
        total = 0
        created: builtins.list[M] = []
        with self._writing(self._many_route()):
            while groups:
                total += len(first)
                if returning:
                    created += self._created(writer, groups, len(first))
                else:
                    self._insert_all(writer, groups)
                first, groups = [], []  # so that only one batch is in memory
                first = builtins.list(islice(remaining, BATCH))
                groups = self._new_rows(writer, first, total)
            if not returning:
                return total
            keep(self._session, *created)
        return created

    def _created(self, writer: Writer, groups: Sequence[Rows], many: int) -> builtins.list[M]:
        """Insert ``many`` rows, and return them in the order of the data."""
        if len(groups) == 1:
            entities = builtins.list(self._inserted(writer, groups[0]))
        else:
            by_place: dict[int, M] = {}
            for members in groups:
                by_place.update(zip(members.places, self._inserted(writer, members), strict=True))
            entities = [by_place[place] for place in sorted(by_place)]
        assert len(entities) == many
        self._compute(entities)
        return entities

    def _new_rows(self, writer: Writer, data: Sequence[object], first: int) -> Sequence[Rows]:
        """New rows in groups with the same fields; ``first`` is the position of the first row in the call's data."""
        if not data:
            return []
        if self._takes_columns:
            groups = new_rows(writer, data, first)
            if groups is not None:
                return groups
        prepared = [self._new_row(writer, row, index).values for index, row in enumerate(data, first)]
        return [rows_of([first + place for place in places], members) for places, members in writer.runs(prepared)]

    def upsert(self, data: Any, conflict_fields: Sequence[str], user_id: str | None = None) -> M:
        """Insert one row, or update the row that has the same ``conflict_fields``. One statement.

        The fields must be those of a unique constraint; the tenant column may be omitted. If the existing row is
        soft-deleted, it is updated and restored; with a `LivingUnique` it does not conflict. If it belongs to another
        tenant, it is not changed, and `DuplicateEntityError` is raised. Defaults of a Pydantic class or a constructor
        apply only to a new row: an existing row keeps the values of fields that are not set. `@validates` methods
        apply; ``before_insert`` and ``before_update`` events are not fired. If a function generates the versions
        (``version_id_generator``), the upsert takes two statements, which are repeated while others change the row.
        """
        return self.bulk_upsert([data], conflict_fields, user_id)[0]

    def bulk_upsert(
        self, rows: Iterable[Any], conflict_fields: Sequence[str], user_id: str | None = None
    ) -> builtins.list[M]:
        """`upsert` many rows atomically, and return them in the given order.

        One statement per batch for each set of fields that the rows have.
        """
        writer = self._writer(user_id)
        if len(self.traits.tables) != 1 or not self.traits.takes_statements:
            raise MisuseError(
                f"{self.traits.name} is not mapped to one plain table, so one statement can't upsert its rows."
            )
        upserts = builtins.list(rows)
        groups = self._upsert_groups(writer, upserts)
        conflict = conflict_columns(writer, conflict_fields)
        keys = [self.traits.mapper.get_property_by_column(column).key for column in conflict]
        identities: builtins.list[tuple[object, ...]] = [()] * len(upserts)
        for _, members in groups:
            nothing = [None] * len(members)
            values = zip(*(members.columns.get(key, nothing) for key in keys), strict=True)
            for place, identity in zip(members.places, values, strict=True):
                identities[place] = identity
        if len(set(identities)) != len(identities):
            raise ValidationError(f"{self.traits.name}: two rows have the same {', '.join(conflict_fields)}.")
        by_identity: dict[tuple[object, ...], M] = {}
        with self._writing(self._many_route()):
            for unset, members in groups:
                upserted = builtins.list(self._upserted(writer, members, conflict, unset))
                values = zip(*(map(attrgetter(key), upserted) for key in keys), strict=True)
                by_identity.update(zip(values, upserted, strict=True))
            entities = [by_identity.get(identity) for identity in identities]
            if any(entity is None for entity in entities):
                for entity in by_identity.values():
                    self._session.expire(entity)  # its values are about to be rolled back
                public = tuple(name for name in conflict_fields if name not in self.traits.private)
                named = f": {', '.join(public)}" if public else ""
                raise DuplicateEntityError(f"{self.traits.name} exists already{named}.", fields=public)
            written = [entity for entity in entities if entity is not None]
            self._compute(written)
            keep(self._session, *written)
        return written

    def _upsert_groups(self, writer: Writer, data: Sequence[object]) -> builtins.list[tuple[frozenset[str], Rows]]:
        """The rows of an upsert in groups with the same fields, each with the fields that are only defaults."""
        if len(data) > 1 and self._takes_columns:
            groups = new_rows(writer, data, 0, new=False)
            if groups is not None:
                return [(frozenset(), members) for members in groups]
        places: Sequence[int | None] = [None] if len(data) == 1 else range(len(data))
        prepared = [self._new_row(writer, row, index, new=False) for index, row in zip(places, data, strict=True)]
        return builtins.list(_alike(writer, prepared))

    @property
    def _takes_columns(self) -> bool:
        """Whether new rows can be validated column by column: no hook or constructor must be called for each row."""
        hook = getattr(self.values_for_create, "__func__", None)
        return hook is RepositoryCore.values_for_create and not self.traits.constructs

    def bulk_update(self, rows: Iterable[Any], user_id: str | None = None) -> int:
        """Update many rows atomically. Each given row contains its primary key. Returns the number of rows found.

        One UPDATE per batch for each set of fields that the rows have. If an UPDATE can't write the values (listeners,
        validators, several tables), each row is changed by itself. Rows with nothing but their key are skipped.
        """
        writer = self._writer(user_id)
        data = builtins.list(rows)
        hook = getattr(self.values_for_update, "__func__", None)
        groups = changed_rows(writer, data) if hook is RepositoryCore.values_for_update else None
        if groups is None:
            groups = self._changes(writer, data)
        if not groups:
            return 0
        refusal = change_refusal(self._session, self.traits, [members.columns for _, members in groups])
        with self._writing(self._many_route(refusal)):
            if refusal is not None:
                each = [
                    (place, key, values)
                    for keys, members in groups
                    for place, key, values in zip(members.places, keys, members.dicts(), strict=True)
                ]
                each.sort(key=itemgetter(0))
                return sum(self._change_one(writer, key, values) for _, key, values in each)
            return sum(self._update_many(writer, keys, members) for keys, members in groups)

    def _changes(self, writer: Writer, data: Iterable[object]) -> builtins.list[tuple[builtins.list[Key], Rows]]:
        """The changes of many rows, validated one by one, in groups with the same fields."""
        reader, names = writer.reader, self.traits.primary_key
        changes = builtins.list[tuple[int, Key, Values]]()
        keys = set[Key]()
        for index, row in enumerate(data):
            values = writer.for_update(row)
            if self.traits.tenant in names and self.tenant_id is not ALL_TENANTS:
                values[self.traits.tenant] = self.tenant_id
            if any(name not in values for name in names):
                raise ValidationError(f"Each row must name its primary key: {', '.join(names)}.", field=names[0])
            key = reader.key(tuple(values.pop(name) for name in names))
            if key in keys:
                raise ValidationError(f"Two rows name the same {self.traits.name}.", field=names[0])
            keys.add(key)
            if values:
                values = self.values_for_update(writer.stamped(values))
                changes.append((index, key, writer.refuse_nulls(values, new=False, index=index)))
        return [
            ([changes[place][1] for place in places], rows_of([changes[place][0] for place in places], members))
            for places, members in writer.runs([values for *_, values in changes], keep_none=True)
        ]

    def _change_one(self, writer: Writer, key: tuple[object, ...], values: Values) -> bool:
        """Change one row by an UPDATE if possible. Returns False if there is no such row."""
        by_flush = change_refusal(self._session, self.traits, [values]) is not None
        return self._change_or_none(writer, key, values, by_flush=by_flush) is not None

    def update_where(
        self, filters: FiltersLike, data: Any, user_id: str | None = None, *, allow_all: bool = False
    ) -> int:
        """Update all matching rows and return their number. One UPDATE.

        If an UPDATE can't write the values (listeners, validators, several tables), the rows are read with FOR UPDATE
        and flushed. Raises `ValidationError` if no filter can exclude a row, unless ``allow_all`` is True.
        """
        writer = self._writer(user_id)
        analysis = writer.reader.analysed(filters_of(filters))
        self._refuse_all(analysis.unbounded, allow_all)
        values = writer.for_update(data)
        self._refuse_key(values)
        if not values:
            return 0
        values = writer.refuse_nulls(self.values_for_update(writer.stamped(values)), new=False)
        refusal = change_refusal(self._session, self.traits, [values])
        with self._writing(self._rows_route(refusal)) as without_begin:
            if refusal is None:
                without_begin()
                return self._counted(writer.update_where(analysis, values))
            return self._change_each(writer, analysis, values)

    def delete_where(
        self,
        filters: FiltersLike,
        soft_delete: bool = True,
        user_id: str | None = None,
        *,
        allow_all: bool = False,
    ) -> int:
        """Delete all matching rows and return their number. One statement, or several for a class in several tables.

        If the class has soft-delete columns, the rows are only marked as deleted, unless ``soft_delete`` is False: then
        rows that are marked already are deleted too. Raises `ValidationError` if no filter can exclude a row, unless
        ``allow_all`` is True. A deletion that is not soft applies the database's ``ON DELETE`` rules, not the ORM's
        cascades.
        """
        softly = soft_delete and self.traits.soft_deletes
        writer = self._writer(user_id, include_deleted=not softly)
        analysis = writer.reader.analysed(filters_of(filters))
        self._refuse_all(analysis.unbounded, allow_all)
        refusal = change_refusal(self._session, self.traits, ()) if softly else None
        with self._writing(self._rows_route(refusal)) as without_begin:
            if not softly:
                count = self._deleted_where(writer, analysis, without_begin)
                if count:
                    follow_database(self._session, self.traits, None)
                return count
            if refusal is None:
                without_begin()
                return self._counted(writer.update_where(analysis, writer.deletion()))
            return self._change_each(writer, analysis, writer.deletion())

    def _rows_route(self, refusal: Reason | None) -> Route:
        """The route of an UPDATE or DELETE of all matching rows. With a ``refusal`` it is the route of a flush."""
        if refusal is not None:
            return self._write_route(Sender.UNIT_OF_WORK, refusal, is_single=False)
        return self._write_route(Sender.STATEMENT, Circumstance.STATEMENT)

    def _many_route(self, refusal: Reason | None = None) -> Route:
        """The route of a write of many rows, which may need several statements."""
        sender = Sender.STATEMENT if refusal is None else Sender.UNIT_OF_WORK
        return self._write_route(sender, refusal or Circumstance.STATEMENT, is_single=False)

    def _deleted_where(self, writer: Writer, analysis: Analysis, without_begin: Callable[[], None]) -> int:
        """Delete the matching rows for good, without soft deletion, and return their number."""
        if spreads(self.traits):
            return self._deleted(writer.reader, matching(writer.reader, analysis))
        if not self.traits.takes_statements:
            return self._delete_each(writer, analysis)
        without_begin()
        return self._counted(writer.delete_where(analysis))

    def _change_each(self, writer: Writer, analysis: Analysis, values: Values) -> int:
        """Update the matching rows as objects, by the unit of work, because an UPDATE can't write them."""
        entities = self._matching(writer, analysis)
        for entity in entities:
            self._set(entity, values)
        self._flush()
        return len(entities)

    def _delete_each(self, writer: Writer, analysis: Analysis) -> int:
        """Delete the matching rows as objects, by the unit of work, because a DELETE can't select the class's rows."""
        entities = self._matching(writer, analysis)
        for entity in entities:
            self._session.delete(entity)
        self._flush()
        return len(entities)

    def _matching(self, writer: Writer, analysis: Analysis) -> Sequence[M]:
        """The objects of the matching rows, which are locked."""
        reader = writer.reader
        statement = for_update(self.traits, select(self.model_class).where(*reader.where(analysis)))
        bound = reader.loading(Bound(statement, {**reader.scope.parameters, **analysis.parameters}), ())
        return self._scalars(Bound(bound.statement, bound.parameters), {"populate_existing": True})

    def _inserted(self, writer: Writer, members: Rows) -> Iterable[M]:
        """Insert rows, and return them in the given order."""
        if not self.traits.inserted_in_bulk:
            yield from self._added(members)
            return
        execution_options = {**FRESH, **self._options}
        keys = new_keys(writer, members.columns)
        if keys is None:
            # SQLAlchemy matches the returned rows itself if it can. If not, it sends one statement for each row.
            yield from self._session.scalars(
                writer.insert(returning=True), members.dicts(), execution_options=execution_options
            )
            return
        own = {**self._options, OWN: True} if keys.is_own else self._options

        def select_keys(bound: Bound) -> Sequence[object]:
            of = {"mapper": self.traits.mapper}
            return self._session.execute(
                bound.statement, bound.parameters, execution_options=own, bind_arguments=of
            ).all()

        batch = keys.completed(members, select_keys)
        rows = Unnested(writer, batch.columns)
        by_table = self._by_table()
        if rows_sender(len(batch), arrays=rows.possible) is Sender.ARRAYS:
            bound = insert_from(writer, rows.arrays(batch), by_table=by_table, returning=True)
            entities = self._returned(writer, bound.statement, execution_options, bound.parameters, by_table=by_table)
        else:
            in_order = keys.counted is not None and not self._dialect.inserts_in_order
            sized = {**execution_options, "insertmanyvalues_page_size": BATCH}
            make = writer.insert_by_table if by_table else writer.insert
            statement = make(returning=True, in_order=in_order)
            data = batch.by_table(self.traits) if by_table else batch.dicts()
            entities = self._returned(writer, statement, sized, data, by_table=by_table)
        yield from keys.in_order(entities, batch)

    def _added(self, members: Rows) -> builtins.list[M]:
        """Insert new objects by the unit of work, which sends as many in one statement as it can."""
        entities = [self._new_object(values) for values in members.dicts()]
        self._session.add_all(entities)
        self._flush()
        return entities

    def _insert_all(self, writer: Writer, groups: Iterable[Rows]) -> None:
        """Insert rows that are not returned."""
        for members in groups:
            self._insert_many(writer, members)

    def _insert_many(self, writer: Writer, members: Rows) -> None:
        session, traits = self._session, self.traits
        rows = Unnested(writer, members.columns)
        sender, reason = bulk_sender(session, traits, rows.columns, len(members), arrays=rows.possible)
        why = "" if reason is None else reason.value
        _log.debug("%s: %d rows are inserted %s. %s", traits.name, len(members), sender.value, why)
        match sender:
            case Sender.UNIT_OF_WORK:
                self._added(members)
            case Sender.VALUES if self._by_table():
                statement, data = writer.insert_by_table(returning=False), members.by_table(traits)
                session.execute(
                    statement, data, execution_options=self._options, bind_arguments={"mapper": traits.mapper}
                )
            case Sender.VALUES:
                session.execute(writer.insert(returning=False), members.dicts(), execution_options=self._options)
            case Sender.COPY:
                connection = session.connection({"mapper": traits.mapper})
                copy(connection, traits.tables[0], *rows.lists(members))
            case _:
                bound = insert_from(writer, rows.arrays(members), returning=False)
                session.execute(bound.statement, bound.parameters, execution_options=self._options)

    def _upserted(
        self, writer: Writer, members: Rows, conflict: builtins.list[Column[object]], unset: frozenset[str]
    ) -> Iterable[M]:
        """Upsert rows that have the same fields: one statement per batch."""
        traits = self.traits
        if traits.version_source is VersionSource.GENERATOR:
            yield from self._upserted_by_generator(writer, members.dicts(), conflict, unset)
            return
        by_table = self._by_table()
        fields = members.columns.keys() - unset
        rows = Unnested(writer, members.columns)
        execution_options = {**FRESH, **self._options}
        if rows_sender(len(members), arrays=rows.possible) is Sender.ARRAYS:
            for batch in members.batches(BATCH):
                arrays = rows.arrays(batch)
                statement = upsert_many(writer, fields, conflict, arrays, by_table=by_table)
                yield from self._returned(writer, statement, execution_options, arrays.parameters, by_table=by_table)
            return
        statement = upsert_many(writer, fields, conflict, by_table=by_table)
        if not traits.inserted_in_bulk:
            size = max(1, self._dialect.max_parameters // len(members.columns))
            for batch in members.batches(size):
                yield from self._returned(writer, statement.values(batch.dicts()), execution_options)
            return
        sized = {**execution_options, "render_nulls": True, "insertmanyvalues_page_size": BATCH}
        data = members.by_table(traits) if by_table else members.dicts()
        yield from self._returned(writer, statement, sized, data, by_table=by_table)

    def _upserted_by_generator(
        self,
        writer: Writer,
        members: builtins.list[Values],
        conflict: builtins.list[Column[object]],
        unset: frozenset[str],
    ) -> Iterator[M]:
        """As `_upserted`, for a function that computes the next version from the last: two statements per attempt."""
        execution_options = {**FRESH, **self._options}
        for row in members:
            for _ in range(_TRIES):
                step, exists = self._version_step(writer, row, conflict)
                statement = upsert(writer, [key for key in row if key not in unset], conflict, step=step).values(row)
                entity = next(iter(self._returned(writer, statement, execution_options)), None)
                if entity is not None:
                    yield entity
                    break
                if not exists and not self._version_step(writer, row, conflict)[1]:
                    break  # the existing row is another tenant's

    def _version_step(
        self, writer: Writer, row: Values, conflict: builtins.list[Column[object]]
    ) -> tuple[VersionStep, bool]:
        """Lock the existing row of an upsert. Returns its version and the next one, and whether the row exists."""
        key = self.traits.version
        assert key is not None
        reader = self._reader(include_deleted=not meets_living_only(writer, conflict))
        of = self.traits.mapper.get_property_by_column
        same = [self.traits.attribute(of(each).key) == row.get(of(each).key) for each in conflict]
        statement = select(self.traits.attribute(key)).where(*same, *reader.scope.root(self.traits))
        statement = for_update(self.traits, statement)
        existing = self._execute(Bound(statement, dict(reader.scope.parameters)), {}).first()
        last = None if existing is None else existing[0]
        generator: Any = self.traits.mapper.version_id_generator
        return VersionStep(last, generator(last)), existing is not None

    def _returned(
        self,
        writer: Writer,
        statement: Executable,
        execution_options: Mapping[str, object],
        parameters: Mapping[str, Any] | builtins.list[Values] | None = None,
        *,
        by_table: bool = False,
    ) -> Iterable[M]:
        """The objects of the written rows. A second statement is sent if RETURNING gives only their keys."""
        session, traits = self._session, self.traits
        of = {"mapper": traits.mapper}
        result = session.execute(statement, parameters, execution_options=execution_options, bind_arguments=of)
        if by_table:
            return objects_of(session, traits, builtins.list(traits.columns), result.all())
        if traits.returned:
            return result.scalars()
        keys = [tuple(row) for row in result]
        return self._scalars(writer.reader.by_keys(keys), {"populate_existing": True}) if keys else ()

    def _by_table(self) -> bool:
        """Whether a statement on the table does the same as one on the class, which needs more time for each row.

        The objects of the rows are then made as for statements that the driver sends.
        """
        return (
            self.traits.plain
            and session_departure(self._session, WRITE_INSIDE) is None
            and mapper_departure(self.traits.mapper, READ_BY_DRIVER) is None
        )

    def _update_many(self, writer: Writer, keys: builtins.list[Key], members: Rows) -> int:
        """Update rows with the same fields, and the objects that the session holds. Returns the number of rows."""
        if self._dialect.counts_each and not self._conditioned and self._by_table():
            return self._update_each(writer, keys, members)
        by_arrays = len(members) >= ARRAYS_FROM and updates_by_arrays(writer, members.columns)
        written = set[Key]()
        for bound in (update_by_arrays if by_arrays else update_many)(writer, keys, members):
            written.update(map(tuple, self._result(bound, {"synchronize_session": False}).all()))
        self._apply_to_objects(keys, members, written)
        return len(written)

    def _update_each(self, writer: Writer, keys: builtins.list[Key], members: Rows) -> int:
        """Update rows by one statement, which the driver repeats for each row."""
        names = sorted(members.columns)
        parameters = each_parameters(writer, names, keys, members)
        of = {"mapper": self.traits.mapper}
        result: Any = self._session.execute(
            update_each(writer, names), parameters, execution_options=self._options, bind_arguments=of
        )
        total = int(result.rowcount)
        if total == len(keys):
            self._apply_to_objects(keys, members, keys)
            return total
        # It is unknown which rows were updated, so the objects are read again.
        held = [key for key in keys if self._held_by_key(key) is not None]
        everywhere = replace(writer.reader, scope=replace(writer.reader.scope, include_deleted=True))
        for start in range(0, len(held), BATCH):
            self._scalars(everywhere.by_keys(held[start : start + BATCH]), {"populate_existing": True})
        return total

    def _held_by_key(self, key: Key) -> M | None:
        """The object with this primary key that the session holds."""
        held: M | None = self._session.identity_map.get(self.traits.mapper.identity_key_from_primary_key(key))
        return held

    def _apply_to_objects(self, keys: Sequence[Key], members: Rows, written: Collection[Key]) -> None:
        """Set the values that were written on the objects that the session holds."""
        version = self.traits.version
        if not len(self._session.identity_map):
            return
        written = frozenset(written)
        for key, values in zip(keys, members.dicts(), strict=True):
            entity = self._held_by_key(key) if key in written else None
            if entity is None:
                continue
            for name, value in values.items():
                set_committed_value(entity, name, None if type(value) is Null else value)
            if version is not None and version in sa_inspect(entity).dict:
                set_committed_value(entity, version, self.traits.next_count(entity))

    def _compute(self, entities: Sequence[M]) -> None:
        """Read computed attributes in one statement per batch, since RETURNING does not confine them to the tenant."""
        if not self.traits.computes:
            return
        reader = self._reader(include_deleted=True)
        keys = [reader.key(self.traits.key_of(entity)) for entity in entities]
        for start in range(0, len(keys), BATCH):
            bound = reader.loading(reader.by_keys(keys[start : start + BATCH]), ())
            self._scalars(Bound(reader.whole(bound.statement), bound.parameters), {"populate_existing": True})

    def _refuse_key(self, values: Values) -> None:
        for name in self.traits.primary_key:
            if name in values:
                raise ValidationError(f"{self.traits.name}.{name}: a primary key can't be changed.", field=name)

    def _refuse_all(self, unbounded: bool, allow_all: bool) -> None:
        if unbounded and not allow_all:
            raise MisuseError(
                f"{self.traits.name}: the filters match every row; pass allow_all=True if that is meant.",
                field="filters",
            )


def _alike(writer: Writer, rows: Sequence[NewRow]) -> Iterator[tuple[frozenset[str], Rows]]:
    """The rows in groups that can be upserted together: with the same fields, of which the same are only defaults."""
    groups: dict[frozenset[str], tuple[builtins.list[int], builtins.list[Values]]] = {}
    for place, row in enumerate(rows):
        places, members = groups.setdefault(row.unset, ([], []))
        places.append(place)
        members.append(row.values)
    for unset, (places, members) in groups.items():
        for indexes, alike in writer.runs(members, keep_none=True):
            yield unset, rows_of([places[index] for index in indexes], alike)
