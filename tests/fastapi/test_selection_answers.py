"""What selections do to the rest of a response: tags and conditions, the responses of writes, and the document."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI

from dotmac_database import Database
from tests.conftest import counted
from tests.fastapi.conftest import Api, inlined
from tests.fastapi.shared_routers import crud_router, list_router

from .selected_models import Author, Base, ComputedOut, Post, PostOut, Tag, fill

SCHEMAS = [None, PostOut, ComputedOut]
FIELDS, INCLUDE = ("id", "title", "words"), ("author", "author.team", "tags")


@pytest.fixture(scope="module")
def tables() -> sa.MetaData:
    return Base.metadata


@pytest.fixture
def rows(database: Database) -> None:
    with database.engine.begin() as connection:
        fill(connection)


@pytest.fixture
def make(app: FastAPI, runner: asyncio.Runner, rows: None) -> Any:
    def made(schema: Any = None, **options: Any) -> Api:
        options = {"fields": FIELDS, "include": INCLUDE, "list_etag": True, **options}
        app.include_router(crud_router(Post, "/posts", read_schema=schema, **options))
        return Api(app, runner)

    return made


QUERIES = ("", "limit=3", "fields=id", "include=author.team", "fields=id&include=tags")
REQUESTS = [(method, query) for method in ("GET", "HEAD") for query in QUERIES]


class TestConditions:
    @pytest.mark.parametrize("schema", SCHEMAS)
    def test_an_item(self, make: Any, schema: Any) -> None:
        """The version is that of the row: it says nothing about related rows."""
        api = make(schema)
        for method, query in REQUESTS:
            if "limit" in query:
                continue
            answer = api.request(method, f"/posts/1?{query}", tenant="a", headers={"If-None-Match": '"1"'})
            # With an alias, the whole row may contain anything; and ComputedOut contains an editor.
            unknown = schema is ComputedOut or (schema is PostOut and query == "")
            assert answer.status_code == (200 if "include" in query or unknown else 304)
            assert answer.headers["etag"] == '"1"'

    def test_a_version_that_is_not_shown(self, make: Any) -> None:
        api = make(PostOut, include=())
        assert api.get("/posts/1?fields=id", tenant="a", headers={"If-None-Match": '"1"'}).status_code == 304
        assert api.get("/posts/1?fields=id", tenant="a", headers={"If-None-Match": '"2"'}).json() == {"id": 1}

    @pytest.mark.parametrize("schema", SCHEMAS)
    def test_a_list(self, make: Any, schema: Any) -> None:
        api = make(schema)
        for method, query in REQUESTS:
            first = api.request(method, f"/posts?{query}", tenant="a")
            tag = first.headers["etag"]
            assert (first.status_code, tag[:3], "link" in first.headers) == (200, 'W/"', True)
            for asked in (tag, tag.removeprefix("W/"), f'"x", {tag}', "*"):
                again = api.request(method, f"/posts?{query}", tenant="a", headers={"If-None-Match": asked})
                assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
            for asked in ('"x"', "W/x", tag[:-2] + '"'):
                again = api.request(method, f"/posts?{query}", tenant="a", headers={"If-None-Match": asked})
                assert again.status_code == 200
            # Tenant b has other rows.
            assert api.get(f"/posts?{query}", tenant="b", headers={"If-None-Match": tag}).status_code == 200

    @pytest.mark.parametrize("schema", SCHEMAS)
    def test_a_list_that_has_changed(self, make: Any, schema: Any, database: Database) -> None:
        api = make(schema)
        queries = ("", "fields=id", "include=author", "fields=id&include=author")
        tags = {query: api.get(f"/posts?{query}", tenant="a").headers["etag"] for query in queries}
        assert len(set(tags.values())) == len(queries)
        with database.engine.begin() as connection:
            connection.execute(sa.update(Author.__table__).where(Author.id == 1).values(name="new", motto="new"))  # type: ignore[arg-type]
        for query, tag in tags.items():
            answer = api.get(f"/posts?{query}", tenant="a", headers={"If-None-Match": tag})
            changed = "author" in query or (schema is ComputedOut and query == "")
            assert answer.status_code == (200 if changed else 304)

    def test_equal_rows_of_two_tenants(self, app: FastAPI, api: Api, database: Database) -> None:
        """A tag proves nothing: the response is a 304 only if the tenant's own page has it."""
        app.include_router(list_router(Tag, "/tags", fields=["name"], list_etag=True))
        with database.engine.begin() as connection:
            fill(connection)
        tags = [api.get("/tags?fields=name", tenant=tenant).headers["etag"] for tenant in "ab"]
        assert tags[0] == tags[1]
        with database.engine.begin() as connection:
            connection.execute(sa.update(Tag.__table__).where(Tag.id == 101).values(name="new"))  # type: ignore[arg-type]
        for tenant, status in (("a", 304), ("b", 200)):
            answer = api.get("/tags?fields=name", tenant=tenant, headers={"If-None-Match": tags[0]})
            assert answer.status_code == status

    def test_no_tag_unless_the_router_says_so(self, make: Any) -> None:
        answer = make(list_etag=False).get("/posts", tenant="a", headers={"If-None-Match": "*"})
        assert (answer.status_code, "etag" in answer.headers) == (200, False)


