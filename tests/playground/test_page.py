"""The playground in headless Chromium beside a real server: `make playground` runs this, in an environment of its own.

The server runs under the Python that ``LACONIC_SERVER_PYTHON`` names, because gradio and laconic's own environment want
different versions of the same packages.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

pytest.importorskip("gradio", reason="gradio is not installed; `make playground` installs it in an environment of its own")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed; see `make playground`")
DRIVER = shutil.which("chromedriver")
PYTHON = os.environ.get("LACONIC_SERVER_PYTHON")
pytestmark = [
    pytest.mark.skipif(DRIVER is None, reason="no chromedriver is installed (Debian: apt-get install chromium-driver)"),
    pytest.mark.skipif(PYTHON is None, reason="LACONIC_SERVER_PYTHON names no Python that can serve; see `make playground`"),
]
ROOT = Path(__file__).parents[2]
SECONDS = 300
ASKED = {"a": "keydiff:keep=0.5", "question": "What is the code for falcon?"}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def process(url, *command):
    """A process that runs as long as the context, once `url` answers."""
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": "src", "HF_HUB_OFFLINE": "1"}) as running:
        try:
            until = time.monotonic() + SECONDS
            while True:
                assert running.poll() is None and time.monotonic() < until, f"{command} did not start"
                try:
                    urlopen(url, timeout=5).close()
                    break
                except (URLError, OSError):
                    time.sleep(0.2)
            yield running
        finally:
            running.terminate()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    port = str(free_port())
    store = str(tmp_path_factory.mktemp("store"))
    serve = (PYTHON, "-m", "laconic", "serve", "--model", "testbed/lm", "--port", port, "--store", store)
    with process(f"http://127.0.0.1:{port}/readyz", *serve) as running:
        yield f"http://127.0.0.1:{port}/v1", running


@pytest.fixture(scope="module")
def address(served):
    port = str(free_port())
    url, document = served[0], str(ROOT / "examples" / "note.txt")
    play = (sys.executable, "-m", "laconic", "playground", "--url", url, "--port", port, "--document", document)
    with process(f"http://127.0.0.1:{port}/", *play):
        yield f"http://127.0.0.1:{port}/"


class Page:
    """The page in a browser."""

    def __init__(self, driver, address, **query):
        self.driver = driver
        driver.get(address + "?" + urlencode(query))
        self.until(lambda: self.value("#model input"))

    def until(self, true):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            try:
                if found := true():
                    return found
            except webdriver.remote.webdriver.WebDriverException:  # not drawn yet, or drawn anew meanwhile
                pass
            time.sleep(0.1)
        raise AssertionError(f"nothing after {SECONDS} s; the page says {self.text('body')!r}")

    def one(self, selector):
        return self.driver.find_element("css selector", selector)

    def text(self, selector):
        return self.one(selector).text.strip()

    def value(self, selector):
        return self.one(selector).get_attribute("value")

    def ask(self):
        self.one("#ask").click()
        self.until(lambda: self.text("#trouble") or len(self.driver.find_elements("css selector", "table.figures")) == 2)
        return [self.value(f"#answer-{side} textarea") for side in "ab"]


@pytest.fixture
def open_page(address):
    """`open_page(width=1200, **query)` -> a Page; its console is looked at in the end."""
    drivers = []

    def opened(width=1200, **query):
        options = webdriver.ChromeOptions()
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--window-size={width},1400",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        drivers.append(driver)
        return Page(driver, address, **query)

    yield opened
    for driver in drivers:
        severe = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
        driver.quit()
        assert not severe


def test_two_answers_side_by_side_with_what_was_kept(open_page):
    page = open_page(**ASKED)
    assert page.value("#question textarea") == ASKED["question"] and "falcon" in page.value("#document textarea")
    first, second = page.ask()
    assert "4815263" in first and "4815263" in second
    assert "(50%)" in page.text("#figures-a") and "(100%)" in page.text("#figures-b")
    assert "reading the document" in page.text("#figures-a") and "reading" not in page.text("#figures-b")
    assert "Welcome" in page.text("#kept-a") and page.one("#kept-a mark") and page.one("#kept-a del")
    assert not page.text("#kept-b")


def test_the_link_opens_the_same_settings(open_page):
    page = open_page(**ASKED, b="streaming_llm:keep=0.25,sinks=2")
    page.ask()
    query = page.value("#link textarea, #link input")
    assert "sinks" in query and "falcon" in query
    page.driver.get(page.driver.current_url.partition("?")[0] + query)
    page.until(lambda: page.value("#model input"))
    assert page.value("#method-b input") == "streaming_llm" and page.value("#parameters-b textarea") == "sinks=2"


def test_what_is_wrong_is_said(open_page):
    page = open_page(a="keydiff:keep=0.5,wrong=1", question=ASKED["question"])
    page.ask()
    assert "keydiff has no parameter 'wrong'" in page.text("#trouble")
    empty = open_page(a="keydiff:keep=0.5")
    empty.ask()
    assert "the question is empty" in empty.text("#trouble")


def test_narrow_and_nothing_from_outside(open_page):
    page = open_page(width=500, **ASKED)
    page.ask()
    wide, window = page.driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= window
    for entry in page.driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            assert message["params"]["request"]["url"].startswith(
                (page.driver.current_url.partition("?")[0], "data:", "blob:")
            )


def test_a_server_that_stops_is_named(open_page, served):
    page = open_page(**ASKED)
    served[1].terminate()
    served[1].wait(60)
    page.ask()
    assert "no server answers" in page.text("#trouble")
