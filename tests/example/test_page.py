"""The example's page in a real browser: scrolled, filtered, moved to another country, and used by two at once."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
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
        waiting = WebDriverWait(self.browser, 90, 0.05, ignored_exceptions=[StaleElementReferenceException])
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

    def pixels(self, colour: str) -> list[int]:
        """How many pixels of the map have exactly the colour of this variable, and where: left, right, top, bottom."""
        return list(
            self.run(
                "const map = document.querySelector('#map');"
                "const hex = getComputedStyle(document.documentElement).getPropertyValue('--' + arguments[0]).trim();"
                "const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));"
                "const {data} = map.getContext('2d').getImageData(0, 0, map.width, map.height);"
                "const found = [0, map.width, -1, map.height, -1];"
                "for (let at = 0; at < data.length; at += 4) {"
                "  if (data[at + 3] < 255 || data[at] !== r || data[at + 1] !== g || data[at + 2] !== b) continue;"
                "  const [x, y] = [(at / 4) % map.width, Math.floor(at / 4 / map.width)];"
                "  found[0] += 1;"
                "  found[1] = Math.min(found[1], x); found[2] = Math.max(found[2], x);"
                "  found[3] = Math.min(found[3], y); found[4] = Math.max(found[4], y);"
                "}"
                "return found;",
                colour,
            )
        )

    def box(self, selector: str) -> dict[str, float]:
        """Where an element is in the window."""
        return dict(self.run("return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()", selector))

    def drawing(self) -> str:
        """The map as it is painted."""
        return str(self.run("return document.querySelector('#map').toDataURL()"))

    def pick(self, at: int = 0) -> str:
        """Click a row, and wait for its airport."""
        icao = self.rows[at]
        self.run("document.querySelectorAll('#airports .row')[arguments[0]].click()", at)
        self.until(lambda: self.text(".codes").startswith(icao) and f"airport={icao}" in self.browser.current_url)
        return icao

    @property
    def is_open(self) -> bool:
        """Whether an airport is shown."""
        return bool(self.run("return document.querySelector('#detail').open"))

    def complaints(self, *expected: str) -> list[str]:
        """What the browser's console says is wrong, but for what is expected."""
        said = [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]
        return [each for each in said if not any(part in each for part in expected)]


def started_browser(profile: object) -> Any:
    options = Options()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}", "--lang=en"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(DRIVER))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    driver = started_browser(tmp_path_factory.mktemp("profile"))
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


def regions(*, iata: bool = False) -> list[tuple[str, int]]:
    """The regions of Iceland with their numbers of airports, most first."""
    known = [REAL[icao] for icao in real("IS") if REAL[icao]["subd"]]
    counts = Counter(each["subd"] for each in known if each["iata"] or not iata)
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))


class TestRegions:
    def offered(self, page: Page) -> list[str]:
        return [each.text for each in Select(page.one("#region")).options]

    def test_they_have_their_numbers_under_the_other_filters(self, page: Page) -> None:
        page.open()
        every = ["All", *(f"{name} ({count})" for name, count in regions())]
        page.until(lambda: self.offered(page) == every)
        page.choose("#region", regions()[1][0])
        page.until(lambda: page.count.startswith(f"{regions()[1][1]} of "))
        assert self.offered(page) == every, "another one can be chosen"
        page.one("#iata").click()
        fewer = ["All", *(f"{name} ({count})" for name, count in regions(iata=True))]
        page.until(lambda: self.offered(page) == fewer)
        assert page.one("#region").get_attribute("value") == regions()[1][0]

    def test_the_chosen_one_stays_if_nothing_in_it_matches(self, page: Page) -> None:
        page.open("?country=IS&region=Northeast")
        page.type("#words", "reykjavik")
        page.until(lambda: page.text("#more") == "No airport matches.")
        page.until(lambda: "Northeast (0)" in self.offered(page))
        assert page.one("#region").get_attribute("value") == "Northeast"
        page.choose("#region", "")
        page.until(lambda: page.rows and " of " in page.count)

    def test_another_country_has_its_own(self, page: Page) -> None:
        page.open("?country=IS&region=Northeast")
        page.until(lambda: len(self.offered(page)) > 1)
        page.choose("#country", "DK")
        page.until(lambda: page.count == f"{len(real('DK'))} airports")
        wanted = {REAL[icao]["subd"] for icao in real("DK")} - {""}
        page.until(lambda: {each.rpartition(" (")[0] for each in self.offered(page)[1:]} == wanted)
        assert page.one("#region").get_attribute("value") == ""


