"""The app of `docs/endpoints.md`: each request of its table, and twenty tenants who send all of them at once."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import Iterator
from random import Random
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import MetaData
from sqlmodel import Session, func, select

from dotmac_database import Database, idempotency_metadata
from dotmac_database_fastapi.registry import sources_of
from tests.conftest import counted
from tests.fastapi.conftest import Api
from tests.fastapi.endpoints_app import PAGE, load

page: Any = load()
TENANTS = [f"tenant-{number:02}" for number in range(20)]
REQUESTS = 1_000


@pytest.fixture(scope="module")
def tables() -> MetaData:
    metadata = MetaData()
    for table in (page.Author, page.Tag, page.Book, page.BookTag):
        table.__table__.to_metadata(metadata)
    for table in idempotency_metadata.tables.values():
        table.to_metadata(metadata)
    return metadata


@pytest.fixture
def app(database: Database) -> FastAPI:
    return page.app_of(database.url.render_as_string(hide_password=False))  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def pools(app: FastAPI, api: Api) -> Iterator[None]:
    """The app's lifespan, which closes its connections."""
    lifespan = app.router.lifespan_context(app)
    api.run(lifespan.__aenter__())
    yield
    api.run(lifespan.__aexit__(None, None, None))


class Reader:
    """A client of one tenant."""

    def __init__(self, app: FastAPI, tenant: str, user: str = "librarian") -> None:
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://test",
            headers={"X-Tenant-ID": tenant, "X-User": user},
        )

    async def __call__(self, method: str, path: str, status: int, **options: Any) -> httpx.Response:
        answer = await self.client.request(method, path, **options)
        assert answer.status_code == status, (method, path, answer.status_code, answer.text)
        return answer


async def shelf(reader: Reader, tenant: str) -> dict[str, Any]:
    """Some rows of a tenant, whose texts all begin with the tenant's name."""
    books = [{"title": f" {tenant} book {number} ", "pages": number} for number in range(3)]
    author = (await reader("POST", "/authors", 201, json={"name": f"{tenant} author", "books": books})).json()
    names = [{"name": f"{tenant} {word}"} for word in ("old", "new")]
    tags = (await reader("POST", "/tags/bulk", 201, json=names)).json()
    return {"author": author, "tags": tags}


def test_each_request_of_the_table(app: FastAPI, api: Api) -> None:
    api.run(each_request(app))