class TestWrites:
    @pytest.mark.parametrize("schema", SCHEMAS)
    def test_they_answer_without_the_allowed_relationships(self, make: Any, schema: Any, plugin: Any) -> None:
        api = make(schema)
        name = "title" if schema is None else "heading"
        with counted(plugin.database.async_engine.sync_engine) as sent:
            made = api.post("/posts?include=author", tenant="a", json={"title": "new", "author_id": 1})
        assert (made.status_code, made.json()[name]) == (201, "new"), made.text
        assert not [each for each in sent if "team" in each.partition("FROM")[2]]
        path = made.headers["location"]
        changed = api.patch(path, tenant="a", json={"words": 3})
        assert api.delete(path, tenant="a").status_code == 204
        restored = api.post(f"{path}/restore", tenant="a")
        plain = api.get(path, tenant="a")
        assert (changed.status_code, restored.status_code, plain.status_code) == (200, 200, 200)
        for answer in (made, changed, restored, plain):
            assert not answer.json().keys() & {"author", "writtenBy", "tags", "writer"}
            assert ("editor" in answer.json()) == (schema is ComputedOut)


def schemas_of(app: FastAPI) -> dict[str, Any]:
    found: dict[str, Any] = app.openapi()["components"]["schemas"]
    return found


def rows_of(document: Any, path: str, method: str = "get", status: str = "200") -> Any:
    content = document["paths"][path][method]["responses"][status]["content"]["application/json"]["schema"]
    name = content["$ref"].rpartition("/")[2]
    items = document["components"]["schemas"][name]["properties"].get("items")
    return name if items is None else items["items"]["$ref"].rpartition("/")[2]


def documented(schema: Any = None, **options: Any) -> FastAPI:
    """An app whose document describes the routes; it has no database."""
    app = FastAPI()
    options = {"fields": FIELDS, "include": INCLUDE, **options}
    app.include_router(crud_router(Post, "/posts", read_schema=schema, **options))
    return app