class TestTheFile:
    """The list as CSV."""

    @pytest.fixture
    def saved(self, browser: Any, tmp_path: Path) -> Callable[[str], Path | None]:
        """A function that gives the path of a file which the browser has saved; None if it has not, or not wholly."""
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})

        def find(name: str) -> Path | None:
            path = tmp_path / name
            return path if path.exists() and path.stat().st_size else None

        return find

    def rows(self, path: Path) -> list[dict[str, str]]:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    @pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
    def test_it_has_all_airports_and_not_only_those_in_the_list(
        self, page: Page, saved: Any, size: tuple[int, int]
    ) -> None:
        page.open("?country=GB", size)
        page.one("#download").click()
        path = page.until(lambda: saved("airports-GB.csv"))
        rows = self.rows(path)
        assert len(page.rows) < len(rows) == len(real("GB"))
        assert {row["icao"] for row in rows} == real("GB")
        page.until(lambda: page.text("#download-note") == f"airports-GB.csv, {path.stat().st_size / 1000:.1f} kB")
        assert page.text("#download") == "Download CSV"

    def test_it_has_the_filters_and_the_order_of_the_list(self, page: Page, saved: Any) -> None:
        page.open("?country=IS&region=Northeast&sort=-elevation_ft&iata=1")
        page.one("#download").click()
        rows = self.rows(page.until(lambda: saved("airports-IS.csv")))
        assert [row["icao"] for row in rows] == page.rows
        assert {row["region"] for row in rows} == {"Northeast"}
        page.run("document.querySelector('#list-how summary').click()")
        page.until(lambda: "Accept: text/csv" in page.text("#list-how"))
        assert "GET /api/airports?region=Northeast&iata__is_null=false&sort=-elevation_ft\n" in page.text("#list-how")
        page.one("#iata").click()
        page.until(lambda: page.text("#download-note") == "")

    def test_a_server_that_is_gone_is_told(self, page: Page, saved: Any) -> None:
        page.open("?country=IS")
        offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        page.browser.execute_cdp_cmd("Network.enable", {})
        page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        try:
            page.one("#download").click()
            page.until(lambda: "did not answer" in page.text("#download-note"))
        finally:
            page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", {**offline, "offline": False})
        assert page.complaints("ERR_INTERNET_DISCONNECTED") == []
        page.one("#download").click()
        assert len(self.rows(page.until(lambda: saved("airports-IS.csv")))) == len(real("IS"))

    # The page gets a body whose parts the test sends.
    FEED = (
        "window.fetch = async (path, { signal }) => new Response(new ReadableStream({ start(body) {"
        "  window.body = body;"
        "  signal.addEventListener('abort', () => body.error(signal.reason));"
        "} }));"
    )

    def test_a_body_that_breaks_off_is_no_file(self, page: Page, saved: Any) -> None:
        page.open("?country=IS")
        page.run(self.FEED)
        page.one("#download").click()
        page.until(lambda: page.run("return Boolean(window.body)"))
        page.run("body.enqueue(new Uint8Array(2500))")
        page.until(lambda: page.text("#download-note") == "Downloading … 2.5 kB")
        page.run("body.enqueue(new Uint8Array(1e6))")
        page.until(lambda: page.text("#download-note") == "Downloading … 1 MB")
        page.run("body.error(new TypeError('network error'))")
        page.until(lambda: page.text("#download-note") == "The download broke off. Nothing was saved.")
        assert saved("airports-IS.csv") is None

    def test_it_can_be_cancelled(self, page: Page, saved: Any) -> None:
        page.open("?country=IS")
        page.run(self.FEED)
        page.one("#download").click()
        page.until(lambda: page.run("return Boolean(window.body)"))
        assert page.text("#download") == "Cancel"
        page.one("#download").click()
        page.until(lambda: page.text("#download-note") == "The download was cancelled.")
        assert page.text("#download") == "Download CSV"
        assert saved("airports-IS.csv") is None


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
        with httpx.Client(base_url=url, headers=headers, timeout=90) as other:
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


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
class TestBack:
    def test_back_closes_the_airport_and_forward_opens_it(self, page: Page, size: tuple[int, int]) -> None:
        page.open("?country=IS", size)
        before = page.rows
        icao = page.pick(1)
        page.browser.back()
        page.until(lambda: not page.is_open)
        assert "airport=" not in page.browser.current_url
        assert page.rows == before, "the page was left, or its list was loaded anew"
        page.browser.forward()
        page.until(lambda: page.is_open and page.text(".codes").startswith(icao))

    def test_another_airport_is_no_further_step(self, page: Page, size: tuple[int, int]) -> None:
        page.open("?country=IS", size)
        page.pick(0)
        page.pick(2)
        page.browser.back()
        page.until(lambda: not page.is_open)
        assert page.browser.title == "Airports of Iceland"

    def test_two_quick_clicks_are_one_step(self, page: Page, size: tuple[int, int]) -> None:
        page.open("?country=IS", size)
        first, second = page.rows[:2]
        page.run("for (const row of [...document.querySelectorAll('#airports .row')].slice(0, 2)) row.click()")
        page.until(lambda: f"airport={second}" in page.browser.current_url)
        page.until(lambda: page.text(".codes").startswith(second))
        page.browser.back()
        page.until(lambda: not page.is_open)
        assert page.rows[:2] == [first, second]

    def test_closing_it_goes_back_as_well(self, page: Page, size: tuple[int, int]) -> None:
        page.open("?country=IS", size)
        icao = page.pick(1)
        page.one(".detail .close").click()
        page.until(lambda: not page.is_open and "airport=" not in page.browser.current_url)
        page.until(lambda: page.browser.switch_to.active_element.get_attribute("data-icao") == icao)
        page.pick(2)
        page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
        page.until(lambda: not page.is_open and "airport=" not in page.browser.current_url)
        # Back leads to what was before the country, and not to the airports.
        assert not page.run("return history.state?.closes")

    def test_what_was_asked_meanwhile_stays(self, page: Page, size: tuple[int, int]) -> None:
        page.open("?country=IS", size)
        page.pick(0)
        if size is WIDE:
            page.type("#words", "Mývatn")
            page.until(lambda: page.rows == ["BIRL"])
        else:
            assert page.run("return document.querySelector('#listed').inert"), "the list lies under the airport"
        page.browser.back()
        page.until(lambda: not page.is_open)
        assert (page.rows == ["BIRL"]) is (size is WIDE)
        assert ("words=" in page.browser.current_url) is (size is WIDE)
        assert not page.run("return document.querySelector('#listed').inert")

    def test_an_airport_that_was_linked_is_closed_in_its_place(self, page: Page, size: tuple[int, int]) -> None:
        page.open("?country=IS&airport=BIRK", size)
        page.until(lambda: page.is_open)
        page.one(".detail .close").click()
        page.until(lambda: not page.is_open)
        assert page.browser.current_url == f"{page.url}?country=IS"

    def test_back_leads_to_the_country_before(self, page: Page, size: tuple[int, int]) -> None:
        page.open("?country=IS&words=airport", size)
        page.until(lambda: " of " in page.count)
        count = page.count
        page.choose("#country", "DK")
        page.until(lambda: page.count == f"{len(real('DK'))} airports")
        page.browser.back()
        page.until(lambda: page.count == count)
        assert page.browser.title == "Airports of Iceland"
        assert page.one("#country").get_attribute("value") == "IS"
        assert page.one("#words").get_attribute("value") == "airport"


