"""The picture of the example in the README: ``python -m tests.example.screenshot docs/images/example.webp``."""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path

from dotmac_database import create_database
from example_app.app import create_app
from example_app.loading import load
from example_app.people import inspection_rows
from example_app.settings import Settings
from tests.example.test_page import Page, started_browser
from tests.fastapi.conftest import serving

SIZE = (1280, 800)
QUERY = "?country=NZ&sort=-elevation_ft"


def picture_of(page: Page) -> bytes:
    """The example's page with an airport open, as a WebP of 1280 by 800 pixels."""
    page.open(QUERY, SIZE)
    inspected = {row["airport_icao"] for row in inspection_rows()}
    page.pick(next(at for at, icao in enumerate(page.rows) if icao in inspected))
    page.run("document.activeElement.blur()")
    page.until(lambda: page.run("return document.getAnimations().every((each) => each.playState !== 'running')"))
    shown = page.browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "webp", "quality": 82})
    return base64.b64decode(shown["data"])


def main(path: Path) -> None:
    """Load the data, serve the example, and save the picture."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/airports.db"
        database = create_database(url)
        load(database)
        database.dispose()
        browser = started_browser(f"{folder}/profile")
        try:
            with serving(create_app(Settings(database_url=url))) as address:
                path.write_bytes(picture_of(Page(browser, f"{address}/")))
        finally:
            browser.quit()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
