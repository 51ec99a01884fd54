import asyncio

import httpx


async def visit() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        client.headers["X-Tenant-ID"] = "acme"
        for customer, cents in {"Ann": 100, "Bob": 7_000, "Cid": 200_000}.items():
            created = await client.post("/invoices", json={"customer": customer, "cents": cents})
            assert created.status_code == 201, created.text
        page = (await client.get("/invoices?cents__gte=5000&sort=-cents&limit=20")).json()
        assert [row["customer"] for row in page["items"]] == ["Cid", "Bob"]
        assert (await client.get("/large")).json() == ["Cid"]
        place, etag = created.headers["Location"], created.headers["ETag"]
        assert (await client.patch(place, json={"cents": 1}, headers={"If-Match": etag})).status_code == 200
        assert (await client.patch(place, json={"cents": 2}, headers={"If-Match": etag})).status_code == 412
        lines = (await client.get("/invoices", headers={"Accept": "text/csv"})).text.splitlines()
        assert len(lines) == 4
        assert (await client.get(place, headers={"X-Tenant-ID": "globex"})).status_code == 404
    await plugin.database.dispose_async()


asyncio.run(visit())
plugin.database.dispose()
