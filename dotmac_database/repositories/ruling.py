"""Applies an actor's rules to the rows that a repository writes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import false, select
from sqlalchemy import inspect as sa_inspect
from sqlalchemy.orm.base import instance_dict

from ..errors import ConstraintViolationError, DuplicateEntityError, PermissionDeniedError
from ..execution.state import loaded_values, restore_values
from ..models.traits import Traits, traits_of
from ..policies import ModelRules, Right
from ..statements.bulk import BATCH
from ..statements.data import Values
from ..statements.judging import UNKNOWN, Judge, Judgement, new_value_of
from ..statements.reads import Bound, Reader
from ..statements.rows import Key, Rows
from ..statements.rules import RulesInSql
from ..statements.scope import Scope
from ..statements.writes import Writer
from .core import SyncDb
from .running import StatementRunner

M = TypeVar("M")


class RowJudge(StatementRunner[M, SyncDb]):
    """Judges the rows that are written, before and after the write. All its methods are private."""

    @property
    def _model_rules(self) -> ModelRules | None:
        """The actor's rules for the repository's class; None: there are none."""
        return None if self._rules is None else self._rules.of(self.traits)

    def _unruled(self, *, include_deleted: bool = True) -> Reader:
        """The reader of rows that this repository has just written, whether or not the actor may read them."""
        reader = self._reader(include_deleted)
        if self._rules is None:
            return reader
        return replace(reader, scope=replace(reader.scope, rules=None, right=Right.READ), lock=None)

    def _creator(self, user_id: str | None) -> Writer:
        """The writer of new rows, whose statements contain no rule."""
        writer = self._writer(user_id, right=Right.CREATE)
        return writer if self._rules is None else replace(writer, reader=self._unruled(include_deleted=False))

    def _readable(self, include_deleted: bool) -> Reader:
        """The reader of the rows that the actor may read."""
        reader = self._reader(include_deleted)
        return replace(reader, scope=replace(reader.scope, right=Right.READ), lock=None)

    def _judge(self, right: Right, changed: Collection[str] | None = None) -> Judge | None:
        """The judge of rows as they will be stored; None: every row may be stored."""
        rules = self._model_rules
        if rules is None or self._rules is None:
            return None
        rule = rules.stored_rule(right)
        if rule is True:
            return None
        return Judge(
            self.traits, rule, RulesInSql(self._rules, self._dialect, self.traits), self._reader().scope, changed
        )

    def _judged_new(self, values: Values) -> Judgement | None:
        """The judgement of a new row. None: every row may be stored."""
        judge = self._judge(Right.CREATE)
        if judge is None:
            return None
        return judge.judged(new_value_of(self.traits, values, self._reader().typed_defaults()))

    def _refuse_creation(self) -> None:
        """Raise `PermissionDeniedError` if the actor can't create any row."""
        judge = self._judge(Right.CREATE)
        if judge is not None and judge.judged(_nothing_known).is_refused:
            raise self._denied_values(Right.CREATE)

    def _denied_values(self, right: Right) -> PermissionDeniedError:
        rules = self._model_rules
        assert rules is not None
        return rules.denied_values(right)

    def _is_open(self, values: Values) -> bool:
        """Whether only the stored row shows if a new row may be stored. Raises the error for one that may not."""
        judgement = self._judged_new(values)
        if judgement is not None and judgement.is_refused:
            raise self._denied_values(Right.CREATE)
        return judgement is not None and not judgement.is_admitted

    def _open_rows(self, groups: Sequence[Rows]) -> bool:
        """As `_is_open`, for many rows. The error has the ``index`` of its row."""
        judge = self._judge(Right.CREATE)
        is_open = False
        for members in groups if judge is not None else ():
            assert judge is not None
            rest = new_value_of(self.traits, dict.fromkeys(members.columns), self._reader().typed_defaults())
            judgements = judge.judged_rows(members.columns, len(members), rest)
            for place, judgement in zip(members.places, judgements, strict=True):
                if judgement.is_refused:
                    refused = self._denied_values(Right.CREATE)
                    refused.index = place
                    raise refused
                is_open = is_open or not judgement.is_admitted
        return is_open

    def _restricted(self, writer: Writer, values: Values) -> tuple[Writer, bool]:
        """The writer of an update with these values, which changes only rows that will meet the rule then.

        The second value: only the written rows show whether they may be stored.
        """
        judge = self._judge(Right.UPDATE, values)
        judgement = None if judge is None else judge.judged(lambda key: values.get(key, UNKNOWN))
        return restricted(writer, judgement)

    def _refuse_stored(self, entities: Sequence[M], right: Right, first: int | None = None) -> None:
        """Raise `PermissionDeniedError` if the actor may not store a row, as it was written.

        ``first`` is the position of the first of many rows in the data. One SELECT for each batch of the rows that
        their values do not decide.
        """
        judge = self._judge(right)
        if judge is None:
            return
        keys: dict[Key, int] = {}
        for place, entity in enumerate(entities):
            held = instance_dict(entity)
            judgement = judge.judged(lambda key, held=held: held.get(key, UNKNOWN))  # type: ignore[misc]  # the default keeps this row's values
            if judgement.is_refused:
                raise self._at(self._denied_values(right), first, place)
            if not judgement.is_admitted:
                keys[self._reader().key(self.traits.key_of(entity))] = place
        self._refuse_keys(keys, right, first)

    def _refuse_related(self, values: Values, *, is_update: bool) -> None:
        """Raise `PermissionDeniedError` for stored objects whose rows a to-many relationship of the data would change.

        Their class has a policy, and their foreign keys are written by `link`, which checks it.
        """
        for name in self.traits.relationships.keys() & values.keys():
            relationship = self.traits.relationships[name]
            target: Traits[object] = traits_of(relationship.mapper.class_)
            if not relationship.uselist or relationship.secondary is not None or self._rules is None:
                continue
            stored = is_update or any(sa_inspect(each).persistent for each in related_objects(values[name]))
            if stored and self._rules.of(target) is not None:
                raise PermissionDeniedError(
                    f"{self.traits.name}.{name}: rows of {target.name}, which has a policy, are linked by link()."
                )

    def _refuse_related_stored(self, entities: Sequence[object]) -> None:
        """Raise `PermissionDeniedError` if the actor may not create one of the related rows that were written, too."""
        assert self._rules is not None
        sql = RulesInSql(self._rules, self._dialect, self.traits)
        for entity in entities:
            traits: Traits[object] = traits_of(type(entity))
            rules = self._rules.of(traits)
            judge = judge_of(traits, sql, Scope(self.tenant_id, include_deleted=True), Right.CREATE)
            if rules is None or judge is None:
                continue
            held = instance_dict(entity)
            judgement = judge.judged(lambda key, held=held: held.get(key, UNKNOWN))  # type: ignore[misc]  # the default keeps this row's values
            if judgement.is_admitted:
                continue
            reader = Reader(traits, Scope(self.tenant_id, include_deleted=True), self._dialect)
            rule = sql.condition(rules.stored_rule(Right.CREATE), traits, traits.model, reader.scope)
            reader = replace(reader, scope=replace(reader.scope, conditions=(rule,)))
            bound = reader.has_key(reader.key(traits.key_of(entity)))
            if judgement.is_refused or self._execute(reader.confined(bound), {}).first() is None:
                raise rules.denied_values(Right.CREATE)

    def _refuse_keys(self, keys: dict[Key, int], right: Right, first: int | None = None) -> None:
        """Raise `PermissionDeniedError` if one of the stored rows with these keys does not meet the rule."""
        if not keys:
            return
        assert self._rules is not None
        rules = self._model_rules
        assert rules is not None
        reader = self._unruled()
        rule = RulesInSql(self._rules, self._dialect, self.traits).condition(
            rules.stored_rule(right), self.traits, self.traits.model, self._reader().scope
        )
        scope = replace(reader.scope, conditions=(*reader.scope.conditions, rule), inline=True)
        admitted = self._keys_among(replace(reader, scope=scope), list(keys))
        if len(admitted) < len(keys):
            place = min(place for key, place in keys.items() if key not in admitted)
            raise self._at(self._denied_values(right), first, place)

    def _keys_among(self, reader: Reader, keys: Sequence[Key]) -> set[Key]:
        """Those of the keys that belong to rows in the reader's scope. One SELECT for each batch."""
        columns: list[Any] = [self.traits.attribute(name) for name in self.traits.primary_key]
        among = set[Key]()
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            statement = select(*columns).where(
                reader.dialect.row_among(columns, "dotmac_keys"), *reader.scope.root(self.traits)
            )
            parameters = {**reader.scope.parameters, **reader.dialect.row_parameters(columns, "dotmac_keys", batch)}
            rows = self._execute(reader.confined(Bound(statement, parameters)), {}).all()
            among.update(reader.key(tuple(row)) for row in rows)
        return among

    @staticmethod
    def _at(error: PermissionDeniedError, first: int | None, place: int) -> PermissionDeniedError:
        if first is not None:
            error.index = first + place
        return error

    def _refuse_denied(self, writer: Writer, key: Key) -> None:
        """Raise `PermissionDeniedError` if the actor can read the row that he could not write. One SELECT."""
        rules = self._model_rules
        scope = writer.reader.scope
        if rules is None or (rules.rule(scope.right) is True and not scope.conditions):
            return
        readable = self._readable(scope.include_deleted)
        if self._fetched(readable.by_key(key)):
            raise rules.denied(scope.right)

    def _hiding_names(self) -> AbstractContextManager[None]:
        """A block whose errors about constraints do not name columns that are hidden from the actor."""
        rules = self._model_rules
        return nullcontext() if rules is None or not rules.hidden else hiding(rules.hidden, self.traits.name)

    @contextmanager
    def _restoring(self) -> Iterator[None]:
        """A block whose write is undone by `PermissionDeniedError`: the session's objects get their values back."""
        if self._rules is None:
            yield
            return
        session = self._session
        held = loaded_values(session)
        try:
            yield
        except PermissionDeniedError:
            restore_values(session, held)
            raise

    @contextmanager
    def _expiring(self) -> Iterator[None]:
        """Inside of `_restoring` and the transaction: the values of a refused write are not kept."""
        try:
            yield
        except PermissionDeniedError:
            for entity in list(self._session.identity_map.values()):
                self._session.expire(entity)
            raise


