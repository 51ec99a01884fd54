import asyncio

import httpx

from dotmac_database import check_tenant_keys, create_async_repository, create_database

assert check_tenant_keys(SQLModel.metadata) == []


async def use() -> None:
    async with app.router.lifespan_context(app):  # as a server does: nothing is made ready before it
        await requests()
    database = create_database("sqlite:///books.db")
    assert authors_of(database, "acme") == 2
    database.dispose()


async def requests() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        client.headers["X-Tenant-ID"] = "acme"
        ann = UUID((await client.post("/join?name=Ann&email=ann@example.com")).json())
        assert "password_hash" not in (await client.get(f"/authors/{ann}")).json()
        async with plugin.session("acme") as session:
            authors, books = (create_async_repository(session, each, "acme") for each in (Author, Book))
            assert await add(books, ann, ["Waves", "Sand"]) == 2
            await write_both(authors, books)
            assert [author.name for author in await find(authors, "tid")] == ["Cid"]
            assert sorted(await titles(authors, ann)) == ["Sand", "Waves"]
            assert await sign_up(authors, "ann@example.com") is None
            assert await long_titles(books) == []
            assert await export(books) == ["Sand", "Tides", "Waves"]
        assert (await client.post(f"/authors/{ann}/reminder")).status_code == 202
        assert (await client.get(f"/authors/{ann}")).json()["name"] == "Reminded"
        assert (await client.post("/books/1/print")).status_code == 200
        assert (await client.post("/books/99/print")).status_code == 404
        assert (await client.get("/books?include=author&sort=title")).json()["items"][0]["author"]["name"] == "Reminded"
        dan = {"name": "Dan", "email": "dan@example.com"}
        first = await client.post("/authors", json=dan)
        assert (await client.post("/authors", json=dan)).status_code == 409
        assert (await client.delete(first.headers["Location"])).status_code == 204
        again = await client.post("/authors", json=dan)
        assert again.status_code == 201, again.text
        assert (await client.delete(again.headers["Location"])).status_code == 204
    async with plugin.session("globex") as session:
        assert await create_async_repository(session, Book, "globex").count() == 0


asyncio.run(use())
