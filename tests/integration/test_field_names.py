"""A field is named by a text or by the attribute itself, and a sort by a name alone, in every place that takes them."""

# Without `from __future__ import annotations`: SQLModel reads the class of a relationship from the annotation itself.

import copy
import dataclasses
import pickle
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, get_args

import pytest
from sqlalchemy import JSON, ForeignKey, MetaData, String, UniqueConstraint, func
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, column_property, mapped_column, relationship, synonym
from sqlmodel import Field, Relationship, SQLModel, col

from dotmac_database import (
    Aggregate,
    Count,
    CursorPaginationParams,
    DatabasePaginator,
    FilterOperator,
    OffsetParams,
    PaginationParams,
    PerformancePaginator,
    QueryFilter,
    QueryOptions,
    SortField,
    SortOrder,
    TenantIsolationError,
    TenantMixin,
    ValidationError,
    async_missing_references,
    field,
    missing_references,
)
from dotmac_database.query import OperatorName
from dotmac_database.sqlmodel import TenantMixin as SQLModelTenantMixin
from tests.conftest import Face

METADATA = MetaData()


class Base(DeclarativeBase):
    metadata = METADATA


class Named:
    name: Mapped[str] = mapped_column()


class Author(TenantMixin, Named, Base):
    __tablename__ = "named_authors"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    score: Mapped[int | None]
    settings: Mapped[dict[str, str] | None] = mapped_column(JSON)
    bio: Mapped[str | None] = mapped_column(deferred=True)
    team_id: Mapped[int | None] = mapped_column(ForeignKey("named_teams.id"))
    label: Mapped[str] = synonym("name")
    team: Mapped["Team | None"] = relationship()
    books: Mapped[list["Book"]] = relationship(back_populates="author")

    @hybrid_property
    def doubled(self) -> int | None:
        return self.score * 2 if self.score is not None else None

    @doubled.inplace.expression
    @classmethod
    def _doubled(cls) -> Any:
        return cls.score * 2


class Team(TenantMixin, Base):
    __tablename__ = "named_teams"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Book(TenantMixin, Base):
    __tablename__ = "named_books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int | None] = mapped_column(ForeignKey("named_authors.id"))
    author: Mapped[Author | None] = relationship(back_populates="books")


class Model(SQLModel):
    metadata = METADATA


class Writer(SQLModelTenantMixin, Model, table=True):
    __tablename__ = "named_writers"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)
    id: int | None = Field(default=None, primary_key=True)
    name: str
    score: int | None = None
    settings: dict[str, str] | None = Field(default=None, sa_type=JSON)
    bio: str | None = Field(default=None)
    team_id: int | None = Field(default=None, foreign_key="named_clubs.id")
    team: "Club" = Relationship()
    books: list["Novel"] = Relationship(back_populates="author")


Author.loud = column_property(func.upper(Author.name, type_=String()))
Writer.label = synonym("name")
Writer.loud = column_property(func.upper(Writer.name, type_=String()))
Writer.doubled = vars(Author)["doubled"]


class Club(SQLModelTenantMixin, Model, table=True):
    __tablename__ = "named_clubs"
    id: int | None = Field(default=None, primary_key=True)
    name: str


class Novel(SQLModelTenantMixin, Model, table=True):
    __tablename__ = "named_novels"
    id: int | None = Field(default=None, primary_key=True)
    title: str
    author_id: int | None = Field(default=None, foreign_key="named_writers.id")
    author: Writer | None = Relationship(back_populates="books")


KINDS = {"declarative": (Author, Team, Book), "sqlmodel": (Writer, Club, Novel)}


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return METADATA


