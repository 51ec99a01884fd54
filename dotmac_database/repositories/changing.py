"""Changes and deletes rows, by a statement if possible, else by the session's unit of work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from sqlalchemy import inspect as sa_inspect
from sqlalchemy.orm.attributes import set_committed_value

from ..departures import CHANGE, has_session_listener
from ..dialects import translated
from ..errors import TenantIsolationError, ValidationError
from ..execution.driver import fetch, sets_savepoints, undoing, write
from ..execution.routes import (
    DIRECT,
    Boundary,
    Circumstance,
    Reason,
    Route,
    Sender,
    locking_route,
    log_route,
    write_route,
)
from ..execution.state import changes_of, keep
from ..execution.strict import make_strict
from ..execution.work import commit_own, savepoint, writing
from ..statements.data import Values, is_sql
from ..statements.inheritance import deletions, levels_of
from ..statements.reads import Bound, Reader, for_update
from ..statements.writes import Writer
from ..tenancy.context import ALL_TENANTS
from ..tenancy.related import stamp_by_related
from .core import SyncDb
from .making import ObjectMaker, assign
from .ruling import RowJudge
from .running import Rows

M = TypeVar("M")

FRESH: Mapping[str, object] = {"populate_existing": True, "synchronize_session": False}


class RowWriter(ObjectMaker[M, SyncDb], RowJudge[M, SyncDb]):
    """The steps that the writes of one row and of many rows have in common. All its methods are private."""

    def _write_route(
        self, sender: Sender, refusal: Reason | None = None, *, is_single: bool = True, is_checked: bool = False
    ) -> Route:
        """The route of a write, which ``sender`` sends if the driver can't."""
        return write_route(
            self._session,
            self.traits,
            auto_commit=self.auto_commit,
            sender=sender,
            refusal=refusal,
            is_single=is_single,
            is_checked=is_checked,
        )

    def _by_driver(
        self, route: Route, bound: Bound, *, is_insert: bool = False, entity: M | None = None
    ) -> Sequence[M] | None:
        """The objects of the rows that the driver has written along its route, committed as `writing` commits.

        None: nothing was sent.
        """
        log_route(self.model_class, route)
        session = self._session
        with translated(self.model_class) if self._rules is None else self._ruled_translating():
            rows = write(
                session, route, bound.statement, bound.parameters, self.traits, is_insert=is_insert, entity=entity
            )
        if rows is None:
            return None
        if self._rules is not None:
            self._note_written(*rows)
        elif self._strict:
            make_strict(session, rows)
        if route is not DIRECT:
            keep(session, *rows)
            commit_own(session, auto_commit=self.auto_commit, model=self.model_class)
        return rows

    def _writing(self, route: Route) -> AbstractContextManager[Callable[[], None]]:
        block = writing(self._session, route, auto_commit=self.auto_commit, model=self.model_class)
        return block if self._rules is None else self._ruled_writing(block)

    @contextmanager
    def _ruled_translating(self) -> Iterator[None]:
        """As `translated`, with errors that do not name hidden columns."""
        with self._hiding_names(), translated(self.model_class):
            yield

    @contextmanager
    def _ruled_writing(self, block: AbstractContextManager[Callable[[], None]]) -> Iterator[Callable[[], None]]:
        """The block of a write that rules can still refuse after its statements, and whose errors hide columns."""
        with self._hiding_names(), self._restoring(), block as without_begin, self._expiring():
            yield without_begin

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
        """If the flush did not return all columns, load the others in one statement."""
        missing = sa_inspect(entity).unloaded & set(self.traits.mapper.column_attrs.keys())
        for key in missing & self.traits.null_unless_set:
            if key not in sa_inspect(entity).expired_attributes:
                set_committed_value(entity, key, None)
                missing.discard(key)
        if missing:
            reader = self._unruled()
            self._current(reader, reader.key(self.traits.key_of(entity)))

    def _change_or_none(
        self, writer: Writer, key: tuple[object, ...], values: Values, expected: object = None, *, by_flush: bool
    ) -> M | None:
        """Change one row by an UPDATE, or ``by_flush``. None: the row is missing, or its version is stale."""
        if not values:
            return self._if_expected_version(self._current(writer.reader, key), expected)
        if not by_flush:
            rows = self._scalars(writer.update_by_key(key, values, expected), FRESH)
            return rows[0] if rows else None
        entity = self._locked(writer.reader, key)
        if entity is None or self._if_expected_version([entity], expected) is None:
            return None
        self._set(entity, values)
        written = self._written_by_driver(writer, key, entity)
        if written is None:
            self._flush()
            self._complete(entity)
        return entity if written is None else next(iter(written), None)

    def _updates_objects(self) -> bool:
        """Whether the driver may write the changes of an object of the class, as far as no listener needs a flush."""
        return self.traits.updates_objects and not self._conditioned and not has_session_listener(self._session, CHANGE)

    def _changed_in_savepoint(
        self, route: Route, writer: Writer, key: tuple[object, ...], values: Values, expected: object
    ) -> Sequence[M] | None:
        """A list with the row that was changed as an object, in a savepoint of the driver, or an empty list.

        The driver's savepoint costs less than SQLAlchemy's. None: nothing was sent.
        """
        session = self._session
        is_inside = route.sender is Sender.UNIT_OF_WORK and route.boundary is Boundary.SAVEPOINT
        if not (is_inside and values and values.keys() <= self.traits.columns.keys() and self._updates_objects()):
            return None
        locked = locking_route(session, self.traits)
        if locked.sender is not Sender.DRIVER or not sets_savepoints(session):
            return None
        log_route(self.model_class, route)
        with translated(self.model_class):
            rows = self._locked_by_driver(locked._replace(boundary=Boundary.SAVEPOINT), writer.reader, key)
            if rows is None:
                return None
            entity = self._if_expected_version(rows, expected)
            written: Sequence[M] = [] if entity is None else self._set_and_written(writer, key, entity, values)
        self._note_written(*written)
        commit_own(session, auto_commit=self.auto_commit, model=self.model_class)
        return written

    def _set_and_written(self, writer: Writer, key: tuple[object, ...], entity: M, values: Values) -> Sequence[M]:
        """A list with the object of a locked row, changed inside the driver's savepoint, which a failure rolls back."""
        with undoing(self._session):
            self._set(entity, values)
            written = self._written_by_driver(writer, key, entity)
            if written is not None:
                return written
            with savepoint(self._session, flush=False):
                self._flush()
                self._complete(entity)
        return [entity]

    def _written_by_driver(self, writer: Writer, key: tuple[object, ...], entity: M) -> Sequence[M] | None:
        """A list with the object of a locked row, whose changes the driver has written; an empty list: the row is gone.

        None: a flush must write the changes, or there are none.
        """
        traits, session = self.traits, self._session
        if not self._updates_objects():
            return None
        changes = changes_of(session, entity)
        if not changes or not changes.keys() <= traits.columns.keys() - {traits.tenant, *traits.primary_key}:
            return None
        route = write_route(session, traits, auto_commit=False)
        if route.sender is not Sender.DRIVER or writer.holds_sql(changes):
            return None
        log_route(self.model_class, route)
        bound = writer.update_by_key(key, changes, None)
        # The surrounding transaction or savepoint undoes a failed statement together with the lock.
        inside = Route(route.sender, Boundary.SESSION_TRANSACTION, route.reason)
        return write(session, inside, bound.statement, bound.parameters, traits, entity=entity)

    def _if_expected_version(self, rows: Sequence[M], expected: object) -> M | None:
        version = self.traits.version
        if rows and (expected is None or version is None or getattr(rows[0], version) == expected):
            return rows[0]
        return None

    def _current(self, reader: Reader, key: tuple[object, ...], *, lock: bool = False) -> Sequence[M]:
        """A list with the row that has this key, or an empty list. An object that the session holds is refreshed."""
        bound = reader.loading(reader.by_key(key), ())
        statement = reader.whole(bound.statement)
        statement = for_update(self.traits, statement) if lock else statement
        return self._scalars(Bound(statement, bound.parameters), {"populate_existing": True})

    def _locked(self, reader: Reader, key: tuple[object, ...]) -> M | None:
        """The row with this key, locked until the transaction ends. An object that the session holds is refreshed."""
        route = locking_route(self._session, self.traits, Circumstance.CONDITIONS if self._conditioned else None)
        rows = self._locked_by_driver(route, reader, key) if route.sender is Sender.DRIVER else None
        return next(iter(self._current(reader, key, lock=True) if rows is None else rows), None)

    def _locked_by_driver(self, route: Route, reader: Reader, key: tuple[object, ...]) -> Sequence[M] | None:
        """A list with the locked row, or an empty list, read by the driver along this route. None: nothing was sent."""
        bound = reader.locked_by_key(key)
        rows: Rows | None = fetch(
            self._session, route, bound.statement, bound.parameters, self.traits, (), refresh=True
        )
        return rows if rows is None else [row[0] for row in rows]

    def _set(self, entity: M, values: Values) -> None:
        discriminator = self.traits.discriminator
        for key, value in values.items():
            if key != discriminator:
                assign(entity, key, value)
            elif is_sql(value) or getattr(entity, key) != value:
                raise ValidationError(f"{self.traits.name}.{key}: the class of a row can't be changed.", field=key)
        version = self.traits.version
        if version is not None and self.traits.mapper.version_id_col is None:
            setattr(entity, version, self.traits.next_count(entity))

    def _counted(self, bound: Bound) -> int:
        """Run an UPDATE or DELETE, update the session's objects, and return the number of rows."""
        return self._counted_of(bound, self.model_class)

    def _counted_of(self, bound: Bound, model: type[object]) -> int:
        holds = any(isinstance(entity, model) for entity in self._session.identity_map.values())
        return int(self._result(bound, {"synchronize_session": "fetch" if holds else False}).rowcount)

    def _deleted(self, reader: Reader, keys: Bound) -> int:
        """Delete the entities with the selected keys from all tables of their class, in batches."""
        total, limit = 0, keys.parameters["dotmac_limit"]
        while True:
            batch = [tuple(row) for row in self._execute(keys, {}).all()]
            deleted = 0
            if batch:
                *children, root = deletions(reader, batch)
                for bound in children:
                    self._result(bound, {"synchronize_session": False})
                deleted = self._counted_of(root, levels_of(self.traits)[-1].model)
            total += deleted
            if len(batch) < limit or limit == 1 or not deleted:
                return total

    def _result(self, bound: Bound, execution_options: Mapping[str, object]) -> Any:
        return self._execute(bound, execution_options)
