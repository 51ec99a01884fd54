"""The app gives the answers that the page shows, to the requests that it shows."""

import asyncio
import json
import re
import shlex
import subprocess
from pathlib import Path

import httpx

from tests.pages import DOCS, blocks_of

SHOWN = re.findall(r"^\$ (curl [^\n]+)\n((?:[^$`\n][^\n]*\n)*)", (DOCS / "start.md").read_text(), re.MULTILINE)


async def sent(client: httpx.AsyncClient, line: str, key: str) -> str:
    """The response to a command line of curl, with as many of its options as the page uses. `$ID` is this key."""
    words = shlex.split(line.replace("'$ID'", key).replace("$ID", key))[1:]
    headers, method, url, body = {}, "GET", "", None
    while words:
        match words.pop(0):
            case "-s":
                continue
            case "-H":
                name, _, value = words.pop(0).partition(": ")
                headers[name] = value
            case "-X":
                method = words.pop(0)
            case "--json":
                method, body = "POST" if method == "GET" else method, words.pop(0)
                headers["Content-Type"] = "application/json"
            case other:
                url = other
    response = await client.request(method, url, headers=headers, content=body)
    return response.text.replace("\r\n", "\n").strip()


async def compare() -> None:
    assert len(SHOWN) == 14
    key = ""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        for line, shown in SHOWN:
            text = await sent(client, line, key)
            key = key or json.loads(text)["id"]  # that of the first response
            pattern = "[^\n]*?".join(re.escape(part) for part in shown.strip().split("…"))
            assert re.fullmatch(pattern, text), f"{line}\n{text}"
    await plugin.database.dispose_async()


asyncio.run(compare())
plugin.database.dispose()
test_customers_are_found_by_city()

Path("app.py").write_text(blocks_of(DOCS / "start.md")[0])
for command in re.findall(r"^dotmac-db (.+)$", (DOCS / "start.md").read_text(), re.MULTILINE):
    words = [sys.executable, "-m", "dotmac_database.cli", *shlex.split(command)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
