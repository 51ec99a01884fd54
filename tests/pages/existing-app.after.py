import asyncio

import httpx

SQLModel.metadata.create_all(engine)


async def visit() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        client.headers["X-Org"] = "1"
        created = await client.post("/projects?name=Dam")
        assert (created.status_code, created.json()["org_id"]) == (201, 1), created.text
        assert (await client.get("/old/projects")).json() == [created.json()]
        assert (await client.get("/projects")).json()["items"] == [created.json()]
        listed = (await client.get("/v2/projects")).json()
        assert listed == {"data": [created.json()], "count": 1}, listed
        assert (await client.put("/v2/projects/1", json={"name": "Dyke"})).json()["name"] == "Dyke"
        assert (await client.get("/v2/projects", headers={"X-Org": "2"})).json()["count"] == 0
    await plugin.database.dispose_async()


asyncio.run(visit())
plugin.database.dispose()
engine.dispose()
