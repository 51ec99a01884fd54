import asyncio

import httpx


async def visit() -> None:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        acme, globex = ({"X-Tenant-ID": tenant} for tenant in ("acme", "globex"))
        created = await client.post("/invoices", json={"customer": "Ann", "cents": 9900}, headers=acme)
        assert created.status_code == 201, created.text
        listed = await client.get("/invoices?cents__gte=5000&sort=-cents", headers=acme)
        assert [each["customer"] for each in listed.json()["items"]] == ["Ann"]
        assert (await client.get(created.headers["Location"], headers=globex)).status_code == 404


asyncio.run(visit())
