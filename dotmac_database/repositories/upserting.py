"""Inserts rows, or updates the rows that exist already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, TypeVar

from sqlalchemy import Column, false, or_, select
from sqlalchemy.sql import ColumnElement

from ..errors import DuplicateEntityError, MisuseError, ValidationError
from ..execution.routes import Sender, rows_sender
from ..field_names import FieldName, RowData, names_for
from ..models.traits import VersionSource
from ..policies import Right
from ..statements.bulk import BATCH, Unnested
from ..statements.data import NewRow, Values
from ..statements.judging import UNKNOWN
from ..statements.reads import Bound, for_update
from ..statements.rows import Rows, new_rows, rows_of
from ..statements.rules import RulesInSql
from ..statements.scope import not_deleted_conditions
from ..statements.upserts import VersionStep, changed_fields, conflict_columns, meets_living_only, upsert, upsert_many
from ..statements.writes import Writer
from ..tenancy.context import ALL_TENANTS
from .acting import acts_for_user
from .changing import FRESH
from .core import SyncDb
from .many import ManyRowsWriter

M = TypeVar("M")

_TRIES = 10
"""The most attempts of an upsert while others change the same row. After that, it is a `DuplicateEntityError`."""


class UpsertMethods(ManyRowsWriter[M, SyncDb]):
    """Methods that insert rows or update them. Each call is atomic."""

    def upsert(self, data: RowData[M], conflict_fields: Iterable[FieldName], user_id: str | None = None) -> M:
        """Insert one row, or update the row that has the same ``conflict_fields``. One statement.

        The fields must be those of a unique constraint; the tenant column may be omitted. If the existing row is
        soft-deleted, it is updated and restored; with a `LivingUnique` it does not conflict. If it belongs to another
        tenant, it is not changed, and `DuplicateEntityError` is raised. Defaults of a Pydantic class or a constructor
        apply only to a new row: an existing row keeps the values of fields that are not set. `@validates` methods
        apply; ``before_insert`` and ``before_update`` events are not fired. If a function generates the versions
        (``version_id_generator``), the upsert takes two statements, which are repeated while others change the row.
        """
        return self.bulk_upsert([data], conflict_fields, user_id)[0]

    @acts_for_user
    def bulk_upsert(
        self, rows: Iterable[RowData[M]], conflict_fields: Iterable[FieldName], user_id: str | None = None
    ) -> list[M]:
        """`upsert` many rows atomically, and return them in the given order.

        One statement per batch for each set of fields that the rows have.
        """
        writer = self._writer(user_id)
        conflict_names = names_for(self.model_class, conflict_fields)
        if len(self.traits.tables) != 1 or not self.traits.takes_statements:
            raise MisuseError(
                f"{self.traits.name} is not mapped to one plain table, so one statement can't upsert its rows."
            )
        upserts = list(rows)
        groups = self._upsert_groups(writer, upserts)
        conflict = conflict_columns(writer, conflict_names)
        keys = [self.traits.mapper.get_property_by_column(column).key for column in conflict]
        identities: list[tuple[object, ...]] = [()] * len(upserts)
        for _, members in groups:
            nothing = [None] * len(members)
            values = zip(*(members.columns.get(key, nothing) for key in keys), strict=True)
            for place, identity in zip(members.places, values, strict=True):
                identities[place] = identity
        if len(set(identities)) != len(identities):
            raise ValidationError(f"{self.traits.name}: two rows have the same {', '.join(conflict_names)}.")
        by_identity: dict[tuple[object, ...], M] = {}
        creates = self._rules is not None and self._open_rows([members for _, members in groups])
        with self._writing(self._many_route()):
            for unset, members in groups:
                rules, updates = self._conflict_rules(writer, members, conflict, unset)
                upserted = list(self._upserted(writer, members, conflict, unset, rules))
                if creates:
                    self._refuse_stored(upserted, Right.CREATE)
                if updates:
                    self._refuse_stored(upserted, Right.UPDATE)
                values = zip(*(map(attrgetter(key), upserted) for key in keys), strict=True)
                by_identity.update(zip(values, upserted, strict=True))
            entities = [by_identity.get(identity) for identity in identities]
            if any(entity is None for entity in entities):
                for entity in by_identity.values():
                    self._session.expire(entity)  # its values are about to be rolled back
                missing = next(each for each, entity in zip(identities, entities, strict=True) if entity is None)
                self._refuse_conflict(dict(zip(keys, missing, strict=True)))
                public = tuple(name for name in conflict_names if name not in self.traits.private)
                named = f": {', '.join(public)}" if public else ""
                raise DuplicateEntityError(f"{self.traits.name} exists already{named}.", fields=public)
            written = [entity for entity in entities if entity is not None]
            self._compute(written)
            self._note_written(*written)
        return written

    def _conflict_rules(
        self, writer: Writer, members: Rows, conflict: list[Column[object]], unset: frozenset[str]
    ) -> tuple[list[ColumnElement[bool]], bool]:
        """The conditions that the actor may update a conflicting row, and (True) that only the written row shows it."""
        if self._rules is None or self._model_rules is None:
            return [], False
        traits, scope = self.traits, writer.reader.scope
        sql = RulesInSql(self._rules, self._dialect, self.traits)
        conditions = [
            each for right in (Right.READ, Right.UPDATE) for each in sql.conditions(right, traits, traits.model, scope)
        ]
        restores = sql.conditions(Right.DELETE, traits, traits.model, scope)
        if traits.soft_deletes and restores:
            conditions.append(or_(*not_deleted_conditions(traits, traits.model), *restores))
        changed = changed_fields(writer, members.columns.keys() - unset, conflict)
        judge = self._judge(Right.UPDATE, changed)
        if judge is None or self._model_rules.rule(Right.UPDATE) is False:
            return conditions, False
        columns = {key: values for key, values in members.columns.items() if key in changed}
        judgements = {id(each): each for each in judge.judged_rows(columns, len(members), lambda _: UNKNOWN)}
        [first, *others] = judgements.values()
        if all(each.is_admitted for each in (first, *others)):
            return conditions, False
        if first.is_refused and not others:
            return [*conditions, false()], False
        if others or first.condition is None:
            return conditions, True
        return [*conditions, first.condition], False

    def _refuse_conflict(self, values: Values) -> None:
        """Raise `PermissionDeniedError` if the actor can read the row that he could not update by an upsert."""
        rules = self._model_rules
        if rules is None:
            return
        if self.traits.tenant is not None and self.tenant_id is not ALL_TENANTS:
            values = {**values, self.traits.tenant: self.tenant_id}
        if self._fetched(self._readable(include_deleted=True).by_values(values)):
            raise rules.denied(Right.UPDATE)

    def _upsert_groups(self, writer: Writer, data: Sequence[object]) -> list[tuple[frozenset[str], Rows]]:
        """The rows of an upsert in groups with the same fields, each with the fields that are only defaults."""
        if len(data) > 1 and self._takes_columns:
            groups = new_rows(writer, data, 0, new=False)
            if groups is not None:
                return [(frozenset(), members) for members in groups]
        places: Sequence[int | None] = [None] if len(data) == 1 else range(len(data))
        prepared = [self._new_row(writer, row, index, new=False) for index, row in zip(places, data, strict=True)]
        return list(_alike(writer, prepared))

    def _upserted(
        self,
        writer: Writer,
        members: Rows,
        conflict: list[Column[object]],
        unset: frozenset[str],
        rules: Sequence[ColumnElement[bool]],
    ) -> Iterable[M]:
        """Upsert rows that have the same fields: one statement per batch."""
        traits = self.traits
        if traits.version_source is VersionSource.GENERATOR:
            yield from self._upserted_by_generator(writer, members.dicts(), conflict, unset, rules)
            return
        by_table = self._by_table()
        fields = members.columns.keys() - unset
        rows = Unnested(writer, members.columns)
        execution_options = {**FRESH, **self._options}
        if rows_sender(len(members), arrays=rows.possible) is Sender.ARRAYS:
            for batch in members.batches(BATCH):
                arrays = rows.arrays(batch)
                statement = upsert_many(writer, fields, conflict, arrays, by_table=by_table, rules=rules)
                yield from self._returned(writer, statement, execution_options, arrays.parameters, by_table=by_table)
            return
        statement = upsert_many(writer, fields, conflict, by_table=by_table, rules=rules)
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
        members: list[Values],
        conflict: list[Column[object]],
        unset: frozenset[str],
        rules: Sequence[ColumnElement[bool]],
    ) -> Iterator[M]:
        """As `_upserted`, for a function that computes the next version from the last: two statements per attempt."""
        execution_options = {**FRESH, **self._options}
        for row in members:
            for _ in range(_TRIES):
                step, exists = self._version_step(writer, row, conflict)
                statement = upsert(
                    writer, [key for key in row if key not in unset], conflict, step=step, rules=rules
                ).values(row)
                entity = next(iter(self._returned(writer, statement, execution_options)), None)
                if entity is not None:
                    yield entity
                    break
                if not exists and not self._version_step(writer, row, conflict)[1]:
                    break  # the existing row is another tenant's

    def _version_step(self, writer: Writer, row: Values, conflict: list[Column[object]]) -> tuple[VersionStep, bool]:
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


def _alike(writer: Writer, rows: Sequence[NewRow]) -> Iterator[tuple[frozenset[str], Rows]]:
    """The rows in groups that can be upserted together: with the same fields, of which the same are only defaults."""
    groups: dict[frozenset[str], tuple[list[int], list[Values]]] = {}
    for place, row in enumerate(rows):
        places, members = groups.setdefault(row.unset, ([], []))
        places.append(place)
        members.append(row.values)
    for unset, (places, members) in groups.items():
        for indexes, alike in writer.runs(members, keep_none=True):
            yield unset, rows_of([places[index] for index in indexes], alike)