class TestTheMap:
    def test_it_has_land_and_sea(self, page: Page) -> None:
        page.open("?country=IS")
        land = page.until(lambda: page.pixels("land")[0])
        everything = page.run("return document.querySelector('#map').width * document.querySelector('#map').height")
        assert 0.15 < land / everything < 0.6

    @pytest.mark.parametrize("country", ["IS", "NZ"])
    def test_around_an_island_is_the_sea(self, page: Page, country: str) -> None:
        page.open(f"?country={country}")
        page.until(lambda: page.pixels("land")[0])
        seas = page.run(
            "const map = document.querySelector('#map'); const pen = map.getContext('2d');"
            "return [[7, 9], [7, map.height - 9], [map.width - 9, map.height - 7]].map("
            "  ([x, y]) => pen.getImageData(x, y, 1, 1).data[3] < 128)"
        )
        assert seas == [True, True, True]

    @pytest.mark.parametrize("country", ["FJ", "RU", "AQ"])
    def test_there_is_land_wherever_the_globe_is_cut(self, page: Page, country: str) -> None:
        page.open(f"?country={country}")
        page.until(lambda: page.pixels("land")[0])
        land, everything = page.pixels("land"), page.box("#map")
        assert land[2] - land[1] > everything["width"] * 0.2
        assert land[4] - land[3] > everything["height"] * 0.2

    def test_the_usa_are_as_large_as_the_map(self, page: Page) -> None:
        page.open("?country=US")
        page.until(page.painted)
        dots = page.run(
            "const map = document.querySelector('#map');"
            "const {data} = map.getContext('2d').getImageData(0, 0, map.width, map.height);"
            "const columns = new Map();"
            "for (let at = 0; at < data.length; at += 4)"
            "  if (data[at] < 110 && data[at + 1] > 120 && data[at + 2] > 120) {"
            "    const x = (at / 4) % map.width; columns.set(x, (columns.get(x) ?? 0) + 1); }"
            "return columns.size / map.width;"
        )
        assert dots > 0.85
        assert "outside this view" in page.text("#numbers")
        page.one("#zoom-fit").click()
        page.until(lambda: "outside" not in page.text("#numbers"))
        page.one("#zoom-fit").click()
        page.until(lambda: "outside" in page.text("#numbers"))

    def test_what_matches_comes_into_view(self, page: Page) -> None:
        page.open("?country=US")
        page.until(lambda: "outside" in page.text("#numbers"))
        before = page.text("#numbers")
        page.choose("#region", "Alaska")
        page.until(lambda: " of " in page.count and "outside" not in page.text("#numbers"))
        page.choose("#region", "")
        page.until(lambda: page.text("#numbers") == before)

    @pytest.mark.parametrize(("country", "icao"), [("US", "KJFK"), ("CL", "SCIP")])
    @pytest.mark.parametrize("size", [WIDE, PHONE, (900, 700), (640, 400)], ids=["wide", "phone", "tablet", "low"])
    def test_the_airport_is_not_under_its_panel(
        self, page: Page, size: tuple[int, int], country: str, icao: str
    ) -> None:
        page.open(f"?country={country}&airport={icao}", size)
        page.until(lambda: page.is_open and page.pixels("ink")[0] > 30)
        _, left, right, top, bottom = page.pixels("ink")
        panel, shown = page.box("#detail"), page.box("#map")
        if size is WIDE:
            assert 0 < left < right <= panel["left"] - shown["left"]
        elif size is PHONE:
            assert panel["top"] >= shown["bottom"] - 1
        else:
            assert panel["right"] <= shown["left"] + 1
        assert 0 < top < bottom < shown["height"]

    def test_closing_the_airport_brings_zoom_and_hits_back(self, page: Page) -> None:
        page.open("?country=US")
        page.type("#words", "county")
        page.until(lambda: " of " in page.count and "busy" not in page.one(".listed").get_attribute("class"))
        page.until(lambda: page.pixels("land")[0])
        home = page.drawing()
        page.one("#zoom-in").click()
        page.until(lambda: page.drawing() != home)
        rows, count, before = page.rows, page.count, page.drawing()
        # The panel would cover the easternmost, so the map moves.
        page.pick(max(range(len(rows)), key=lambda at: REAL[rows[at]]["lon"]))
        page.until(lambda: page.drawing() != before)
        page.one(".detail .close").click()
        page.until(lambda: not page.is_open and page.drawing() == before)
        assert (page.rows, page.count) == (rows, count)

    def test_an_airport_that_can_not_be_shown_leaves_the_view_as_it_was(self, page: Page) -> None:
        page.open("?country=IS&airport=ZZZZ")
        page.until(lambda: "ZZZZ" in page.count or "no" in page.count.lower())
        assert not page.is_open
        page.until(lambda: "airport=" not in page.browser.current_url)
        assert page.complaints("404") == []


