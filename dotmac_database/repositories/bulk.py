"""Creates and updates many rows at once, in as few statements as it can."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from operator import itemgetter
from typing import Any, Literal, TypeVar, overload

from sqlalchemy import inspect as sa_inspect
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.sql.elements import Null

from ..dialects.copying import copy
from ..dialects.own_statements import OWN
from ..errors import DatabaseError, ValidationError
from ..execution.routes import ARRAYS_FROM, Sender, bulk_sender, change_refusal, rows_sender
from ..execution.settings import announce, providers_for
from ..field_names import RowData
from ..policies import Right
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
from ..statements.data import Values
from ..statements.judging import UNKNOWN
from ..statements.new_keys import new_keys
from ..statements.reads import Bound
from ..statements.rows import Key, Rows, changed_rows, new_rows, rows_of
from ..statements.writes import Writer
from ..tenancy.context import ALL_TENANTS
from .acting import acts_for_user
from .changing import FRESH
from .core import RepositoryCore, SyncDb
from .many import ManyRowsWriter
from .ruling import restricted

M = TypeVar("M")

_log = logging.getLogger(__name__)


@contextmanager
def _row(index: int) -> Iterator[None]:
    """A block that validates the row at this position, which a `DatabaseError` then names."""
    try:
        yield
    except DatabaseError as refused:
        refused.index = index
        raise


class BulkMethods(ManyRowsWriter[M, SyncDb]):
    """Methods that create or update many rows. Each call is atomic."""

    @overload
    def bulk_create(
        self, rows: Iterable[RowData[M]], user_id: str | None = None, *, returning: Literal[True] = True
    ) -> list[M]: ...

    @overload
    def bulk_create(
        self, rows: Iterable[RowData[M]], user_id: str | None = None, *, returning: Literal[False]
    ) -> int: ...

    @overload
    def bulk_create(
        self, rows: Iterable[RowData[M]], user_id: str | None = None, *, returning: bool
    ) -> list[M] | int: ...

    @acts_for_user
    def bulk_create(
        self, rows: Iterable[RowData[M]], user_id: str | None = None, *, returning: bool = True
    ) -> list[M] | int:
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
        writer = self._creator(user_id)
        remaining = iter(rows)
        first = list(islice(remaining, BATCH))
        if not first:
            return [] if returning else 0
        groups = self._new_rows(writer, first, 0)
        is_open = self._rules is not None and self._is_open_batch(groups)
        total = 0
        created: list[M] = []
        with self._writing(self._many_route()):
            while groups:
                total += len(first)
                if is_open:
                    batch = self._created(writer, groups, len(first))
                    self._refuse_stored(batch, Right.CREATE, total - len(first))
                    created += batch if returning else ()
                elif returning:
                    created += self._created(writer, groups, len(first))
                else:
                    self._insert_all(writer, groups)
                first, groups = [], []  # so that only one batch is in memory
                first = list(islice(remaining, BATCH))
                groups = self._new_rows(writer, first, total)
                is_open = self._rules is not None and self._is_open_batch(groups)
            if not returning:
                return total
            self._note_written(*created)
        return created

    def _is_open_batch(self, groups: Sequence[Rows]) -> bool:
        """Whether only the stored rows show if they may be stored. Raises the error for a row that may not."""
        if self.traits.inserted_in_bulk:
            return self._open_rows(groups)
        self._refuse_creation()  # a flush can change the values
        return self._judge(Right.CREATE) is not None

    def _created(self, writer: Writer, groups: Sequence[Rows], many: int) -> list[M]:
        """Insert ``many`` rows, and return them in the order of the data."""
        if len(groups) == 1:
            entities = list(self._inserted(writer, groups[0]))
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
        prepared = []
        for index, row in enumerate(data, first):
            with _row(index):
                prepared.append(self._new_row(writer, row, index).values)
        return [rows_of([first + place for place in places], members) for places, members in writer.runs(prepared)]

    @acts_for_user
    def bulk_update(self, rows: Iterable[RowData[M]], user_id: str | None = None) -> int:
        """Update many rows atomically. Each given row contains its primary key. Returns the number of rows found.

        One UPDATE per batch for each set of fields that the rows have. If an UPDATE can't write the values (listeners,
        validators, several tables), each row is changed by itself. Rows with nothing but their key are skipped.
        """
        writer = self._writer(user_id)
        data = list(rows)
        hook = getattr(self.values_for_update, "__func__", None)
        groups = changed_rows(writer, data) if hook is RepositoryCore.values_for_update else None
        if groups is None:
            groups = self._changes(writer, data)
        if not groups:
            return 0
        refusal = change_refusal(self._session, self.traits, [members.columns for _, members in groups])
        with self._writing(self._many_route(refusal)):
            if self._rules is not None:
                return self._update_ruled(writer, groups, by_flush=refusal is not None)
            if refusal is not None:
                each = [
                    (place, key, values)
                    for keys, members in groups
                    for place, key, values in zip(members.places, keys, members.dicts(), strict=True)
                ]
                each.sort(key=itemgetter(0))
                return sum(self._change_one(writer, key, values) for _, key, values in each)
            return sum(self._update_many(writer, keys, members) for keys, members in groups)

    def _update_ruled(self, writer: Writer, groups: Sequence[tuple[list[Key], Rows]], *, by_flush: bool) -> int:
        """Update rows of a class that an actor's rules concern. Returns the number of rows.

        If the actor can read one of them, but not change it, `PermissionDeniedError` is raised with its ``index``.
        """
        written = dict[Key, int]()
        unwritten = dict[Key, int]()
        for keys, members in groups:
            places = dict(zip(keys, members.places, strict=True))
            if by_flush:
                for key, values in zip(keys, members.dicts(), strict=True):
                    entity = self._change_or_none(writer, key, values, by_flush=True)
                    if entity is None:
                        unwritten[key] = places[key]
                    else:
                        self._refuse_stored([entity], Right.UPDATE, places[key])
                        written[key] = places[key]
                continue
            limited, allowed, is_open = self._restricted_rows(writer, keys, members)
            updated = self._updated(limited, *allowed) if allowed[0] else set[Key]()
            if is_open:
                self._refuse_keys({key: places[key] for key in updated}, Right.UPDATE, 0)
            written |= {key: places[key] for key in keys if key in updated}
            unwritten |= {key: places[key] for key in keys if key not in updated}
        rules = self._model_rules
        if unwritten and rules is not None:
            refused = self._keys_among(self._readable(writer.reader.scope.include_deleted), list(unwritten))
            if refused:
                error = rules.denied(Right.UPDATE)
                error.index = min(unwritten.get(key, 0) for key in refused)
                raise error
        return len(written)

    def _restricted_rows(
        self, writer: Writer, keys: list[Key], members: Rows
    ) -> tuple[Writer, tuple[list[Key], Rows], bool]:
        """The writer of an update of rows with the same fields, those rows that values do not refuse, and (True) that
        only the written rows show if they may be stored.
        """
        judge = self._judge(Right.UPDATE, members.columns)
        if judge is None:
            return writer, (keys, members), False
        judgements = list(judge.judged_rows(members.columns, len(members), lambda _: UNKNOWN))
        chosen = [index for index, each in enumerate(judgements) if not each.is_refused]
        left = {id(each): each for each in judgements if not each.is_refused}
        if len(chosen) < len(keys):
            columns = {name: [values[index] for index in chosen] for name, values in members.columns.items()}
            members = Rows([members.places[index] for index in chosen], columns)
            keys = [keys[index] for index in chosen]
        if all(each.is_admitted for each in left.values()):
            return writer, (keys, members), False
        if len(left) > 1:
            return writer, (keys, members), True
        limited, is_open = restricted(writer, next(iter(left.values())))
        return limited, (keys, members), is_open

    def _changes(self, writer: Writer, data: Iterable[object]) -> list[tuple[list[Key], Rows]]:
        """The changes of many rows, validated one by one, in groups with the same fields."""
        reader, names = writer.reader, self.traits.primary_key
        changes = list[tuple[int, Key, Values]]()
        keys = set[Key]()
        for index, row in enumerate(data):
            with _row(index):
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

    def _added(self, members: Rows) -> list[M]:
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
                announce(connection, providers_for(session, traits.tables))
                copy(connection, traits.tables[0], *rows.lists(members))
            case _:
                bound = insert_from(writer, rows.arrays(members), returning=False)
                session.execute(bound.statement, bound.parameters, execution_options=self._options)

    def _update_many(self, writer: Writer, keys: list[Key], members: Rows) -> int:
        """Update rows with the same fields, and the objects that the session holds. Returns the number of rows."""
        if self._dialect.counts_each and not self._conditioned and self._by_table():
            return self._update_each(writer, keys, members)
        return len(self._updated(writer, keys, members))

    def _updated(self, writer: Writer, keys: list[Key], members: Rows) -> set[Key]:
        """As `_update_many`, by a statement that returns the keys of the updated rows."""
        by_arrays = len(members) >= ARRAYS_FROM and updates_by_arrays(writer, members.columns)
        written = set[Key]()
        for bound in (update_by_arrays if by_arrays else update_many)(writer, keys, members):
            written.update(map(tuple, self._result(bound, {"synchronize_session": False}).all()))
        self._apply_to_objects(keys, members, written)
        return written

    def _update_each(self, writer: Writer, keys: list[Key], members: Rows) -> int:
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
