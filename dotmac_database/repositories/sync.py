"""The sync repositories."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar, TypeVar, overload

from sqlalchemy import and_, case, func, select, true

from ..field_names import FieldName
from ..query import Count
from ..statements.reads import Bound
from ..statements.scope import not_deleted_conditions
from ..types import utc_now
from .aggregating import AggregateMethods
from .batches import BatchMethods
from .bulk import BulkMethods
from .core import SyncDb
from .explaining import ExplainMethods
from .filtered import FilteredMethods
from .history import HistoryMethods
from .linking import LinkMethods
from .obtaining import ObtainMethods
from .upserting import UpsertMethods
from .values import Row, ValueReads, projection

M = TypeVar("M")
T = TypeVar("T")


class BaseRepository(
    BatchMethods[M, SyncDb],
    BulkMethods[M, SyncDb],
    UpsertMethods[M, SyncDb],
    FilteredMethods[M, SyncDb],
    ObtainMethods[M, SyncDb],
    LinkMethods[M, SyncDb],
    ExplainMethods[M, SyncDb],
    AggregateMethods[M, SyncDb],
    HistoryMethods[M, SyncDb],
):
    """Typed access to the rows of one mapped class, on a `Session`.

    ``model_class`` may be omitted if a subclass declares it: ``class Users(BaseRepository[User])``. A tenant-scoped
    class needs a ``tenant_id``, which may be `ALL_TENANTS`; without it, `TenantRequiredError` is raised. With
    ``auto_commit`` each write is committed, except inside a `DatabaseTransaction` or in a transaction that the app has
    begun, where writes are only flushed. ``cursor_key`` signs cursors. The second type parameter is the type of ``db``
    for type checkers: ``BaseRepository[User, SQLModelSession]``.
    """

    @overload
    def values(  # pyright: ignore[reportOverlappingOverload]  # for type checkers, a class can be a FieldName, too
        self, into: type[T], /, **counts: Count
    ) -> ValueReads[T]: ...
    @overload
    def values(self, *fields: FieldName, **counts: Count) -> ValueReads[Row]: ...
    def values(self, *fields: FieldName, **counts: Count) -> ValueReads[Any]:  # type: ignore[misc]  # mypy: *fields takes into
        """The repository's reads of rows, with each row as a dict of these columns instead of an entity.

        They return the same rows in the same order at lower cost: only the named columns are read, and the session
        keeps nothing. If a subclass overrides a read, its method is called, and its rows are dicts. The ORM's load
        events are not fired. Fields may also be hybrids with an SQL expression, synonyms and ``column_property``, whose
        SQL is confined to the tenant. Raises `ValidationError` for anything else.

        Instead of fields, pass a dataclass or a Pydantic class that is not mapped: ``values(UserCard)``. The columns
        that its fields name are read, and each row is an object of the class. A field that names no column and no count
        keeps its default; without a default, `ValidationError` is raised.

        ``posts=Count("posts")`` adds the number of related rows, and its name can be sorted by. No statement is added.
        """
        return ValueReads(*projection(self, fields, counts))


class BaseTenantRepository(BaseRepository[M, SyncDb]):
    """A `BaseRepository` that is always confined to one tenant."""

    tenant_required: ClassVar[bool] = True

    def get_tenant_stats(self) -> dict[str, Any]:
        """The numbers of the tenant's rows, in one statement.

        The keys are ``tenant_id``, ``entity_type``, ``total_entities``, and, if the columns exist,
        ``deleted_entities``, ``created_today`` and ``created_this_month``. Only ``deleted_entities`` counts deleted
        rows. Days and months begin at midnight UTC.
        """
        traits, reader = self.traits, self._reader(include_deleted=True)
        living = not_deleted_conditions(traits, traits.model)
        counts = {"total_entities": living}
        if living:
            counts["deleted_entities"] = [~living[0]]
        if traits.created_at is not None:
            midnight = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
            created = traits.attribute(traits.created_at)
            counts["created_today"] = [*living, created >= midnight, created < midnight + timedelta(days=1)]
            counts["created_this_month"] = [*living, created >= midnight.replace(day=1)]
        columns = [func.count(case((and_(true(), *met), 1))).label(name) for name, met in counts.items()]
        statement = select(*columns).select_from(traits.model).where(*reader.scope.root(traits))
        bound = Bound(statement, reader.scope.parameters)
        row = self._read(lambda execution_options: self._execute(bound, execution_options).one())
        return {"tenant_id": self.tenant_id, "entity_type": traits.name, **row._mapping}
