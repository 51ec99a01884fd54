"""The state that all repositories share: the model, the session, the tenant, and the hooks."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Generic, Self, TypeAlias, TypeVar, get_args, get_origin

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.sql import ColumnElement
from typing_extensions import TypeVar as TypeVarWithDefault

from ..actors import current_actor
from ..dialects import dialect_named
from ..dialects.transactions import watch
from ..errors import MisuseError, TenantNotGivenError, TenantRequiredError, ValidationError
from ..execution.hiding import RULED_LOAD
from ..execution.state import state_of, sync_session
from ..execution.strict import STRICT_LOADING
from ..field_names import FieldName, names_for
from ..history.past import Past
from ..models.traits import Traits, traits_of
from ..paging.cursors import CursorCodec, CursorKey
from ..policies import RULES, Policy, Right, Rules, rules_scope
from ..query import Count
from ..statements.coercion import coercer
from ..statements.counts import Counted, counted
from ..statements.data import Values
from ..statements.paths import resolve
from ..statements.reads import Lock, Reader
from ..statements.rules import RulesInSql
from ..statements.scope import Scope
from ..statements.writes import Writer
from ..tenancy.context import ALL_TENANTS, confine
from ..tenancy.values import valid_tenant
from ..uuids import NEW_ID

M = TypeVar("M")
Db = TypeVar("Db", covariant=True)
AnySyncSession: TypeAlias = Session | scoped_session[Any]
AnyAsyncSession: TypeAlias = AsyncSession | async_scoped_session[Any]
SyncDb = TypeVarWithDefault("SyncDb", bound=AnySyncSession, default=Session, covariant=True)
AsyncDb = TypeVarWithDefault("AsyncDb", bound=AnyAsyncSession, default=AsyncSession, covariant=True)


_SESSIONS: Any = object()
"""The default of an actor: that of the session."""


class RepositoryCore(Generic[M, Db]):
    """The state and the hooks that sync and async repositories share.

    Hooks are plain functions, also in async repositories: they use ``self`` and their arguments, and send no
    statements. Override them in a subclass of a sync or an async repository.
    """

    tenant_required: ClassVar[bool] = False
    asynchronous: ClassVar[bool] = False
    declared_model: ClassVar[type[Any] | None] = None
    _lock: Lock | None = None
    _fields: tuple[str, ...] = ()
    _undeferred: frozenset[str] = frozenset()
    _counts: tuple[Counted, ...] = ()
    _strict: bool = False
    _past: Past | None = None

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        for base in getattr(cls, "__orig_bases__", ()):
            origin = get_origin(base)
            if isinstance(origin, type) and issubclass(origin, RepositoryCore):
                model = next(iter(get_args(base)), None)
                if isinstance(model, type):
                    cls.declared_model = model

    def __init__(
        self,
        db: Db,
        model_class: type[M] | None = None,
        tenant_id: object = None,
        auto_commit: bool = True,
        *,
        cursor_key: CursorKey = None,
    ) -> None:
        model: type[M] | None = model_class if model_class is not None else self.declared_model
        if model is None:
            raise MisuseError(
                f"{type(self).__name__} needs a model: pass model_class=, or derive from {type(self).__name__}[Model]."
            )
        if isinstance(db, (AsyncSession, async_scoped_session)) is not self.asynchronous:
            expected, actual = ("an AsyncSession", "sync") if self.asynchronous else ("a Session", "async")
            raise MisuseError(f"{type(self).__name__} takes {expected}, not {type(db).__name__}, which is {actual}.")
        self.db: Db = db
        self.model_class: type[M] = model
        self.auto_commit = auto_commit
        self.traits: Traits[M] = traits_of(model)
        self._session: Session = sync_session(db)
        state_of(self._session).asynchronous |= self.asynchronous
        self._codec = CursorCodec(cursor_key)
        self._strict = STRICT_LOADING in self._session.info
        bind = self._session.get_bind(self.traits.mapper)
        watch(bind)  # a session class of the user's may choose an engine that does not have the toolkit's listeners yet
        self._dialect = dialect_named(bind.dialect.name)
        self._rules: Rules | None = self._session.info.get(RULES)
        self._bind_tenant(tenant_id)

    def _bind_tenant(self, tenant_id: object) -> None:
        traits = self.traits
        if traits.tenant is None and self.tenant_required:
            raise MisuseError(f"{traits.name} has no tenant column, so {type(self).__name__} can't confine it.")
        if isinstance(tenant_id, str) and not tenant_id.strip():
            raise TenantRequiredError("A tenant's name can't be blank.")
        if tenant_id is None and (traits.tenant is not None or self.tenant_required):
            raise TenantNotGivenError(
                f"{traits.name} belongs to tenants: pass tenant_id=, or ALL_TENANTS to work across them."
            )
        if tenant_id is not None and tenant_id is not ALL_TENANTS:
            valid_tenant(tenant_id)  # refuses SQL expressions, which could match the rows of other tenants
        if traits.tenant is not None and tenant_id is not ALL_TENANTS:
            type_ = traits.columns[traits.tenant].type
            try:
                tenant_id = traits.cached(("tenant",), lambda: coercer(type_))(tenant_id)
            except ValueError as expected:
                raise ValidationError(
                    f"{traits.name}.{traits.tenant} takes {expected} for a tenant.", field=traits.tenant
                ) from None
        self.tenant_id: Any = tenant_id
        self._options: dict[str, object] = {} if tenant_id is None else {"dotmac_confined": tenant_id}
        if self._rules is not None:
            self._options[RULED_LOAD] = True
        self._clear_caches()

    def _clear_caches(self) -> None:
        """Clear the caches that depend on the tenant, the lock, the fields and the undeferred columns."""
        self._readers: dict[bool, Reader] = {}

    def _with(self, **changes: object) -> Self:
        """A copy with these attributes changed."""
        other = copy.copy(self)
        other.__dict__.update(changes)
        other._clear_caches()
        return other

    def _projected(self, fields: Sequence[str], counts: Mapping[str, Count]) -> Self:
        """A copy whose reads return dicts of these columns and counts."""
        if not (fields or counts):
            raise MisuseError("Name the fields to read.", field="fields")
        for name in fields:
            path = resolve(self.traits, name, self._row_rules())  # raises for an unknown field
            if not path.plain:
                raise MisuseError(
                    f"{self.traits.name}.{name} is no column or expression of the class's own rows.", field=name
                )
        return self._with(
            _fields=tuple(dict.fromkeys((*fields, *counts))),
            _counts=counted(self.traits, counts, self._dialect, self._row_rules()),
        )

    def with_tenant(self, tenant_id: Any) -> Self:
        """A copy for another tenant, on the same session.

        Raises `TenantNotGivenError` for None if the class has a tenant column.
        """
        other = copy.copy(self)
        other._bind_tenant(tenant_id)
        return other

    def switch_tenant(self, tenant_id: Any) -> Self:
        """An alias of `with_tenant`; this repository keeps its own tenant."""
        return self.with_tenant(tenant_id)

    def with_policy(self, *policies: Policy[Any], actor: object = _SESSIONS) -> Self:
        """A copy whose statements are ruled by these policies, for ``actor``; by default for the session's actor.

        A policy takes the place of the session's policy of the same model; the session's other policies still hold. No
        statement is added. Raises `MisuseError` for two policies of one model, which are combined by ``&`` or ``|``,
        and if there is no actor.
        """
        rules = self._rules
        if actor is _SESSIONS:
            if rules is None or rules.actor is _SESSIONS:
                raise MisuseError("with_policy() needs actor=, since the session has no policies.", field="actor")
            actor = rules.actor
        rules = (Rules((), actor) if rules is None else rules).replaced(policies, actor)
        return self._with(_rules=rules, _options={**self._options, RULED_LOAD: True})

    def sharing_policies(self) -> AbstractContextManager[None]:
        """A block in which the repository's session has the repository's policies, also those of `with_policy`. No I/O.

        Repositories that are made in the block, and `missing_references`, are then ruled by the same policies.
        """
        return nullcontext() if self._rules is None else rules_scope(self._session, self._rules)

    def hidden_columns(self, model: type | None = None) -> frozenset[str]:
        """The attributes of the columns of a class that the repository's policies hide from the actor. No I/O.

        ``model`` None: the repository's own class. With them are the column properties that are computed of hidden
        columns, and the relationships of which a hidden column is the foreign key. Empty if no policy hides any.
        """
        rules, traits = self._rules, self.traits if model is None else traits_of(model)
        if rules is None or (rules.required and rules.known(traits) is None):
            return frozenset()
        return rules.hidden(traits) | rules.hidden_relationships(traits)

    @property
    def is_ruled(self) -> bool:
        """Whether a policy rules which rows of the repository's class the actor can read and write."""
        return self._rules is not None and self._rules.known(self.traits) is not None

    def for_update(self, *, nowait: bool = False, skip_locked: bool = False) -> Self:
        """A copy whose reads lock the rows that they return, until the transaction ends.

        If another transaction has locked a row, the read waits. With ``nowait`` it raises `DatabaseTimeoutError`
        instead; with ``skip_locked`` it omits the row, as a job queue needs. Reads outside of a transaction raise
        `TransactionError`, unless ``auto_commit`` is off. On PostgreSQL, `count`, `exists` and `aggregate` lock
        nothing. On SQLite every read locks the whole database, takes one more statement, and always waits.
        """
        if nowait and skip_locked:
            raise ValidationError("nowait and skip_locked exclude each other.", field="skip_locked")
        return self._with(_lock=Lock(nowait, skip_locked))

    def undefer(self, *fields: FieldName) -> Self:
        """A copy whose reads also load these deferred columns; without names, all deferred columns of the class.

        A dotted path names a column of a relationship that the read loads. No statement is added. Writes always return
        entities with all deferred columns loaded. Raises `ValidationError` for a name that is no column.
        """
        names = names_for(self.model_class, fields)
        for name in names:
            path = resolve(self.traits, name, self._row_rules())
            if path.json or path.key is None or path.key not in path.owner.mapper.column_attrs:
                raise MisuseError(f"{self.traits.name}.{name} is no column.", field=name)
        return self._with(_undeferred=frozenset(names) or self.traits.deferred)

    def strict(self) -> Self:
        """A copy whose entities raise `LazyLoadError` instead of sending a lazy load.

        This holds for the relationships and the deferred or expired columns of each entity that the copy reads or
        writes, and of the entities in the relationships that are loaded then. An entity that the session already holds
        becomes strict too, and an entity that is strict stays so. What a read loads (``relationships``, `undefer`) can
        be used, and `Session.refresh`, `merge`, `delete` and a flush load what they need. No statement is added.
        """
        return self._with(_strict=True)

    def conditions(self) -> Sequence[ColumnElement[bool]]:
        """Hook: conditions that are added to every statement of this repository, besides the tenant's condition."""
        return ()

    @property
    def _has_conditions(self) -> bool:
        """Whether the repository has conditions of its own."""
        return type(self).conditions is not RepositoryCore.conditions

    @property
    def _conditioned(self) -> bool:
        """Whether the repository's own conditions or an actor's rules may be part of the statements.

        Then a reader is made for each statement, since the conditions may be others each time.
        """
        return self._has_conditions or (self._rules is not None and self._rules.concern(self.traits))

    def _is_sendable(self, right: Right) -> bool:
        """Whether a driver can send a statement that needs a right on the rows, as far as conditions go.

        The statement is then cached: the repository has no conditions of its own, and the rules are planned.
        """
        if self._has_conditions:
            return False
        rules = None if self._rules is None else self._row_rules()
        return rules is None or rules.is_planned(right)

    def values_for_create(self, values: Values) -> Values:
        """Hook: called with the validated values of each new row; returns the values to insert."""
        return values

    def values_for_update(self, values: Values) -> Values:
        """Hook: called with the validated values of an update; returns the values to write."""
        return values

    def _row_rules(self) -> RulesInSql | None:
        """The actor's rules for statements; None: no statement of the repository needs one."""
        if self._rules is None or not self._rules.concern(self.traits):
            return None
        return RulesInSql(self._rules, self._dialect, self.traits)

    def _reader(self, include_deleted: bool = False, right: Right = Right.READ) -> Reader:
        """The builder of statements that need a right on the rows, which must be readable, too.

        A guarded session that has no tenant yet is bound to the repository's tenant. If it has another tenant,
        `TenantIsolationError` is raised.
        """
        if self._lock is not None and right is Right.READ:
            right = Right.UPDATE  # a lock stops others from writing the row
        if self.tenant_id is not None:
            confine(self._session if self._past is None else self._past.present, self.tenant_id)
        reader = self._readers.get(include_deleted)
        if reader is not None:
            return reader
        rules = None if self._rules is None else self._row_rules()
        scope = Scope(self.tenant_id, include_deleted, tuple(self.conditions()), rules=rules, right=right)
        reader = Reader(self.traits, scope, self._dialect, self._lock, self._fields, self._undeferred, self._counts)
        if not self._conditioned:
            self._readers[include_deleted] = reader
        return reader

    def _writer(self, user_id: str | None, include_deleted: bool = False, right: Right = Right.UPDATE) -> Writer:
        reader = self._reader(include_deleted, right)
        rules = None if self._rules is None else self._rules.of(self.traits)
        actor = user_id if user_id is not None else current_actor()
        return Writer(reader, actor, rules, self._session.info.get(NEW_ID))