def test_on_a_phone_search_and_map_stay_while_the_rows_scroll(page: Page) -> None:
    page.open("?country=GB", PHONE)
    first = page.rows[0]
    page.scroll_through(len(real("GB")))
    row = f"[data-icao='{first}']"
    assert page.box(row)["bottom"] < 0
    for selector in ("#words", "#map", "#country", "#more-fields"):
        box = page.box(selector)
        assert 0 <= box["top"] < box["bottom"] <= PHONE[1], selector


def test_on_a_phone_the_filters_unfold(page: Page) -> None:
    page.open("?country=IS", PHONE)
    assert not page.one("#region").is_displayed()
    page.one("#more-fields").click()
    page.until(lambda: page.one("#region").is_displayed())
    assert page.one("#more-fields").get_attribute("aria-expanded") == "true"
    page.one("#iata").click()
    page.until(lambda: page.text("#more-fields") == "Filters (1)" and " of " in page.count)


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("country", ["RU"])
def test_no_select_cuts_its_words_off(page: Page, size: tuple[int, int], country: str) -> None:
    page.open(f"?country={country}", size)
    page.until(lambda: len(Select(page.one("#region")).options) > 1)
    if size is PHONE:
        page.one("#more-fields").click()
    cut = (
        "const pen = document.createElement('canvas').getContext('2d');"
        "return [...document.querySelectorAll(arguments[0])].flatMap((select) => {"
        "  const style = getComputedStyle(select);"
        "  pen.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;"
        "  const room = select.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) - 18;"
        "  return [...select.options].map((each) => each.text).filter((text) => pen.measureText(text).width > room);"
        "})"
    )
    assert page.run(cut, "#country, #query select") == []
    page.pick(0)
    page.one(".adding summary").click()
    page.until(lambda: page.one(".adding select").is_displayed())
    assert page.run(cut, ".detail select") == []


