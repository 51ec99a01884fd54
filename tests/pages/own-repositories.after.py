import asyncio

import httpx


async def visit() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        client.headers["X-Tenant-ID"] = "acme"
        created = await client.post("/members", json={"name": "Ann", "email": "Ann@Acme.Example"})
        assert created.json()["email"] == "ann@acme.example", created.text
        hidden = {"name": "Bob", "email": "b@acme.example", "visible": False}
        assert (await client.post("/members", json=hidden)).status_code == 201
        assert (await client.get("/members")).json()["total"] == 1
        assert (await client.get("/initials")).json() == {"A": 1}
    async with plugin.session("acme") as session:
        assert (await MemberRepository(session, tenant_id="acme").by_email("ANN@acme.example")).name == "Ann"
    await plugin.database.dispose_async()


asyncio.run(visit())
plugin.database.dispose()
