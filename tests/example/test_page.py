"""The example's page in a real browser: scrolled, filtered, moved to another country, and used by two at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import airportsdata
import httpx
import pytest

from example_app.app import create_app
from example_app.people import inspection_rows
from example_app.settings import Settings
from tests.fastapi.conftest import serving

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.chrome.options import Options  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium or no chromedriver is installed (Debian: chromium chromium-driver)"
)

REAL = airportsdata.load("ICAO")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
WIDE, PHONE = (1280, 800), (360, 800)


def real(country: str) -> set[str]:
    return {icao for icao, each in REAL.items() if each["country"] == country}


@cache
def untouched() -> list[str]:
    """Airports of Iceland that have no inspections to begin with."""
    return sorted(real("IS") - {row["airport_icao"] for row in inspection_rows()})


class Page:
    """The page, as one who looks at it and uses it."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser = browser
        self.url = url

    def open(self, query: str = "?country=IS", size: tuple[int, int] = WIDE) -> Page:
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size is PHONE}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.browser.get(self.url + query)
        self.until(lambda: self.rows and self.count and self.text("#health-text") == "healthy")
        return self

    def until(self, true: Callable[[], Any]) -> Any:
        waiting = WebDriverWait(self.browser, 15, 0.05, ignored_exceptions=[StaleElementReferenceException])
        return waiting.until(lambda _: true())

    def one(self, selector: str) -> Any:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return str(self.one(selector).text)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    @property
    def rows(self) -> list[str]:
        """The codes of the airports in the list, in its order."""
        return list(self.run("return [...document.querySelectorAll('#airports .row')].map((row) => row.dataset.icao)"))

    @property
    def count(self) -> str:
        return self.text("#count")

    def scroll_to_the_end(self) -> None:
        self.run(
            "const own = document.querySelector('#scroller');"
            "own.scrollTop = own.scrollHeight; scrollTo(0, document.documentElement.scrollHeight);"
        )

    def scroll_through(self, total: int) -> None:
        """Scroll until the list says that this is all."""

        def further() -> bool:
            self.scroll_to_the_end()
            return "That is all" in self.text("#more")

        self.until(further)
        assert len(self.rows) == total

    def choose(self, selector: str, value: str) -> None:
        Select(self.one(selector)).select_by_value(value)

    def type(self, selector: str, text: str) -> None:
        field = self.one(selector)
        field.clear()
        field.send_keys(text)

    def painted(self) -> int:
        """How many pixels of the map have the colour of an airport."""
        return int(
            self.run(
                "const map = document.querySelector('#map');"
                "const {data} = map.getContext('2d').getImageData(0, 0, map.width, map.height);"
                "let dots = 0;"
                "for (let at = 0; at < data.length; at += 4)"
                "  if (data[at + 3] > 100 && data[at] < 60 && data[at + 1] > 90) dots += 1;"
                "return dots;"
            )
        )

    def complaints(self, *expected: str) -> list[str]:
        """What the browser's console says is wrong, but for what is expected."""
        said = [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]
        return [each for each in said if not any(part in each for part in expected)]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = Options()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--lang=en"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def url(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    copy = tmp_path_factory.mktemp("page") / "airports.db"
    shutil.copy(sqlite_template, copy)
    with serving(create_app(Settings(database_url=f"sqlite:///{copy}"))) as address:
        yield f"{address}/"


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Page]:
    shown = Page(browser, url)
    yield shown
    assert shown.complaints("412") == []


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
class TestTheList:
    def test_scrolling_shows_every_airport_of_the_country_once(self, page: Page, size: tuple[int, int]) -> None:
        page.open("?country=GB", size)
        assert page.count == f"{len(real('GB'))} airports"
        assert len(page.rows) < len(real("GB")), "pages, not everything at once"
        page.scroll_through(len(real("GB")))
        assert set(page.rows) == real("GB")
        names = page.run("return [...document.querySelectorAll('#airports .name')].map((name) => name.textContent)")
        assert names == sorted(names)

    def test_another_country_shows_its_airports_and_no_other(self, page: Page, size: tuple[int, int]) -> None:
        page.open("?country=IS", size)
        assert set(page.rows) <= real("IS")
        page.choose("#country", "DK")
        page.until(lambda: page.count == f"{len(real('DK'))} airports")
        page.until(lambda: set(page.rows) <= real("DK"))
        page.scroll_through(len(real("DK")))
        assert set(page.rows) == real("DK")
        assert "country=DK" in page.browser.current_url
        assert page.browser.title == "Airports of Denmark"

    def test_nothing_is_wider_than_the_window(self, page: Page, size: tuple[int, int]) -> None:
        page.open("?country=IS&airport=BIRK", size)
        page.until(lambda: page.text("#detail-name"))
        assert page.run("return document.documentElement.scrollWidth") <= size[0]
        assert page.run("return document.querySelector('#detail').scrollWidth") <= size[0]


