import asyncio

import httpx


async def visit() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        client.headers["X-Tenant-ID"] = "acme"
        for title, watts in {"Desk lamp": 40, "Floor lamp": 60, "Candle": 1}.items():
            assert (await client.post("/admin/lamps", json={"title": title, "watts": watts})).status_code == 201
        listed = await client.get('/admin/lamps?range=[0,24]&sort=["title","ASC"]&filter={"watts__gte":40}')
        assert [row["id"] for row in listed.json()] == [1, 2]
        assert listed.headers["Content-Range"] == "lamps 0-1/2"
        assert [row["id"] for row in (await client.get('/admin/lamps?filter={"q":"desk"}')).json()] == [1]
        assert [row["id"] for row in (await client.get('/admin/lamps?filter={"id":[1,2]}')).json()] == [1, 2]
        changed = await client.put("/admin/lamps/1", json={"id": 1, "title": "Lamp", "watts": 40})
        assert changed.json()["title"] == "Lamp", changed.text
        seen = await client.get("/admin/lamps", headers={"Origin": "http://localhost:5173"})
        assert seen.headers["Access-Control-Expose-Headers"] == "Content-Range"
    await plugin.database.dispose_async()


asyncio.run(visit())
plugin.database.dispose()