@pytest.mark.parametrize(
    ("panel", "request_line", "statement"),
    [
        ("#list-how", "GET /api/airports?region=Northeast&sort=name&limit=50", "FROM airports"),
        ("#list-how", "GET /api/airports?facets=region&limit=1", "GROUP BY"),
        ("#map-how", "GET /api/airports/map?region=Northeast", "FROM airports"),
        (".detail .how", "GET /api/inspections?airport_icao=", "FROM inspections"),
    ],
    ids=["list", "regions", "map", "airport"],
)
def test_each_panel_shows_how_it_is_done(page: Page, panel: str, request_line: str, statement: str) -> None:
    page.open("?country=IS&region=Northeast")
    page.until(lambda: " of " in page.count)
    page.pick(0)
    page.run("document.querySelector(arguments[0]).querySelector('summary').click()", panel)
    page.until(lambda: request_line in page.text(panel))
    page.until(lambda: statement in page.text(panel))
    assert "X-Tenant-ID: IS" in page.text(panel)
    sql = page.run(
        "return [...document.querySelectorAll(arguments[0] + ' .sql')].map((each) => each.textContent).join()", panel
    )
    assert "Northeast" not in sql
    assert "'IS'" not in sql


def test_a_write_is_shown_as_it_was_done(page: Page) -> None:
    icao = untouched()[4]
    page.open(f"?country=IS&airport={icao}")
    page.until(lambda: page.is_open)
    page.run("document.querySelector('.detail .how summary').click()")
    page.one(".adding summary").click()
    page.until(lambda: page.one(".adding [name=note]").is_displayed())
    page.type(".adding [name=note]", "A note of the test")
    page.one(".adding button").click()
    page.until(lambda: "POST /api/inspections" in page.text(".detail .how"))
    page.until(lambda: "INSERT INTO inspections" in page.text(".detail .how"))
    assert "COMMIT" in page.text(".detail .how")
    assert "A note of the test" not in page.text(".detail .how")


@pytest.mark.parametrize("size", [WIDE, PHONE, (390, 844)], ids=["wide", "360", "390"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_health_page_is_readable(page: Page, size: tuple[int, int], scheme: str) -> None:
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size is not WIDE},
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        page.browser.get(f"{page.url}health/db?refresh=0")
        assert page.text("h1") == "Database healthy"
        assert "Latency" in page.text("main")
        assert page.run("return document.documentElement.scrollWidth") <= size[0]
        # Its style is allowed by its own policy, and its plots have a size.
        paper = page.run("return getComputedStyle(document.body).backgroundColor")
        assert paper == {"light": "rgb(246, 245, 241)", "dark": "rgb(17, 23, 26)"}[scheme]
        assert page.box("svg")["width"] > size[0] * 0.5
        assert page.run(
            "return [...document.querySelectorAll('p, dd')].every((each) => each.scrollWidth <= innerWidth)"
        )
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_health_page_is_one_click_away(page: Page) -> None:
    page.open()
    page.one("#health").click()
    page.until(lambda: page.one("#health-details a").is_displayed())
    page.one("#health-details a").click()
    page.until(lambda: page.text("h1") == "Database healthy")


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


def test_the_picture_of_the_readme_can_be_made_again(page: Page) -> None:
    """`make screenshot` does it. The picture itself differs with the fonts of the machine, so it is not compared."""
    from tests.example.screenshot import picture_of

    picture = picture_of(page)
    assert (picture[:4], picture[8:12]) == (b"RIFF", b"WEBP")
    assert 20_000 < len(picture) < 200_000