async def each_request(app: FastAPI) -> None:
    send = Reader(app, "a")
    rows = await shelf(send, "a")
    author, (old, new) = rows["author"], rows["tags"]
    assert [each["title"] for each in author["books"]] == [" a book 0 ", " a book 1 ", " a book 2 "]  # no hook of books
    book = (await send("POST", "/books", 201, json={"title": " a b ", "author_id": author["id"]})).json()
    assert (book["title"], book["created_by"]) == ("a b", "librarian")

    listed = (await send("GET", "/books?status=draft&sort=-pages&per_page=2&page=2", 200)).json()
    assert (listed["total"], [each["pages"] for each in listed["items"]]) == (4, [1, 0])
    following = (await send("GET", "/books?limit=3", 200)).json()["next_cursor"]
    assert len((await send("GET", f"/books?limit=3&cursor={following}", 200)).json()["items"]) == 1
    for each in (await send("GET", "/books?fields=id,title", 200)).json()["items"]:
        assert each.keys() == {"id", "title"}
    linked = f"/books/{book['id']}/tags/{new['id']}"
    await send("PUT", linked, 204)
    await send("PUT", linked, 204)
    [item] = (await send("GET", "/books?include=author,tags&q=b&title=a b", 200)).json()["items"]
    assert (item["author"]["name"], [each["name"] for each in item["tags"]]) == ("a author", ["a new"])
    await send("DELETE", linked, 204)
    await send("DELETE", linked, 204)
    facets = (await send("GET", "/books?facets=status&per_page=1", 200)).json()["facets"]
    assert facets == {"status": [{"value": "draft", "count": 4}]}
    assert (await send("GET", "/books?q=book", 200)).json()["total"] == 3

    whole = await send("GET", "/books?sort=title", 200, headers={"Accept": "text/csv"})
    assert [row["title"] for row in csv.DictReader(io.StringIO(whole.text))][-1] == "a b"
    some = await send("GET", "/books?fields=title,id", 200, headers={"Accept": "text/csv"})
    assert [line.count(",") for line in some.text.splitlines()] == [1] * 5
    assert some.text.startswith("id,title\r\n")  # the order of the allow-list
    refused = await send("GET", "/books?include=tags", 422, headers={"Accept": "text/csv"})
    assert refused.json()["errors"][0]["loc"] == ["query", "include"]
    lines = await send("GET", "/books?include=tags", 200, headers={"Accept": "application/x-ndjson"})
    assert [json.loads(line)["tags"] for line in lines.text.splitlines()] == [[]] * 4

    tag = (await send("GET", "/authors", 200)).headers["etag"]
    await send("GET", "/authors", 304, headers={"If-None-Match": tag})
    path = f"/books/{book['id']}"
    version = (await send("GET", path, 200)).headers["etag"]
    await send("GET", path, 304, headers={"If-None-Match": version})
    await send("PATCH", path, 200, json={"pages": 7}, headers={"If-Match": version})
    await send("PATCH", path, 412, json={"pages": 8}, headers={"If-Match": version})

    keyed = {"json": {"title": "once"}, "headers": {"Idempotency-Key": "k"}}
    first, again = await send("POST", "/books", 201, **keyed), await send("POST", "/books", 201, **keyed)
    assert first.json() == again.json()
    changes = [{"id": each["id"], "status": "printed"} for each in author["books"]]
    printed = (await send("PATCH", "/books/bulk", 200, json=changes)).json()
    assert [each["id"] for each in printed] == [each["id"] for each in author["books"]]
    wrong = [{"title": "right"}, {"title": "x" * 200}]
    problem = (await send("POST", "/books/bulk", 422, json=wrong)).json()
    assert problem["errors"][0]["loc"] == ["body", "1", "title"]
    assert (await send("GET", "/books?status=printed", 200)).json()["total"] == 3

    await Reader(app, "a", "reader")("DELETE", path, 403)
    await send("DELETE", path, 204)
    await send("GET", path, 404)
    await send("DELETE", f"/authors/{author['id']}", 409)
    await send("POST", f"{path}/restore", 200)

    ranged = 'range=[0,1]&sort=["title","ASC"]&filter={"status":"printed"}'
    answer = await send("GET", f"/admin/books?{ranged}", 200)
    assert (len(answer.json()), answer.headers["content-range"]) == (2, "books 0-1/3")
    assert "<html" in (await send("GET", "/health/db", 200, headers={"Accept": "text/html"})).text
    assert (await send("GET", f"/authors/{author['id']}?include=books", 200)).json()["books"][0]["status"] == "printed"
    assert (await send("GET", f"/tags/{old['id']}", 200)).json() == old
    assert (await Reader(app, "b")("GET", "/books", 200)).json()["total"] == 0


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("/books?include=author,tags&per_page=100", "application/json"),
        ("/books?include=author,tags", "application/x-ndjson"),
        ("/authors?include=books", "application/json"),
    ],
)
def test_related_rows_take_as_many_statements_for_a_thousand_rows_as_for_one(
    app: FastAPI, api: Api, path: str, accept: str
) -> None:
    [source] = sources_of(app).values()
    engine = source.database.async_engine.sync_engine

    async def statements(tenant: str, rows: int) -> int:
        send = Reader(app, tenant)
        books = [{"title": f"{tenant} {number}"} for number in range(rows)]
        await send("POST", "/authors", 201, json={"name": tenant, "books": books})
        with counted(engine) as sent:
            answer = await send("GET", path, 200, headers={"Accept": accept})
        assert answer.text.count('"author_id"') == (min(rows, 100) if "per_page" in path else rows)
        return len(sent)

    assert api.run(statements("one", 1)) == api.run(statements("many", 999))


def test_twenty_tenants_at_once_never_cross(app: FastAPI, api: Api, database: Database) -> None:
    # SQLite has one writer at a time, and each of the others waits for at most five seconds.
    api.run(interleaved(app, at_once=4 if database.engine.dialect.name == "sqlite" else 20))
    with Session(database.engine) as session:
        for model, text in ((page.Author, "name"), (page.Tag, "name"), (page.Book, "title")):
            for tenant, value in session.exec(select(model.tenant_id, getattr(model, text))):
                assert value.strip().startswith(tenant), (model, tenant, value)
        for link in session.exec(select(page.BookTag)):
            book, tag = session.get_one(page.Book, link.book_id), session.get_one(page.Tag, link.tag_id)
            assert link.tenant_id == book.tenant_id == tag.tenant_id
        assert session.exec(select(func.count()).select_from(page.Book)).one() > len(TENANTS) * 3


