"""Random calls of repositories: models, methods, filters, orders, fields, lists, page sizes and tenants."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from tests.models import Country, Post, Status, Tag, User

TENANTS = ("acme", "umbrella", "initech")
"""The tenants that have rows."""

MODELS = (User, Post, Tag, Country)
_OF_ALL = ("eq", "ne", "in", "not_in")
_OF_RANGES = ("gt", "gte", "lt", "lte", "between")
_OF_TEXTS = ("like", "not_like", "ilike", "not_ilike", "starts_with", "ends_with")
_OF_NULLS = ("is_null", "is_not_null")
OPERATORS = {
    "text": (*_OF_ALL, *_OF_RANGES, *_OF_TEXTS, *_OF_NULLS),
    "number": (*_OF_ALL, *_OF_RANGES, *_OF_NULLS),
    "float": (*_OF_RANGES, *_OF_NULLS),
    "decimal": (*_OF_ALL, *_OF_RANGES),
    "status": _OF_ALL,
    "flag": ("eq", "ne"),
    "moment": (*_OF_RANGES, *_OF_NULLS),
    "day": (*_OF_ALL, *_OF_RANGES, *_OF_NULLS),
    "uuid": _OF_ALL,
}


@dataclass(frozen=True, eq=False)
class Kind:
    """What random calls need to know about a class: its fields by type, and the fields that a new row needs."""

    model: Any
    key: str
    fields: dict[str, str]
    written: tuple[str, ...]
    required: tuple[str, ...]
    paths: dict[str, str]
    relationships: tuple[str, ...] = ()
    unique: tuple[str, ...] = ()


_OF_USERS = {"name": "text", "email": "text", "status": "status", "score": "number", "ratio": "float"}
_MORE_OF_USERS = {"balance": "decimal", "seen_at": "moment", "born": "day", "active": "flag"}
USER = Kind(
    User,
    "uuid",
    {"id": "uuid", **_OF_USERS, **_MORE_OF_USERS},
    (*_OF_USERS, *_MORE_OF_USERS),
    ("name",),
    {"posts.title": "text", "posts.words": "number", "posts.tags.name": "text"},
    ("posts", "posts.tags"),
    ("email",),
)
POST = Kind(
    Post,
    "number",
    {"id": "number", "title": "text", "words": "number"},
    ("title", "words"),
    ("title",),
    {"author.name": "text", "author.score": "number", "author.status": "status", "tags.name": "text"},
    ("author", "tags", "replies"),
)
TAG = Kind(Tag, "number", {"id": "number", "name": "text"}, ("name",), ("name",), {"posts.title": "text"}, ("posts",))
COUNTRY = Kind(Country, "code", {"code": "text", "name": "text"}, ("code", "name"), ("code", "name"), {}, (), ("code",))
KINDS = (USER, POST, TAG, COUNTRY)


class Values:
    """Random values, always the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def word(self) -> str:
        """A short text."""
        return "".join(self.random.choices("abcdef %_", k=self.random.randrange(1, 8)))

    def value(self, kind: str) -> Any:
        """A value of a type."""
        number = self.random.randrange(60)
        match kind:
            case "text":
                return self.word()
            case "status":
                return self.random.choice([*Status])
            case "flag":
                return number % 2 == 0
            case "float":
                return number / 8
            case "decimal":
                return Decimal(number) / 4
            case "moment":
                return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=number)
            case "day":
                return date(2024, 1, 1) + timedelta(days=number)
            case "uuid":
                return UUID(int=number)
            case "code":
                return chr(97 + number % 26) + chr(97 + number // 26)
        return number

    def some(self, kind: str, most: int = 12) -> list[Any]:
        """A list of values; one list in a hundred is a long one."""
        length = self.random.randrange(1, most) if self.random.random() < 0.99 else self.random.randrange(100, 900)
        return [self.value(kind) for _ in range(length)]


class Calls(Values):
    """Random calls of the methods of a repository."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        reads = (self._list, self._page, self._values, self._cursor, self._count, self._first, self._aggregate)
        lookups = (self._get, self._get_many, self._by_field, self._distinct, self._stream, self._wrong)
        writes = (self._create, self._update, self._upsert, self._create_many, self._update_many, self._delete)
        changes = (self._update_where, self._delete_where, self._explain_route)
        self._methods: list[Callable[[Kind, Any], Any]] = [*reads * 3, *lookups, *writes, *changes]

    def kind(self) -> Kind:
        """A class; that with the most fields most often."""
        return self.random.choice((USER, USER, USER, POST, POST, TAG, COUNTRY))

    def tenant(self) -> str:
        """A tenant with rows, or one of 100,000 without."""
        return self.random.choice(TENANTS) if self.random.random() < 0.8 else f"tenant-{self.random.randrange(100_000)}"

    async def call(self, kind: Kind, repository: Any) -> None:
        """One call."""
        await self.random.choice(self._methods)(kind, repository)

    def filters(self, kind: Kind, depth: int = 0) -> list[dict[str, Any]]:
        """Conditions and groups of conditions."""
        return [self._filter(kind, depth) for _ in range(self.random.randrange(4 if depth == 0 else 1, 5) % 4)]

    def _filter(self, kind: Kind, depth: int) -> dict[str, Any]:
        if depth < 2 and self.random.random() < 0.1:
            members = self.filters(kind, depth + 1) or [self._filter(kind, 2)]
            return {"mode": self.random.choice(("any", "all", "none")), "members": members}
        fields = {**kind.fields, **kind.paths} if self.random.random() < 0.3 else kind.fields
        name = self.random.choice([*fields])
        operator = self.random.choice(OPERATORS[fields[name]])
        return {"field": name, "operator": operator, "value": self._operand(operator, fields[name])}

    def _operand(self, operator: str, kind: str) -> Any:
        if operator in _OF_NULLS:
            return None
        if operator in ("in", "not_in"):
            return self.some(kind)
        return [self.value(kind), self.value(kind)] if operator == "between" else self.value(kind)

    def sorts(self, kind: Kind) -> list[dict[str, Any]]:
        """An order by up to three fields."""
        names = self.random.sample([*kind.fields], min(self.random.randrange(4), len(kind.fields)))
        return [
            {
                "field": name,
                "order": self.random.choice(("asc", "desc")),
                "nulls": self.random.choice((None, None, "first", "last")),
                "by": self.random.choice(("value", "folded")) if kind.fields[name] == "text" else "value",
            }
            for name in names
        ]

    def options(self, kind: Kind, **more: Any) -> dict[str, Any]:
        """The options of a read, without those of pages."""
        related = self.random.sample(kind.relationships, self.random.randrange(len(kind.relationships) + 1))
        return {
            "filters": self.filters(kind),
            "sorts": self.sorts(kind),
            "include_deleted": self.random.random() < 0.2,
            **({"relationships": related} if self.random.random() < 0.2 else {}),
            **more,
        }

    def _paging(self) -> dict[str, Any]:
        total = self.random.choice(("exact", "bounded", "none"))
        return {"page": self.random.randrange(1, 4), "per_page": self.random.randrange(1, 60), "total": total}

    def _row(self, kind: Kind, least: tuple[str, ...] = ()) -> dict[str, Any]:
        names = {*least, *self.random.sample(kind.written, self.random.randrange(1, len(kind.written) + 1))}
        return {name: self._written(kind, name) for name in sorted(names)}

    def _written(self, kind: Kind, name: str) -> Any:
        return self.value("code" if name == "code" else kind.fields[name])

    async def _list(self, kind: Kind, rows: Any) -> None:
        await rows.list(self.options(kind, pagination=self._paging()))

    async def _page(self, kind: Kind, rows: Any) -> None:
        await rows.list_paginated(self.options(kind, pagination=self._paging()))

    async def _values(self, kind: Kind, rows: Any) -> None:
        fields = self.random.sample([*kind.fields], self.random.randrange(1, len(kind.fields) + 1))
        options = self.options(kind, pagination=self._paging())
        await rows.values(*fields).list({**options, "relationships": ()})

    async def _cursor(self, kind: Kind, rows: Any) -> None:
        options, limit = self.options(kind), self.random.randrange(1, 12)
        page = await rows.cursor_paginate({**options, "cursor_pagination": {"limit": limit}})
        if page.next_cursor is not None:
            seek = {"limit": limit, "cursor": page.next_cursor}
            await rows.cursor_paginate({**options, "cursor_pagination": seek})

    async def _count(self, kind: Kind, rows: Any) -> None:
        await rows.count(self.filters(kind), include_deleted=self.random.random() < 0.2)

    async def _first(self, kind: Kind, rows: Any) -> None:
        await rows.first(self.options(kind))

    async def _aggregate(self, kind: Kind, rows: Any) -> None:
        numbers = [name for name, of in kind.fields.items() if of in ("number", "float", "decimal") and name != "id"]
        measures: dict[str, Any] = {self.word(): "count"}
        for name in self.random.sample(numbers, self.random.randrange(len(numbers) + 1)):
            measures[name + self.word()] = (self.random.choice(("sum", "avg", "min", "max")), name)
        groups = self.random.sample([*kind.fields], self.random.randrange(min(3, len(kind.fields))))
        await rows.aggregate(measures, self.filters(kind), group_by=groups)

    async def _get(self, kind: Kind, rows: Any) -> None:
        await rows.get_by_id(self.value(kind.key), include_deleted=self.random.random() < 0.2)

    async def _get_many(self, kind: Kind, rows: Any) -> None:
        await rows.get_many(self.some(kind.key, 40))

    async def _by_field(self, kind: Kind, rows: Any) -> None:
        name = self.random.choice([*kind.fields])
        await rows.list_by_field(name, self._written(kind, name))

    async def _distinct(self, kind: Kind, rows: Any) -> None:
        await rows.distinct_values(self.random.choice([*kind.fields]), self.filters(kind))

    async def _stream(self, kind: Kind, rows: Any) -> None:
        async for _ in rows.stream(self.options(kind), batch_size=self.random.randrange(5, 40)):
            pass

    async def _wrong(self, kind: Kind, rows: Any) -> None:
        """A call with a name that is no field, or with a value of a wrong type."""
        name = self.word() * self.random.randrange(1, 20)
        wrong: tuple[Callable[[], Any], ...] = (
            lambda: rows.list({"filters": [{"field": name, "value": 1}]}),
            lambda: rows.list({"sorts": [{"field": name}]}),
            lambda: rows.values(name).list(),
            lambda: rows.create({name: 1}),
            lambda: rows.update(self.value(kind.key), {name: 1}),
            lambda: rows.list({"filters": [{"field": "id", "operator": "between", "value": name}]}),
        )
        await self.random.choice(wrong)()

    async def _create(self, kind: Kind, rows: Any) -> None:
        await rows.create(self._row(kind, kind.required))

    async def _update(self, kind: Kind, rows: Any) -> None:
        await rows.update(self.value(kind.key), self._row(kind))

    async def _upsert(self, kind: Kind, rows: Any) -> None:
        await rows.upsert(self._row(kind, (*kind.required, *kind.unique)), kind.unique or ("id",))

    async def _create_many(self, kind: Kind, rows: Any) -> None:
        number, returning = self.random.randrange(1, 12), self.random.random() < 0.5
        await rows.bulk_create([self._row(kind, kind.required) for _ in range(number)], returning=returning)

    async def _update_many(self, kind: Kind, rows: Any) -> None:
        keys = {self.value(kind.key) for _ in range(self.random.randrange(1, 8))}
        key = "code" if kind.key == "code" else "id"
        await rows.bulk_update([{**self._row(kind), key: each} for each in sorted(keys)])

    async def _delete(self, kind: Kind, rows: Any) -> None:
        await rows.delete(self.value(kind.key), soft_delete=self.random.random() < 0.7)

    async def _update_where(self, kind: Kind, rows: Any) -> None:
        await rows.update_where(self.filters(kind), self._row(kind))

    async def _delete_where(self, kind: Kind, rows: Any) -> None:
        await rows.delete_where(self.filters(kind))

    async def _explain_route(self, kind: Kind, rows: Any) -> None:
        await rows.explain_route(self.options(kind))
