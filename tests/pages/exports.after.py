import httpx


async def visit() -> None:
    async with plugin.session("acme") as session:
        repository = create_async_repository(session, Reading, "acme")
        await repository.bulk_create([{"sensor": f"s{n}", "value": n} for n in range(5)])
    assert await export("acme", "readings.csv") == 5
    assert await load("globex", "readings.csv") == 5
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        headers = {"X-Tenant-ID": "globex", "Accept": "text/csv"}
        lines = (await client.get("/readings?value__gte=3&sort=-value", headers=headers)).text.split("\r\n")
        assert lines[1:-1] == ["10,s4,4.0", "9,s3,3.0"], lines
        headers["Accept"] = "application/x-ndjson"
        assert (await client.get("/readings", headers=headers)).text.count("\n") == 5
    await plugin.database.dispose_async()


asyncio.run(visit())
plugin.database.dispose()