class TestDocument:
    @pytest.mark.parametrize("path", ["/posts", "/posts/{id}"])
    def test_the_parameters(self, path: str) -> None:
        operation = inlined(documented().openapi())["paths"][path]["get"]
        parameters = {each["name"]: each for each in operation["parameters"]}
        for name, allowed in (("fields", FIELDS), ("include", INCLUDE)):
            assert parameters[name]["schema"] == {"type": "array", "items": {"type": "string", "enum": [*allowed]}}
            assert (parameters[name]["style"], parameters[name]["explode"]) == ("form", False)
            assert parameters[name]["in"] == "query"
            assert not parameters[name]["required"]

    @pytest.mark.parametrize("schema", SCHEMAS)
    @pytest.mark.parametrize("path", ["/posts", "/posts/{id}"])
    def test_what_may_be_absent_is_not_required(self, path: str, schema: Any) -> None:
        document = documented(schema).openapi()
        schemas = document["components"]["schemas"]
        assert rows_of(document, path) == "PostSelection"
        row = schemas["PostSelection"]
        key = "author" if schema is None else "writtenBy"
        assert "required" not in row
        assert {key, "tags", "title" if schema is None else "heading"} <= row["properties"].keys()
        author = schemas["AuthorSelection"]
        assert [each["$ref"] for each in row["properties"][key]["anyOf"] if "$ref" in each] == [
            "#/components/schemas/AuthorSelection"
        ]
        assert "team" in author["properties"]
        assert set(author["required"]) == set(author["properties"]) - {"team"}
        if schema is not None:
            assert row["properties"]["heading"]["description"] == "What the post is about."

    @pytest.mark.parametrize("schema", [None, PostOut])
    def test_without_fields_only_the_relationships_may_be_absent(self, schema: Any) -> None:
        schemas = schemas_of(documented(schema, fields=()))
        row = schemas["PostSelection"]
        assert set(row["properties"]) - set(row["required"]) == {"author" if schema is None else "writtenBy", "tags"}

    @pytest.mark.parametrize("schema", [None, PostOut])
    def test_writes_have_a_schema_of_their_own(self, schema: Any) -> None:
        document = documented(schema).openapi()
        name = "PostRead" if schema is None else "PostOutRow"
        assert rows_of(document, "/posts", "post", "201") == rows_of(document, "/posts/{id}", "patch") == name
        row = document["components"]["schemas"][name]
        assert set(row["required"]) == set(row["properties"])
        assert not row["properties"].keys() & {"author", "writtenBy", "tags"}

    def test_the_number_of_components_does_not_depend_on_the_number_of_combinations(self) -> None:
        app = documented()
        made = {name for name in schemas_of(app) if "Post" in name or "Author" in name or "T" in name[:1]}
        assert made == {
            "PostCreate", "PostUpdate", "PostRead", "PostSelection", "AuthorSelection", "TagRead", "TeamRead",
            "PostSelectionPage", "PostFieldsValue", "PostIncludeValue",
        }  # fmt: skip

    @pytest.mark.parametrize("list_etag", [False, True])
    def test_the_tag_of_a_list(self, list_etag: bool) -> None:
        operation = inlined(documented(list_etag=list_etag).openapi())["paths"]["/posts"]["get"]
        assert ("304" in operation["responses"]) is list_etag
        assert ("ETag" in operation["responses"]["200"]["headers"]) is list_etag
        assert ("If-None-Match" in {each["name"] for each in operation["parameters"]}) is list_etag

    def test_two_routers_of_one_class(self) -> None:
        app = FastAPI()
        app.include_router(list_router(Post, "/ids", fields=["id"]))
        app.include_router(list_router(Post, "/authors", include=["author"]))
        document = app.openapi()
        names = rows_of(document, "/ids"), rows_of(document, "/authors")
        assert len({*names}) == 2
        assert all("PostSelection" in name for name in names)
        assert "author" in document["components"]["schemas"][names[1]]["properties"]

    def test_nothing_changes_without_the_options(self) -> None:
        app = FastAPI()
        app.include_router(crud_router(Post, "/posts"))
        assert "Selection" not in json.dumps(app.openapi())


def test_the_example_of_the_docs(app: FastAPI, api: Api, rows: None) -> None:
    text = (Path(__file__).parent.parent.parent / "docs" / "fastapi.md").read_text()
    section = text.partition("### Fields and related rows")[2].partition("\n### ")[0]
    (block,) = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    exec(block, {"app": app, "crud_router": crud_router, "Post": Post})
    keys = {}
    for path in re.findall(r"^\| `GET (\S+)`", section, re.MULTILINE):
        answer = api.get(path, tenant="a")
        assert answer.status_code == 200, answer.text
        keys[path] = (answer.json()["items"][0] if "items" in answer.json() else answer.json()).keys()
    assert len(keys) == 4
    assert keys["/posts?fields=id,title"] == {"id", "title"}
    assert keys["/posts?include=author,tags"] - keys["/posts"] == {"author", "tags"}
    assert keys["/posts/1?include=author.team"] - keys["/posts"] == {"author"}
