"""Query strings, and the lists that they ask for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, TypeAdapter, computed_field
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.orm.attributes import set_committed_value

from dotmac_database import (
    AsyncRepository,
    AsyncTenantRepository,
    CursorPaginationParams,
    CursorPaginationResult,
    Database,
    FilterOperator,
    PaginationParams,
    PaginationResult,
    QueryFilter,
    QueryOptions,
    SortField,
    SortOrder,
    ValidationError,
    create_repository,
)
from dotmac_database_fastapi import (
    CursorQuery,
    PageQuery,
    filter_query,
    get_repository,
    options_query,
    register_exception_handlers,
    sort_query,
)
from dotmac_database_fastapi.query_string import ListParams
from dotmac_database_fastapi.rendering import Renderer
from dotmac_database_fastapi.schemas import read_schema_of
from tests.fastapi.conftest import Api, MakePlugin, inlined
from tests.fastapi.shared_routers import crud_router, list_router
from tests.models import Country, Post, Status, User

pytestmark = pytest.mark.shared_plugin


async def verbose(verbose: bool = False) -> None:
    """A dependency of a router."""


class Library(DeclarativeBase):
    """A registry of its own."""


class Book(Library):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    page: Mapped[int]


@pytest.fixture
def rows(database: Database) -> list[UUID]:
    """45 users of tenant a, one of b."""
    people = [
        {
            "name": f"user {number:02}",
            "score": number % 7 if number % 5 else None,
            "status": list(Status)[number % 3],
            "balance": Decimal(number),
            "seen_at": datetime(2024, 1, 1 + number % 28, tzinfo=UTC),
            "settings": {"theme": "dark" if number % 2 else "light"},
        }
        for number in range(45)
    ]
    with database.sessions() as session:
        create_repository(session, User, "b").create({"name": "foreign"})
    with database.sessions() as session:
        return [user.id for user in create_repository(session, User, "a").bulk_create(people)]


@pytest.fixture
def api(app: FastAPI, api: Api) -> Api:
    app.include_router(list_router(User, prefix="/users", search=("name",), default_sort="name"))
    return api


def names(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["name"] for item in answer.json()["items"]]


def walked(api: Api, path: str, rel: str) -> Iterator[httpx.Response]:
    """The pages from ``path`` on, along the Link header."""
    while True:
        answer = api.get(path, tenant="a")
        yield answer
        if rel not in answer.links:
            return
        path = answer.links[rel]["url"]


class TestPages:
    def test_a_numbered_page(self, api: Api, rows: Any) -> None:
        answer = api.get("/users?page=2&per_page=20&sort=name", tenant="a")
        body = answer.json()
        assert {key: value for key, value in body.items() if key != "items"} == {
            "total": 45,
            "page": 2,
            "per_page": 20,
            "pages": 3,
            "has_next": True,
            "has_prev": True,
        }
        assert names(answer) == [f"user {number:02}" for number in range(20, 40)]
        assert {rel: link["url"] for rel, link in answer.links.items()} == {
            "first": "/users?sort=name&page=1&per_page=20",
            "prev": "/users?sort=name&page=1&per_page=20",
            "next": "/users?sort=name&page=3&per_page=20",
            "last": "/users?sort=name&page=3&per_page=20",
        }

    def test_a_page_past_the_end_has_the_right_total(self, api: Api, rows: Any) -> None:
        answer = api.get("/users?page=9", tenant="a")
        assert (answer.json()["items"], answer.json()["total"], answer.json()["pages"]) == ([], 45, 3)
        assert answer.links["prev"]["url"] == "/users?page=3&per_page=20"
        assert "next" not in answer.links

    def test_nothing_at_all(self, api: Api, database: Database) -> None:
        answer = api.get("/users", tenant="a")
        assert answer.json()["pages"] == 0
        assert answer.links == {}

    @pytest.mark.parametrize(
        "query", ["limit=7", "limit=7&sort=-score,name", "limit=7&status__in=new,active&sort=seen_at"]
    )
    def test_links_walk_all_pages_there_and_back(self, api: Api, rows: Any, query: str) -> None:
        there = list(walked(api, f"/users?{query}", "next"))
        everything = api.get(f"/users?per_page=100&{query.removeprefix('limit=7').lstrip('&')}", tenant="a")
        assert [name for page in there for name in names(page)] == names(everything)
        assert set(there[0].json()) == {"items", "next_cursor", "prev_cursor", "has_next", "has_prev"}
        assert "prev" not in there[0].links
        back = list(walked(api, there[-1].links["prev"]["url"], "prev"))
        assert [names(page) for page in reversed(back)] == [names(page) for page in there[:-1]]
        assert names(api.get(there[-1].links["first"]["url"], tenant="a")) == names(there[0])

    @pytest.mark.parametrize(
        ("query", "named"),
        [
            ("page=0", "page"),
            ("page=-1", "page"),
            ("page=x", "page"),
            ("page=1.5", "page"),
            ("page=", "page"),
            ("page=99999999999999999999999", "page"),
            ("page=1&page=2", "page"),
            ("per_page=101", "per_page"),
            ("limit=101", "limit"),
            ("limit=0", "limit"),
            ("page=1&limit=2", "limit"),
            ("per_page=1&cursor=x", "cursor"),
            ("sort=nme", "sort"),
            ("sort=nam,-name", "sort"),
            ("sort=tenant_id", "sort"),
            ("sort=is_deleted", "sort"),
            ("staus=new", "staus"),
            ("status=old", "status"),
            ("score__gte=many", "score__gte"),
            ("score=99999999999", "score"),
            ("score=1&score=2", "score"),
            ("score__between=1", "score__between"),
            ("score__between=1,2,3", "score__between"),
            ("score__is_null=perhaps", "score__is_null"),
            ("name__in=a%00b", "name__in"),
            ("name=a%00b", "name"),
            ("q=a%00b", "q"),
            ("id=1", "id"),
            ("balance=NaN", "balance"),
            ("seen_at__gt=soon", "seen_at__gt"),
            ("tenant_id=b", "tenant_id"),
            ("is_deleted=true", "is_deleted"),
            ("settings=x", "settings"),
            ("status__gt=new", "status__gt"),
            ("active__like=t", "active__like"),
        ],
    )
    def test_what_is_refused_is_named(self, api: Api, query: str, named: str) -> None:
        answer = api.get(f"/users?{query}", tenant="a")
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert named in {fault["loc"][-1] for fault in answer.json()["errors"]}

    def test_all_faults_are_told_at_once(self, api: Api) -> None:
        faults = api.get("/users?staus=new&score=x&sort=y&page=0", tenant="a").json()["errors"]
        assert [fault["loc"][-1] for fault in faults] == ["staus", "score", "sort", "page"]
        assert "did you mean 'status'" in faults[0]["msg"]

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("nmae", "name"),
            ("pge", "page"),
            ("nmae__in", "name__in"),
            ("score__gt3", "score__gt"),
            ("score__lik", "score__lt"),
            ("name.first", None),
            ("posts.title", None),
        ],
    )
    def test_a_misspelt_parameter_suggests_one_of_its_kind(self, api: Api, name: str, meant: str | None) -> None:
        (fault,) = api.get(f"/users?{name}=x", tenant="a").json()["errors"]
        suggested = fault["msg"].partition("did you mean ")[2].strip("'?") or None
        assert suggested == meant

    @pytest.mark.parametrize("cursor", ["", "x", "AAAA", "%F0%9F", "a" * 5000])
    def test_a_bad_cursor(self, api: Api, cursor: str) -> None:
        answer = api.get(f"/users?cursor={cursor}", tenant="a")
        assert answer.status_code == 400
        assert answer.json()["code"] == "invalid_cursor"

    def test_a_signed_cursor_is_bound_to_its_tenant(
        self, make_plugin: MakePlugin, runner: asyncio.Runner, database: Database, rows: Any
    ) -> None:
        app = FastAPI(lifespan=make_plugin(cursor_key="a secret of 16 bytes").lifespan)
        app.include_router(list_router(User, prefix="/users"))
        register_exception_handlers(app)
        api = Api(app, runner)
        cursor = api.get("/users?limit=2", tenant="a").json()["next_cursor"]
        assert api.get(f"/users?limit=2&cursor={cursor}", tenant="a").status_code == 200
        assert api.get(f"/users?limit=2&cursor={cursor}", tenant="b").status_code == 400
        assert api.get(f"/users?limit=2&cursor={cursor}&score=1", tenant="a").status_code == 400

    def test_a_router_may_say_more(self, app: FastAPI, api: Api, rows: Any) -> None:
        app.include_router(list_router(User, prefix="/more", page_size=30, max_page_size=1000, filters=["name"]))
        assert len(names(api.get("/more", tenant="a"))) == 30
        assert len(names(api.get("/more?limit=1000", tenant="a"))) == 45
        assert api.get("/more?score=1", tenant="a").status_code == 422


class TestFilters:
    @pytest.mark.parametrize(
        ("query", "numbers"),
        [
            ("status=active", [n for n in range(45) if n % 3 == 1]),
            ("status=ACTIVE", [n for n in range(45) if n % 3 == 1]),
            ("status__in=active,closed", [n for n in range(45) if n % 3]),
            ("status__in=active&status__in=closed", [n for n in range(45) if n % 3]),
            ("status__not_in=active,closed", [n for n in range(45) if n % 3 == 0]),
            ("status__in=", []),
            ("score__gte=5", [n for n in range(45) if n % 5 and n % 7 >= 5]),
            ("score__between=2,3", [n for n in range(45) if n % 5 and n % 7 in (2, 3)]),
            ("score__is_null=true", [n for n in range(45) if n % 5 == 0]),
            ("score__is_null=false", [n for n in range(45) if n % 5]),
            ("score__is_not_null=1", [n for n in range(45) if n % 5]),
            ("score__ne=3", [n for n in range(45) if n % 5 and n % 7 != 3]),
            ("balance__lt=1.5", [0, 1]),
            ("name__ilike=USER%201", list(range(10, 20))),
            ("name__starts_with=user%200", list(range(10))),
            ("name=user%2007", [7]),
            ("name__eq=user%2007", [7]),
            ("name__in=user%2001&name__in=user%2002", [1, 2]),
            ("seen_at__gte=2024-01-28T00:00:00Z", [27]),
            ("seen_at__gte=2024-01-28T02:00:00%2B02:00", [27]),
            ("seen_at__gte=2024-01-28T02:00:00+02:00", [27]),
            ("seen_at__gte=2024-01-28", [27]),
            ("q=user%2011", [11]),
            ("active=true&score=6&status=new", [6, 27, 34 + 0][:2]),
        ],
    )
    def test_a_query_string_chooses_rows(self, api: Api, rows: Any, query: str, numbers: list[int]) -> None:
        answer = api.get(f"/users?per_page=100&{query}", tenant="a")
        assert names(answer) == [f"user {number:02}" for number in numbers]

    def test_a_field_with_the_name_of_a_parameter_is_asked_for_with_its_operator(self) -> None:
        params = ListParams(Book)
        assert {"page__eq", "page__gt"} <= set(params.filters.declared)
        assert "page" not in params.filters.declared

    def test_a_query_string_is_parsed_once_if_its_values_are_plain(self) -> None:
        params = ListParams(User)

        def read(query: bytes) -> list[QueryOptions]:
            scope = {"type": "http", "query_string": query, "headers": [], "app": FastAPI()}
            return [params.read(Request(scope)), params.read(Request(scope))]

        first, again = read(b"status=NEW&score__gte=3&sort=-name&page=2")
        assert first is again
        assert read(b"sort=name")[0] is not first
        for changing in (b"status__in=NEW,ACTIVE", b"seen_at__gt=2026-01-01T00:00:00Z"):
            first, again = read(changing)
            assert first == again
            assert first is not again
        for _ in range(2):  # an error is never remembered as a success
            with pytest.raises(RequestValidationError):
                read(b"status=unknown")
        for number in range(300):
            read(b"score=%d" % number)
        assert len(params._parsed) <= 256

    def test_unknown_fields_are_refused_where_they_are_declared(self) -> None:
        for declare in (filter_query, sort_query, options_query):
            with pytest.raises(ValidationError, match=r"nmae.*did you mean 'name'"):
                declare(User, "nmae")
        with pytest.raises(ValidationError, match="neither a relationship nor JSON"):
            filter_query(User, "name.first")
        with pytest.raises(ValidationError, match="relationship of User"):
            filter_query(User, "posts")

    def test_the_same_arguments_give_the_same_dependency(self) -> None:
        assert filter_query(User, "name") is filter_query(User, "name")
        assert sort_query(User) is sort_query(User)
        assert options_query(User, "name", sorts=["name"]) is options_query(User, "name", sorts=("name",))


class TestDependencies:
    def test_pages(self, app: FastAPI, api: Api) -> None:
        @app.get("/page")
        async def page(page: PageQuery, cursor: CursorQuery) -> list[str]:
            assert isinstance(page, PaginationParams)
            assert isinstance(cursor, CursorPaginationParams)
            return [str(page.page), str(page.per_page), str(cursor.limit), str(cursor.cursor)]

        assert api.get("/page").json() == ["1", "20", "20", "None"]
        assert api.get("/page?page=3&per_page=1000&limit=7&cursor=x").json() == ["3", "1000", "7", "x"]
        for bad in ("page=0", "per_page=1001", "limit=0", "limit=1001", "page=x"):
            assert api.get(f"/page?{bad}").status_code == 422

    def test_filters_and_sorts(self, app: FastAPI, api: Api) -> None:
        seen: list[Any] = []

        @app.get("/own")
        async def own(
            page: PageQuery,
            mine: int = 0,
            filters: Any = Depends(filter_query(User, "status", "score", "posts.title", "settings.theme")),
            sorts: Any = Depends(sort_query(User, "created_at", "name")),
        ) -> None:
            seen[:] = [filters, sorts]

        query = (
            "status=active&score__gte=10&posts.title__ilike=jo&settings.theme=dark&sort=-created_at,name&mine=1&page=2"
        )
        assert api.get(f"/own?{query}").status_code == 200
        assert seen == [
            [
                QueryFilter("status", FilterOperator.EQ, Status.ACTIVE),
                QueryFilter("score", FilterOperator.GTE, 10),
                QueryFilter("posts.title", FilterOperator.ILIKE, "jo"),
                QueryFilter("settings.theme", FilterOperator.EQ, "dark"),
            ],
            [SortField("created_at", SortOrder.DESC), SortField("name")],
        ]
        answer = api.get("/own?name=x")
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == ["query", "name"]

    def test_parameters_of_the_caller_are_known(self, make_plugin: MakePlugin, runner: asyncio.Runner) -> None:
        def tenant(org: str) -> str:
            return org

        app = FastAPI(lifespan=make_plugin(tenant=tenant, actor=lambda who="nobody": who).lifespan)
        app.include_router(list_router(User, prefix="/users"), dependencies=[Depends(verbose)])
        api = Api(app, runner)
        assert api.get("/users?org=a&who=ann&verbose=1&status=new").status_code == 200
        assert api.get("/users?org=a&whom=ann").status_code == 422

    def test_options(self, app: FastAPI, api: Api, rows: Any) -> None:
        @app.get("/options")
        async def options(
            options: Any = Depends(options_query(User, "status", "score", max_page_size=50)),
            users: Any = Depends(get_repository(User)),
        ) -> list[str]:
            return [user.name for user in await users.list(options)]

        assert len(api.get("/options?per_page=50", tenant="a").json()) == 45
        assert len(api.get("/options?status=new&per_page=50", tenant="a").json()) == 15
        assert api.get("/options?per_page=51", tenant="a").status_code == 422
        assert api.get("/options?name=x", tenant="a").status_code == 422

    def test_openapi_has_types_and_allowed_values(self, app: FastAPI, api: Api) -> None:
        @app.get("/own")
        async def own(
            filters: Any = Depends(filter_query(User)), sorts: Any = Depends(sort_query(User, "name"))
        ) -> None: ...

        document = inlined(api.get("/openapi.json").json())
        for path in ("/own", "/users"):
            declared = {each["name"]: each["schema"] for each in document["paths"][path]["get"]["parameters"]}
            assert declared["status"]["enum"] == ["new", "active", "closed"]
            assert declared["score__gte"]["type"] == "integer"
            assert declared["seen_at__lt"]["format"] == "date-time"
            assert declared["status__in"]["items"]["enum"] == ["new", "active", "closed"]
            assert declared["score__is_null"]["type"] == "boolean"
            assert declared["active"]["type"] == "boolean"
            assert "-name" in declared["sort"]["items"]["enum"]
            assert not {"tenant_id", "is_deleted", "deleted_at", "status__gt", "status__is_null"} & set(declared)
        body = document["paths"]["/users"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert body == {"$ref": "#/components/schemas/UserPage"}
        assert document["components"]["schemas"]["UserPage"]["required"] == ["items", "has_next", "has_prev"]


class Named(BaseModel):
    name: str


class TestPagesOfOnesOwn:
    def test_an_endpoint_returns_a_page_and_declares_its_items(self, app: FastAPI, api: Api, rows: Any) -> None:
        @app.get("/own")
        async def own(
            page: PageQuery, users: AsyncTenantRepository[User] = Depends(get_repository(User))
        ) -> PaginationResult[Named]:
            found: Any = await users.list_paginated({"pagination": page, "sorts": [SortField("name")]})
            return found

        @app.get("/own/seek", response_model=CursorPaginationResult[Named])
        async def seek(cursor: CursorQuery, users: AsyncTenantRepository[User] = Depends(get_repository(User))) -> Any:
            return await users.cursor_paginate({"cursor_pagination": cursor, "sorts": [SortField("name")]})

        answer = api.get("/own?page=2&per_page=2", tenant="a").json()
        assert answer == {
            "items": [{"name": "user 02"}, {"name": "user 03"}],
            "total": 45,
            "page": 2,
            "per_page": 2,
            "pages": 23,
            "has_next": True,
            "has_prev": True,
        }
        first = api.get("/own/seek?limit=2", tenant="a").json()
        assert first["items"] == [{"name": "user 00"}, {"name": "user 01"}]
        assert (first["has_next"], first["has_prev"], first["prev_cursor"]) == (True, False, None)
        second = api.get(f"/own/seek?limit=2&cursor={first['next_cursor']}", tenant="a").json()
        assert second["items"][0] == {"name": "user 02"}
        schema = api.get("/openapi.json").json()["paths"]["/own"]["get"]["responses"]["200"]["content"]
        assert schema["application/json"]["schema"]["$ref"].endswith("/PaginationResult_Named_")


class TestRendering:
    def test_json_is_what_response_model_makes(self, app: FastAPI, api: Api, rows: Any, database: Database) -> None:
        schema = read_schema_of(User)
        with database.sessions() as session:
            users = create_repository(session, User, "a").list({"sorts": [{"field": "name"}]})
            expected = TypeAdapter(
                list[schema]
            ).dump_json(  # type: ignore[valid-type]  # a class made at run time
                [schema.model_validate(user) for user in users[:20]]
            )
        assert api.get("/users", tenant="a").json()["items"] == json.loads(expected)

    def test_a_given_schema_computes(self, app: FastAPI, api: Api, rows: Any) -> None:
        class Shout(BaseModel):
            name: str

            @computed_field  # type: ignore[prop-decorator]  # pydantic's own way to write it
            @property
            def loud(self) -> str:
                return self.name.upper()

        app.include_router(crud_router(User, prefix="/shouts", read_schema=Shout))
        items = api.get("/shouts?per_page=1&sort=name", tenant="a").json()["items"]
        assert items == [{"name": "user 00", "loud": "USER 00"}]

    def test_a_schema_may_read_relationships(self, app: FastAPI, api: Api, database: Database) -> None:
        class Title(BaseModel):
            title: str

        class Author(BaseModel):
            name: str
            posts: list[Title]

        app.include_router(crud_router(User, prefix="/authors", read_schema=Author))
        app.include_router(crud_router(Post, prefix="/posts"))
        made = api.post("/authors", tenant="a", json={"name": "Ann"})
        assert made.json() == {"name": "Ann", "posts": []}
        key = made.headers["location"].rpartition("/")[2]
        api.post("/posts", tenant="a", json={"title": "one", "author_id": key})
        told = {"name": "Ann", "posts": [{"title": "one"}]}
        assert api.get(f"/authors/{key}", tenant="a").json() == told
        assert api.get("/authors?limit=5", tenant="a").json()["items"] == [told]
        assert api.patch(f"/authors/{key}", tenant="a", json={"score": 1}).json() == told

    def test_a_class_without_a_tenant(self, app: FastAPI, api: Api) -> None:
        app.include_router(crud_router(Country, prefix="/countries"))
        assert api.post("/countries", json={"code": "IS", "name": "Iceland"}).headers["location"] == "/countries/IS"
        assert api.get("/countries").json()["items"] == [{"code": "IS", "name": "Iceland"}]
        assert api.delete("/countries/IS").status_code == 204


class Secret(Library):
    """What is loaded of it is changed by a listener, as by one that decrypts."""

    __tablename__ = "secrets"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


@event.listens_for(Secret, "load")
def _unlock(secret: Secret, _context: Any) -> None:
    set_committed_value(secret, "text", secret.text[::-1])


class Shouting(AsyncRepository[Book]):
    async def list_paginated(self, options: Any = None) -> PaginationResult[Book]:
        page = await super().list_paginated(options)
        for book in page.items:
            set_committed_value(book, "page", -book.page)
        return page


@pytest.fixture
def library(database: Database) -> Iterator[None]:
    Library.metadata.create_all(database.engine)
    with database.sessions() as session:
        create_repository(session, Book).bulk_create([{"id": n, "page": n} for n in (1, 2)])
        create_repository(session, Secret).create({"id": 1, "text": "terces"})
    yield
    Library.metadata.drop_all(database.engine)


@pytest.mark.usefixtures("library")
class TestRowsAsColumns:
    """Lists read no objects, unless somebody wants them."""

    def test_a_listener_to_loads_has_its_way(self, app: FastAPI, api: Api) -> None:
        app.include_router(list_router(Secret, prefix="/secrets"))
        for query in ("", "?limit=5"):
            assert api.get(f"/secrets{query}").json()["items"] == [{"id": 1, "text": "secret"}]

    def test_an_overridden_method_gets_objects(self, app: FastAPI, api: Api) -> None:
        app.include_router(list_router(Book, prefix="/books", repository=Shouting))
        assert [book["page"] for book in api.get("/books").json()["items"]] == [-1, -2]

    @pytest.mark.fast_way("columns")
    def test_otherwise_no_object_is_made(self, app: FastAPI, api: Api) -> None:
        made: list[Any] = []

        app.include_router(list_router(Book, prefix="/books"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Book.__mapper__.class_manager, "new_instance", made.append)
            assert [book["page"] for book in api.get("/books").json()["items"]] == [1, 2]
            assert [book["page"] for book in api.get("/books?limit=5").json()["items"]] == [1, 2]
        assert not made


class TestKindsOfOrder:
    def test_relevance_and_case(self, app: FastAPI, api: Api, database: Database) -> None:
        app.include_router(list_router(Post, prefix="/posts", search=("title",)))
        with database.sessions() as session:
            titles = ["tea", "Tea and tea and more of it all", "coffee", "apple", "Bread"]
            create_repository(session, Post, "a").bulk_create([{"id": n, "title": t} for n, t in enumerate(titles)])
        answer = api.get("/posts?q=tea&sort=-relevance&limit=1", tenant="a")
        pages = [answer, api.get(answer.links["next"]["url"], tenant="a")]
        assert {page.json()["items"][0]["id"] for page in pages} == {0, 1}
        assert pages[1].json()["next_cursor"] is None
        assert [each["id"] for each in api.get("/posts?sort=title__folded", tenant="a").json()["items"]] == [
            3,
            4,
            2,
            0,
            1,
        ]
        assert [each["id"] for each in api.get("/posts?sort=-title__folded", tenant="a").json()["items"]][:2] == [1, 0]

    @pytest.mark.parametrize("query", ["sort=relevance", "q=%20&sort=-relevance", "sort=words__folded"])
    def test_what_has_no_such_order_is_refused(self, app: FastAPI, api: Api, query: str) -> None:
        app.include_router(list_router(Post, prefix="/posts", search=("title",)))
        answer = api.get(f"/posts?{query}", tenant="a")
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"][-1] == "sort"

    def test_a_list_without_a_search_knows_no_relevance(self, app: FastAPI, api: Api) -> None:
        app.include_router(list_router(Post, prefix="/posts"))
        assert api.get("/posts?sort=relevance", tenant="a").status_code == 422


class Ticket(Library):
    __tablename__ = "library_tickets"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    other: Mapped[UUID | None]
    strict: Mapped[UUID]


@pytest.mark.parametrize("kind", ["uuid", "asyncpg"])
def test_a_uuid_is_written_as_pydantic_writes_it(kind: str) -> None:
    asyncpg = pytest.importorskip("asyncpg.pgproto.pgproto")
    make = UUID if kind == "uuid" else asyncpg.UUID
    renderer = Renderer(Ticket)
    values = {"id": make(str(UUID(int=1))), "other": None, "strict": make(str(UUID(int=2**128 - 1)))}
    expected = read_schema_of(Ticket)(**values).model_dump_json().encode()
    assert renderer.one(Ticket(**values)) == expected
    page = renderer.page(PaginationResult([values], 1, 1, 20))
    assert page.startswith(b'{"items":[' + expected + b"]")
    # Other values are validated, as without the conversion: a text that is a UUID is read, and another is refused.
    assert renderer.one(Ticket(**{**values, "id": f"{{{UUID(int=1)}}}"})) == expected
    with pytest.raises(ValueError, match="strict"):
        renderer.one(Ticket(**{**values, "strict": "none"}))