async def interleaved(app: FastAPI, at_once: int) -> None:
    """A thousand requests in a random order, which is the same in each run."""
    random = Random(15)
    readers = {tenant: Reader(app, tenant) for tenant in TENANTS}
    shelves = dict(zip(TENANTS, [await shelf(readers[each], each) for each in TENANTS], strict=True))
    kinds = list(KINDS)
    plan = [(random.choice(TENANTS), kinds[number % len(kinds)], random.choice(TENANTS)) for number in range(REQUESTS)]
    random.shuffle(plan)
    places = asyncio.Semaphore(at_once)

    async def one(number: int, tenant: str, kind: str, other: str) -> None:
        async with places:
            own, foreign = shelves[tenant], shelves[other]
            method, path, allowed, options = KINDS[kind](own, foreign, tenant, number)
            answer = await readers[tenant].client.request(method, path, **options)
            if tenant != other and kind.startswith("foreign"):
                assert answer.status_code in (404, 409), (kind, answer.status_code, answer.text)
            else:
                assert answer.status_code in allowed, (kind, answer.status_code, answer.text)
            crossed = set(re.findall(r"tenant-\d\d", answer.text)) - {tenant}
            assert not crossed, (kind, tenant, answer.text)

    await asyncio.gather(*(one(number, *each) for number, each in enumerate(plan)))


def _request(method: str, path: str, *allowed: int, **options: Any) -> Any:
    return method, path, allowed or (200,), options


KINDS: dict[str, Any] = {
    "list": lambda _o, _f, _t, _n: _request("GET", "/books?sort=-created_at"),
    "fields": lambda _o, _f, _t, _n: _request("GET", "/books?fields=title"),
    "include": lambda _o, _f, _t, _n: _request("GET", "/books?include=author,tags"),
    "cursor": lambda _o, _f, _t, _n: _request("GET", "/books?limit=2&sort=title"),
    "facets": lambda _o, _f, _t, _n: _request("GET", "/books?facets=status"),
    "csv": lambda _o, _f, _t, _n: _request("GET", "/books", headers={"Accept": "text/csv"}),
    "ndjson": lambda _o, _f, _t, _n: _request("GET", "/books?include=tags", headers={"Accept": "application/x-ndjson"}),
    "authors": lambda _o, _f, _t, _n: _request("GET", "/authors?include=books"),
    "item": lambda own, _f, _t, _n: _request("GET", f"/authors/{own['author']['id']}?include=books"),
    "admin": lambda _o, _f, _t, _n: _request("GET", '/admin/books?range=[0,5]&sort=["title","ASC"]'),
    "create": lambda own, _f, tenant, number: _request(
        "POST",
        "/books",
        201,
        json={"title": f"{tenant} new {number % 7}", "author_id": own["author"]["id"]},
        headers={"Idempotency-Key": f"key {number % 7}"},
    ),
    "bulk create": lambda _o, _f, tenant, number: _request(
        "POST", "/books/bulk", 201, json=[{"title": f"{tenant} bulk {number}"} for _ in range(3)]
    ),
    "bulk update": lambda own, _f, tenant, number: _request(
        "PATCH",
        "/books/bulk",
        json=[{"id": each["id"], "title": f"{tenant} changed {number}"} for each in own["author"]["books"]],
    ),
    "link": lambda own, _f, _t, number: _request(
        "PUT" if number % 3 else "DELETE",
        f"/books/{own['author']['books'][number % 3]['id']}/tags/{own['tags'][number % 2]['id']}",
        204,
    ),
    "foreign item": lambda _o, foreign, _t, _n: _request("GET", f"/authors/{foreign['author']['id']}"),
    "foreign author": lambda _o, foreign, tenant, number: _request(
        "POST", "/books", 201, json={"title": f"{tenant} of {number}", "author_id": foreign["author"]["id"]}
    ),
    "foreign tag": lambda own, foreign, _t, _n: _request(
        "PUT", f"/books/{own['author']['books'][0]['id']}/tags/{foreign['tags'][0]['id']}", 204
    ),
    "foreign book": lambda own, foreign, _t, _n: _request(
        "PUT", f"/books/{foreign['author']['books'][0]['id']}/tags/{own['tags'][0]['id']}", 204
    ),
    "foreign bulk": lambda own, foreign, tenant, number: _request(
        "PATCH",
        "/books/bulk",
        json=[
            {"id": own["author"]["books"][0]["id"], "title": f"{tenant} kept {number}"},
            {"id": foreign["author"]["books"][1]["id"], "title": f"{tenant} taken {number}"},
        ],
    ),
    "foreign admin": lambda _o, foreign, tenant, number: _request(
        "PUT",
        f"/admin/books/{foreign['author']['books'][2]['id']}",
        json={"title": f"{tenant} put {number}"},
    ),
}


def test_the_page_is_about_eighty_lines() -> None:
    [block] = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len([line for line in block.splitlines() if line.strip()]) <= 80