class TestAsking:
    def test_words_find_names_without_accents_and_in_any_order(self, page: Page) -> None:
        page.open()
        page.type("#words", "Mývatn")
        page.until(lambda: page.rows == ["BIRL"])
        assert page.count == f"1 of {len(real('IS'))} airports"
        page.type("#words", "int reyk")
        page.until(lambda: page.rows == ["BIKF"])
        page.type("#words", "100% _nothing_")
        page.until(lambda: page.text("#more") == "No airport matches.")
        assert page.rows == []

    def test_filters_and_orders_go_together(self, page: Page) -> None:
        page.open()
        page.choose("#sort", "-elevation_ft")
        page.choose("#region", "Northeast")
        northeast = [icao for icao in real("IS") if REAL[icao]["subd"] == "Northeast"]
        page.until(lambda: page.count.startswith(f"{len(northeast)} of "))
        highest = max(northeast, key=lambda icao: REAL[icao]["elevation"])
        page.until(lambda: page.rows[:1] == [highest] and set(page.rows) == set(northeast))
        page.one("#iata").click()
        known = {icao for icao in northeast if REAL[icao]["iata"]}
        page.until(lambda: set(page.rows) == known)
        page.type("#above", "1000")
        page.until(lambda: set(page.rows) == {icao for icao in known if REAL[icao]["elevation"] >= 999.5})

    def test_the_address_brings_the_same_view_back(self, page: Page) -> None:
        page.open()
        page.choose("#sort", "-latitude")
        page.type("#words", "airport")
        page.one("#open").click()
        page.until(lambda: "open=1" in page.browser.current_url and " of " in page.count)
        page.until(lambda: "busy" not in page.one(".listed").get_attribute("class"))
        rows, count = page.rows, page.count
        page.browser.refresh()
        page.until(lambda: page.count == count)
        assert page.rows == rows
        assert len(rows) < len(real("IS"))

    def test_the_map_shows_what_the_list_shows(self, page: Page) -> None:
        page.open()
        before = page.until(page.painted)
        page.one("#iata").click()
        page.until(lambda: " of " in page.count)
        page.until(lambda: 0 < page.painted() < before / 2)

    def test_the_keyboard_walks_the_list(self, page: Page) -> None:
        page.open()
        second = page.rows[1]
        page.run("document.querySelector('#airports .row').focus()")
        page.browser.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
        page.browser.switch_to.active_element.send_keys(Keys.ENTER)
        page.until(lambda: page.text(".codes").startswith(second))
        page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
        page.until(lambda: page.browser.switch_to.active_element.get_attribute("data-icao") == second)


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
class TestInspections:
    def test_one_is_planned_closed_deleted_and_brought_back(self, page: Page, size: tuple[int, int]) -> None:
        icao = untouched()[0 if size is PHONE else 1]
        page.open(f"?country=IS&airport={icao}", size)
        page.until(lambda: page.text("#detail-name"))
        page.one(".adding summary").click()
        page.until(lambda: page.one(".adding [name=note]").is_displayed())
        page.type(".adding [name=note]", "Look at the lights")
        page.one(".adding button").click()
        page.until(lambda: "Look at the lights" in page.text(".inspections"))
        assert page.text(".inspections .badge") == "open"
        page.one(".inspections .turn").click()
        page.until(lambda: page.text(".inspections .badge") == "closed")
        assert "Version 2" in page.text(".inspections li")
        page.one(".inspections .quiet").click()
        page.until(lambda: "None yet." in page.text(".inspections"))
        page.one(".message button").click()
        page.until(lambda: "Look at the lights" in page.text(".inspections"))

    def test_a_change_from_a_stale_view_is_told_and_not_made(self, page: Page, url: str, size: tuple[int, int]) -> None:
        icao = untouched()[2 if size is PHONE else 3]
        headers = {"X-Tenant-ID": "IS", "X-User": "somebody.else@is.example"}
        with httpx.Client(base_url=url, headers=headers, timeout=30) as other:
            inspector = other.get("/api/users?limit=1&role=inspector").json()["items"][0]["id"]
            data = {"airport_icao": icao, "inspector_id": inspector, "topic": "runway", "due_on": "2027-01-01"}
            path = other.post("/api/inspections", json=data).headers["location"]
            page.open(f"?country=IS&airport={icao}", size)
            page.until(lambda: "Version 1" in page.text(".inspections li"))
            assert other.patch(path, json={"note": "Changed meanwhile"}).status_code == 200
            page.one(".inspections .turn").click()
            page.until(lambda: page.text(".message").startswith("Not saved: somebody.else@is.example"))
            assert "Changed meanwhile" in page.text(".inspections li")
            assert other.get(path).json()["status"] == "open"
            page.one(".inspections .turn").click()
            page.until(lambda: page.text(".inspections .badge") == "closed")
            assert other.get(path).json()["version"] == 3


def test_the_databases_health_is_shown(page: Page) -> None:
    page.open()
    assert page.one("#health").get_attribute("data-status") == "healthy"
    page.one("#health").click()
    page.until(lambda: "SQLite 3" in page.text("#health-facts"))
    assert page.text("#health-message") == "The database answers."


def test_a_server_that_is_gone_is_told_and_the_page_recovers(page: Page) -> None:
    page.open("?country=GB")
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.browser.execute_cdp_cmd("Network.enable", {})
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    try:

        def told() -> bool:
            page.scroll_to_the_end()
            return "did not answer" in page.text("#more")

        page.until(told)
    finally:
        page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", {**offline, "offline": False})
    page.one("#more button").click()
    page.scroll_through(len(real("GB")))
    assert page.complaints("ERR_INTERNET_DISCONNECTED") == []


def test_every_field_and_button_has_a_name(page: Page) -> None:
    page.open("?country=IS&airport=BIRK")
    page.until(lambda: page.text("#detail-name"))
    nameless = page.run(
        "return [...document.querySelectorAll('input, select, button, canvas')].filter((each) => !("
        "  each.getAttribute('aria-label') || each.labels?.length || each.textContent.trim())"
        ").map((each) => each.outerHTML)"
    )
    assert nameless == []