@contextmanager
def hiding(hidden: frozenset[str], name: str) -> Iterator[None]:
    """A block in which an error about a constraint on hidden columns of a class names no column and no constraint."""
    try:
        yield
    except DuplicateEntityError as error:
        if hidden.isdisjoint(error.fields) and error.fields:
            raise
        raise DuplicateEntityError(f"{name} exists already.", constraint=error.constraint) from error.__cause__
    except ConstraintViolationError as error:
        if hidden.isdisjoint(error.fields) and error.fields:
            raise
        raise ConstraintViolationError(
            f"{name}: a constraint refused the row.", constraint=error.constraint
        ) from error.__cause__


def restricted(writer: Writer, judgement: Judgement | None) -> tuple[Writer, bool]:
    """The writer whose statements also have the condition of a judgement. True: only the written rows decide."""
    if judgement is None or judgement.is_admitted:
        return writer, False
    condition = judgement.condition
    if condition is None and not judgement.is_refused:
        return writer, True
    if condition is None:
        condition = false()
    scope = writer.reader.scope
    reader = replace(writer.reader, scope=replace(scope, conditions=(*scope.conditions, condition)))
    return replace(writer, reader=reader), False


def related_objects(value: object) -> Sequence[object]:
    """The objects in the value of a to-many relationship."""
    members = value.values() if isinstance(value, dict) else value
    return [*members] if isinstance(members, Iterable) else []


def judge_of(traits: Traits[object], sql: RulesInSql, scope: Scope, right: Right) -> Judge | None:
    """The judge of rows of another class; None: every row may be stored."""
    rules = sql.rules.of(traits)
    rule = True if rules is None else rules.stored_rule(right)
    return None if rule is True else Judge(traits, rule, sql, scope)


def _nothing_known(_: str) -> object:
    return UNKNOWN
