"""Runs the statements of a repository along their routes."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Result
from sqlalchemy.orm import InstanceState
from sqlalchemy.orm.base import instance_state

from ..dialects import translated
from ..errors import EntityNotFoundError, MisuseError
from ..execution.driver import fetch
from ..execution.hiding import unload_related
from ..execution.routes import (
    DIRECT,
    Boundary,
    Circumstance,
    Reason,
    Route,
    Sender,
    locking_route,
    log_route,
    read_route,
)
from ..execution.ruled import Held, held_by_hand, rule_objects
from ..execution.state import keep
from ..execution.strict import make_strict
from ..execution.work import locking, read
from ..history.past import Past
from ..policies import Right
from ..statements.bulk import BATCH
from ..statements.inheritance import nothing
from ..statements.reads import Bound
from ..statements.scope import Scope
from .core import RepositoryCore, SyncDb

Rows: TypeAlias = builtins.list[tuple[Any, ...]]
"""The rows of a read. Each begins with an entity or with a dict of fields, or has only values."""

M = TypeVar("M")
T = TypeVar("T")


class StatementRunner(RepositoryCore[M, SyncDb]):
    """Sends the statements of a repository. All its methods are private."""

    def _not_found(self) -> EntityNotFoundError:
        return EntityNotFoundError(f"There is no such {self.traits.name}.", model=self.traits.name)

    def _read(self, work: Callable[[Mapping[str, object]], T], route: Route | None = None) -> T:
        if self._past is not None:
            return self._read_past(self._past, work)
        if self._lock is None:
            return read(self._session, work, self.model_class, route=route, recover=self.auto_commit)
        return locking(
            self._session,
            route or locking_route(self._session, None),
            lambda: self._locked_read(work),
            self.model_class,
            commits_by_hand=not self.auto_commit,
        )

    def _read_past(self, past: Past, work: Callable[[Mapping[str, object]], T]) -> T:
        if self._lock is not None:
            raise MisuseError("Rows of the past can't be locked: leave for_update() out.")
        present = past.present
        arguments = {"mapper": self.traits.mapper}
        return read(
            present,
            lambda options: past.read(present.connection(arguments), lambda: work(options)),
            self.model_class,
            recover=self.auto_commit,
        )

    def _locked_read(self, work: Callable[[Mapping[str, object]], T]) -> T:
        if self._dialect.locks_whole:
            reader = self._reader(True)
            self._execute(Bound(nothing(reader), reader.scope.parameters), {"synchronize_session": False})
        return work({"populate_existing": True})

    def _execute(self, bound: Bound, execution_options: Mapping[str, object]) -> Result[Any]:
        return self._session.execute(
            bound.statement,
            bound.parameters,
            execution_options={**execution_options, **bound.execution_options, **self._options},
        )

    def _rows(self, bound: Bound, execution_options: Mapping[str, object]) -> Rows:
        result = self._execute(bound, execution_options)
        return list((result.unique() if self._joins else result).all())

    def _scalars(self, bound: Bound, execution_options: Mapping[str, object]) -> builtins.list[M]:
        result = self._execute(bound, execution_options).scalars()
        return list((result.unique() if self._joins else result).all())

    @property
    def _joins(self) -> bool:
        return self.traits.joins_collections and not self._fields

    def _note_written(self, *entities: M) -> None:
        """Note that a write returns these objects, which a commit must not expire, and which may have to be strict."""
        keep(self._session, *entities)
        if self._strict:
            make_strict(self._session, entities)
        self._rule_objects(entities)
        if self._rules is not None and self.traits.loads_eagerly:
            self._confine_eager(entities)

    def _confine_eager(self, entities: Sequence[M]) -> None:
        """Load what the class of written objects loads by default again, since the write has loaded it without rules.

        One SELECT for each batch, and one for each relationship, if any of them leads to rows with a policy.
        """
        rules = self._row_rules()
        eager = [] if rules is None else rules.eager_to_ruled(self.traits)
        keys: builtins.list[tuple[object, ...]] = []
        for entity in entities:
            state: InstanceState[Any] = instance_state(entity)
            if state.key is not None and state.persistent and any(key in state.dict for key in eager):
                unload_related(state, eager)
                keys.append(tuple(state.key[1]))
        for start in range(0, len(keys), BATCH):
            reader = self._reader(include_deleted=True)
            self._fetched(reader.loading(reader.by_keys(keys[start : start + BATCH]), ()))

    def _rule_objects(self, entities: Iterable[object], held: Held | None = None) -> None:
        """Hide what the actor can't see of these objects, and rule their lazy loads."""
        rules = self._row_rules() if self._rules is not None else None
        if rules is not None:
            rule_objects(self._session, entities, rules.objects(Scope(self.tenant_id, rules=rules)), held or {})

    def _fetched(self, bound: Bound, *, plain: bool = False) -> Rows:
        """The rows of a read: tuples that begin with an entity or a dict; with ``plain``, tuples of values only."""
        is_ruled = self._rules is not None and not (plain or self._fields)
        held = held_by_hand(self._session) if is_ruled else None
        rows = self._sent(bound, plain=plain)
        if self._strict and not (plain or self._fields):
            make_strict(self._session, [row[0] for row in rows])
        if is_ruled:
            self._rule_objects([row[0] for row in rows], held)
        return rows

    def _sent(self, bound: Bound, *, plain: bool) -> Rows:
        route = self._route(bound)
        fields = None if plain else self._fields
        if route is DIRECT:
            log_route(self.model_class, DIRECT)
            with translated(self.model_class):
                rows = fetch(self._session, DIRECT, bound.statement, bound.parameters, self.traits, fields)
            if rows is not None:
                return rows
            route = self._route(bound, Circumstance.STATEMENT)

        def work(execution_options: Mapping[str, object]) -> Rows:
            if route.sender is Sender.DRIVER:
                locks = self._lock is not None
                rows = fetch(
                    self._session, route, bound.statement, bound.parameters, self.traits, fields, refresh=locks
                )
                if rows is not None:
                    return rows
            if plain:
                return builtins.list(self._execute(bound, execution_options).all())
            return self._rows(bound, execution_options)

        return self._read(work, route)

    def _route(self, bound: Bound, refusal: Reason | None = None) -> Route:
        """The route of a read. ``refusal`` is the reason, if any, why the driver can't send it."""
        if self._past is not None:
            return Route(Sender.STATEMENT, Boundary.SESSION_TRANSACTION, Circumstance.STATEMENT)
        if not self._is_sendable(Right.READ if self._lock is None else Right.UPDATE):
            refusal = Circumstance.CONDITIONS
        elif bound.execution_options:
            refusal = Circumstance.STATEMENT
        decide = read_route if self._lock is None else locking_route
        return decide(self._session, self.traits, refusal)