@pytest.fixture(params=KINDS)
def authors(face: Face, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A repository with four authors. All orders but that of the keys are b, d, a, c reversed or not."""
    author, team, book = KINDS[request.param]
    with face.session() as session:
        repository = face.repository(session, author, "t")
        teams = face(face.repository(session, team, "t").bulk_create, [{"name": f"team {n}"} for n in "abcd"])
        rows = [
            {
                "name": name,
                "score": "abcd".index(name),
                "settings": {"theme": name},
                "bio": f"bio {name}",
                "team_id": teams["abcd".index(name)].id,
            }
            for name in "bdac"
        ]
        made = face(repository.bulk_create, rows)
        titles = [
            {"title": f"{'abcd'[index]}{each.name}", "author_id": each.id}
            for each in made
            for index in range("abcd".index(each.name) + 1)
        ]
        face(face.repository(session, book, "t").bulk_create, titles)
        other = face.repository(session, author, "u")
        face(other.bulk_create, [{**row, "team_id": None} for row in rows])
        yield repository


def _names(rows: Any) -> str:
    rows = getattr(rows, "items", rows)
    return "".join(each["name"] if isinstance(each, dict) else each.name for each in rows)


Read = Callable[[Face, Any, dict[str, Any]], Any]


def _selected(face: Face, repository: Any, options: Any) -> Any:
    result: Any = face(lambda: repository.db.scalars(repository.select(options)))
    return _names(result)


SORTED: dict[str, Read] = {
    "list": lambda face, authors, options: _names(face(authors.list, options)),
    "first": lambda face, authors, options: _names([face(authors.first, options)]),
    "page": lambda face, authors, options: _names(face(authors.page, options)),
    "numbered page": lambda face, authors, options: _names(
        face(authors.list_paginated, {**options, "pagination": PaginationParams(per_page=3)})
    ),
    "offset page": lambda face, authors, options: _names(
        face(authors.page, {**options, "pagination": OffsetParams(0, 3)})
    ),
    "cursor page": lambda face, authors, options: _names(
        face(authors.page, {**options, "cursor_pagination": {"limit": 3}})
    ),
    "cursor_paginate": lambda face, authors, options: _names(face(authors.cursor_paginate, options)),
    "stream": lambda face, authors, options: _names(face(authors.stream, options, 2)),
    "select": _selected,
    "values": lambda face, authors, options: _names(face(authors.values("name").list, options)),
    "values.first": lambda face, authors, options: _names([face(authors.values("name").first, options)]),
    "values.page": lambda face, authors, options: _names(face(authors.values("name").page, options)),
    "values.cursor_paginate": lambda face, authors, options: _names(
        face(authors.values("name").cursor_paginate, options)
    ),
    "values.stream": lambda face, authors, options: _names(face(authors.values("name").stream, options, 3)),
}
"""The names of the authors in the order of the options, for each method that takes sorts."""


def forms_of(model: Any) -> list[tuple[Any, bool]]:
    """Each form of a sort, and whether it is ascending."""
    fields = ["name", "score", "team.name", "settings.theme", "label", "loud", "doubled"]
    attributes = [getattr(model, field) for field in fields if "." not in field]
    ascending = [*fields, *attributes, *map(SortField, fields), *map(SortField, attributes)]
    ascending += [{"field": field} for field in (*fields, *attributes)]
    descending: list[Any] = [f"-{field}" for field in fields]
    for each in (*fields, *attributes):
        descending += [SortField(each, SortOrder.DESC), SortField(each, "desc"), {"field": each, "order": "desc"}]
    return [*((form, True) for form in ascending), *((form, False) for form in descending)]


def test_every_form_of_a_sort(face: Face, authors: Any) -> None:
    for form, is_ascending in forms_of(authors.model_class):
        expected = "abcd" if is_ascending else "dcba"
        query = QueryOptions(sorts=[form, "id"])
        for options in ({"sorts": [form]}, {"sorts": form}, {"sorts": (form, "id")}, query):
            assert _names(face(authors.list, options)) == expected, form


@pytest.mark.parametrize("sort", ["-name", "-team.name", "-settings.theme", "-label", "-loud", "-doubled"])
def test_a_name_is_a_sort_in_every_place(face: Face, authors: Any, sort: str) -> None:
    model = authors.model_class
    attributes = [getattr(model, sort[1:])] if "." not in sort else []
    for place, read in SORTED.items():
        for form in (sort, *(SortField(each, "desc") for each in attributes)):
            shown = read(face, authors, {"sorts": [form]})
            assert shown, place
            assert shown == "dcba"[: len(shown)], place
        for form in (sort[1:], *attributes):
            shown = read(face, authors, {"sorts": [form]})
            assert shown == "abcd"[: len(shown)], place


def test_sorts_by_counts(face: Face, authors: Any) -> None:
    books = authors.model_class.books
    for count in (Count("books"), Count(books)):
        for sort, expected in {"books": "abcd", "-books": "dcba"}.items():
            assert _names(face(authors.values("name", books=count).list, {"sorts": [sort]})) == expected
            assert _names(face(authors.values("name", books=count).cursor_paginate, {"sorts": sort})) == expected


def test_sorts_within_relationships(face: Face, authors: Any) -> None:
    model = authors.model_class
    title = model.books.property.mapper.class_.title
    for form in ("-title", SortField(title, "desc"), {"field": title, "order": "desc"}):
        for sorts in (form, [form]):
            options = {"sorts": sorts, "pagination": {"per_page": 2}}
            for relationships in ({"books": options}, {model.books: options}, {"books": QueryOptions(**options)}):
                for read in (
                    lambda each: face(authors.list, {"sorts": "-name", "relationships": each})[0],
                    lambda each: face(authors.get_by_field, "name", "d", relationships=each),
                ):
                    face(authors.db.expunge_all)
                    assert [book.title for book in read(relationships).books] == ["dd", "cd"]


def test_nulls_stand_as_by_default_unless_a_sort_says_more(face: Face, authors: Any) -> None:
    face(authors.create, {"name": "e"})
    assert _names(face(authors.list, {"sorts": "score"})) == "abcde"
    assert _names(face(authors.list, {"sorts": "-score"})) == "edcba"
    score = authors.model_class.score
    assert _names(face(authors.list, {"sorts": SortField(score, "desc", nulls="last")})) == "dcbae"
    assert _names(face(authors.list, {"sorts": SortField(score, nulls="first")})) == "eabcd"


@pytest.mark.parametrize("field", ["nmae", "team.nmae", "settings", ""])
def test_an_unknown_sort_is_the_same_error_in_every_form(face: Face, authors: Any, field: str) -> None:
    foreign = Book.title if authors.model_class is Author else Novel.title
    messages = set()
    for read in SORTED.values():
        for form in (field, f"-{field}", SortField(field), SortField(field, "desc"), {"field": field}):
            with pytest.raises(ValidationError) as caught:
                read(face, authors, {"sorts": [form]})
            assert caught.value.field == field
            messages.add(str(caught.value))
        for form in (foreign, SortField(foreign)):
            with pytest.raises(ValidationError, match=r"(Book|Novel)\.title is an attribute of (Book|Novel), not of"):
                read(face, authors, {"sorts": [form]})
        with pytest.raises(ValidationError, match="name of a field, or an attribute"):
            read(face, authors, {"sorts": [5]})
    assert len(messages) == 1


def _obtained(face: Face, authors: Any, field: Any) -> Any:
    return [face(authors.get_or_create, {"name": "a"}, fields)[1] for fields in ([field], field)]


def _upserted(face: Face, authors: Any, field: Any) -> Any:
    one = face(authors.upsert, {"name": "a", "score": 7}, [field])
    two = face(authors.bulk_upsert, [{"name": "a", "score": 7}, {"name": "b", "score": 8}], field)
    return [one.score, *(each.score for each in two)]


NAMED: dict[str, tuple[Callable[[Face, Any, Any], Any], Any]] = {
    "get_by_field": (lambda face, authors, field: face(authors.get_by_field, field, "a").name, "a"),
    "list_by_field": (lambda face, authors, field: _names(face(authors.list_by_field, field, "a")), "a"),
    "count": (lambda face, authors, field: face(authors.count, QueryFilter(field, value="a")), 1),
    "filter": (
        lambda face, authors, field: _names(face(authors.list, {"filters": QueryFilter(field, "in", ["a", "b"])})),
        "ba",
    ),
    "filter as a dict": (
        lambda face, authors, field: _names(face(authors.list, {"filters": [{"field": field, "value": "a"}]})),
        "a",
    ),
    "update_where": (
        lambda face, authors, field: face(authors.update_where, QueryFilter(field, value="a"), {"score": 9}),
        1,
    ),
    "delete_where": (lambda face, authors, field: face(authors.delete_where, QueryFilter(field, value="e")), 0),
    "values": (lambda face, authors, field: face(authors.values(field).list)[0], {"name": "b"}),
    "cursor_field": (
        lambda face, authors, field: _names(
            face(authors.cursor_paginate, {"cursor_pagination": {"cursor_field": field, "ascending": False}})
        ),
        "dcba",
    ),
    "CursorPaginationParams": (
        lambda face, authors, field: _names(
            face(authors.page, QueryOptions(cursor_pagination=CursorPaginationParams(2, cursor_field=field)))
        ),
        "ab",
    ),
    "get_or_create": (_obtained, [False, False]),
    "upsert": (_upserted, [7, 7, 8]),
    "group_by": (
        lambda face, authors, field: [
            face(authors.aggregate, {"n": "count"}, group_by=groups)[0] for groups in (field, [field])
        ],
        [{"name": "a", "n": 1}] * 2,
    ),
    "distinct_values": (lambda face, authors, field: face(authors.distinct_values, field), ["a", "b", "c", "d"]),
    "aggregate": (
        lambda face, authors, field: face(
            authors.aggregate, {"one": ("min", field), "two": Aggregate("max", field), "three": {"field": field}}
        ),
        [{"one": "a", "two": "d", "three": 4}],
    ),
    "cursor_paginate_query": (
        lambda face, authors, field: _names(
            face(_paginator(face, DatabasePaginator, "cursor_paginate_query"), authors.db, authors.select(), field, 3)[
                0
            ]
        ),
        "abc",
    ),
}
"""What each place that takes the name of a field gives for the field ``name``."""


def mixed(authors: Any) -> list[Any]:
    """The attribute of the mixin from which the class has its field ``name``, if it has one."""
    return [Named.name] if authors.model_class is Author else []


def _paginator(face: Face, paginator: Any, method: str) -> Any:
    return getattr(paginator, f"async_{method}" if face.is_async else method)


def test_an_attribute_stands_for_its_name(face: Face, authors: Any) -> None:
    name = authors.model_class.name
    foreign = (Team if authors.model_class is Author else Club).name
    for place, (use, expected) in NAMED.items():
        for form in ("name", name, col(name), field(name), *mixed(authors)):
            assert use(face, authors, form) == expected, place
        with pytest.raises(ValidationError, match=r"(Team|Club)\.name is an attribute of (Team|Club), not of"):
            use(face, authors, foreign)
        for wrong in (5, aliased(authors.model_class).name):
            with pytest.raises(ValueError, match="name of a field, or an attribute of a mapped class"):
                use(face, authors, wrong)


RELATED: dict[str, Callable[[Face, Any, Any, Any], Any]] = {
    "get_by_id": lambda face, authors, key, field: face(authors.get_by_id, key, relationships=field).books,
    "get_by_id_or_raise": lambda face, authors, key, field: (
        face(authors.get_by_id_or_raise, key, relationships=[field]).books
    ),
    "get_many": lambda face, authors, key, field: face(authors.get_many, [key], relationships=[field])[0].books,
    "get_by_field": lambda face, authors, key, field: (
        face(authors.get_by_field, "name", "d", relationships=field).books
    ),
    "list_by_field": lambda face, authors, key, field: (
        face(authors.list_by_field, "name", "d", relationships=[field])[0].books
    ),
    "options": lambda face, authors, key, field: (
        face(authors.first, QueryOptions(sorts="-name", relationships=[field])).books
    ),
    "one in options": lambda face, authors, key, field: (
        face(authors.first, {"sorts": "-name", "relationships": field}).books
    ),
    "with options": lambda face, authors, key, field: face(authors.get_by_id, key, relationships={field: {}}).books,
    "link": lambda face, authors, key, field: range(4 + face(authors.link, key, field, [])),
    "unlink": lambda face, authors, key, field: range(4 + face(authors.unlink, key, field, [])),
    "Count": lambda face, authors, key, field: range(
        face(authors.values("name", n=Count(field)).first, {"sorts": "-name"})["n"]
    ),
    "existence": lambda face, authors, key, field: range(
        face(authors.count, QueryFilter(field, FilterOperator.IS_NOT_NULL))
    ),
    "set_links": lambda face, authors, key, field: range(face(authors.set_links, key, field, [])[1]),
}
"""The four books of the author d, or their number, for each place that takes the name of a relationship."""


def test_an_attribute_stands_for_the_name_of_a_relationship(face: Face, authors: Any) -> None:
    books = authors.model_class.books
    key = face(authors.get_by_field, "name", "d").id
    foreign = books.property.mapper.class_.author
    for place, use in RELATED.items():
        with pytest.raises(ValidationError, match=r"(Book|Novel)\.author is an attribute of (Book|Novel), not of"):
            use(face, authors, key, foreign)
        with pytest.raises(ValueError, match="name of a field, or an attribute of a mapped class"):
            use(face, authors, key, 5)
        for form in (books, "books", field(books)) if place != "set_links" else (books,):
            face(authors.db.expunge_all)
            assert len(use(face, authors, key, form)) == 4, place


WRITTEN: dict[str, Callable[[Face, Any, Any, Any], Any]] = {
    "create": lambda face, authors, key, data: face(authors.create, data),
    "bulk_create": lambda face, authors, key, data: face(authors.bulk_create, [{**data, "score": 1}])[0],
    "many rows": lambda face, authors, key, data: face(authors.bulk_create, [data, {"name": f"y {data}"}])[0],
    "uncounted": lambda face, authors, key, data: face(authors.bulk_create, [data], returning=False),
    "get_or_create": lambda face, authors, key, data: face(authors.get_or_create, data, "name")[0],
    "upsert": lambda face, authors, key, data: face(authors.upsert, data, "name"),
    "bulk_upsert": lambda face, authors, key, data: face(authors.bulk_upsert, [data], "name")[0],
    "update": lambda face, authors, key, data: face(authors.update, key, data),
    "update_where": lambda face, authors, key, data: face(authors.update_where, QueryFilter("id", value=key), data),
    "bulk_update": lambda face, authors, key, data: face(authors.bulk_update, [{authors.model_class.id: key, **data}]),
    "missing_references": lambda face, authors, key, data: face(
        async_missing_references if face.is_async else missing_references, authors.db, authors.model_class, data
    ),
}
"""The places that take the data of a row."""


def test_data_can_name_fields_by_attributes(face: Face, authors: Any) -> None:
    model = authors.model_class
    key = face(authors.get_by_field, "name", "d").id
    foreign = (Team if model is Author else Club).name
    for place, write in WRITTEN.items():
        for number, form in enumerate(("name", model.name, col(model.name), field(model.name), *mixed(authors))):
            value = f"{place} {number}"
            result = write(face, authors, key, {form: value})
            if place == "missing_references":
                assert result == ()
                continue
            assert face(authors.count, QueryFilter("name", value=value)) == 1, place
            assert getattr(result, "name", value) == value, place
        with pytest.raises(ValidationError, match=r"(Team|Club)\.name is an attribute of (Team|Club), not of"):
            write(face, authors, key, {foreign: "z"})
        with pytest.raises(ValidationError, match="name: the field is named twice, as a text and as an attribute"):
            write(face, authors, key, {"name": "z", model.name: "z"})
    assert face(authors.count, QueryFilter("name", value="z")) == 0


def test_no_foreign_row_is_referred_to_by_an_attribute(face: Face, authors: Any) -> None:
    """Neither does the check of references skip a key that is an attribute, nor does the tenant of the data count."""
    model = authors.model_class
    team = KINDS["declarative" if model is Author else "sqlmodel"][1]
    other = face(face.repository(authors.db, team, "u").create, {"name": "theirs"})
    check = async_missing_references if face.is_async else missing_references
    for form in ("team_id", model.team_id):
        [missing] = face(check, authors.db, model, {form: other.id}, tenant_id="t")
        assert missing.fields == ("team_id",)
    for form in ("tenant_id", model.tenant_id):
        for write in (WRITTEN["create"], WRITTEN["update"], WRITTEN["bulk_create"]):
            with pytest.raises(TenantIsolationError):
                write(face, authors, 1, {"name": "z", form: "u"})


def test_a_path_of_attributes(face: Face, authors: Any) -> None:
    model = authors.model_class
    team = KINDS["declarative" if model is Author else "sqlmodel"][1]
    book = model.books.property.mapper.class_
    path = field(model.team, team.name)
    assert path == "team.name"
    assert field(model.books, book.author, model.name) == "books.author.name"
    assert field(model.settings, "theme") == "settings.theme"
    assert face(authors.get_by_field, path, "team a").name == "a"
    assert _names(face(authors.list, {"sorts": SortField(path, "desc")})) == "dcba"
    assert _names(face(authors.list, {"sorts": field(model.settings, "theme")})) == "abcd"
    loaded = face(authors.get_by_field, "name", "a", relationships=field(model.books, book.author))
    assert loaded.books[0].author is loaded
    with pytest.raises(
        ValidationError, match=r"(Book|Novel)\.title is an attribute of (Book|Novel), not of (Team|Club)"
    ):
        field(model.team, book.title)
    with pytest.raises(ValidationError, match="'name' is no relationship, so 'title' can't follow it"):
        field(model.name, book.title)
    with pytest.raises(ValidationError, match=r"(Author|Writer)\.team.name is an attribute of (Author|Writer), not of"):
        face(face.repository(authors.db, book, "t").list, {"sorts": path})
    with pytest.raises(ValidationError, match="needs an attribute"):
        field()


def test_undefer_and_deep_pages(face: Face, authors: Any) -> None:
    model = authors.model_class
    for form in (model.bio, "bio", field(model.bio)):
        face(authors.db.expunge_all)
        assert face(authors.undefer(form).get_by_field, "name", "a").bio == "bio a"
    deep = _paginator(face, PerformancePaginator, "deep_pagination_optimize")
    for form in (model.name, "name", *mixed(authors)):
        assert _names(face(deep, authors.db, authors.select().order_by(None), 1, 2, form)[0]) == "ab"


def test_a_copy_keeps_the_class_of_an_attribute() -> None:
    """So that an attribute of another class is refused also after the options were copied."""
    made = QueryFilter(Author.name, value="x")
    for copied in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made), dataclasses.replace(made, value="y")):
        assert copied.field == "name"
        assert copied.field.owner is Author


def test_the_values_of_operators_are_complete() -> None:
    assert get_args(OperatorName) == tuple(each.value for each in FilterOperator)
    assert QueryFilter("balance", "gte", Decimal(1)).operator is FilterOperator.GTE


@pytest.mark.parametrize(
    "make", [QueryFilter, SortField, Count, lambda field: CursorPaginationParams(cursor_field=field)]
)
def test_what_names_no_field_is_refused_by_the_constructors(make: Any) -> None:
    with pytest.raises(ValueError, match="Input should be the name of a field, or an attribute of a mapped class"):
        make(5)
