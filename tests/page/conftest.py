"""A browser for the live page: Debian's Chromium, driven by Playwright; without it these tests are skipped."""

import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright

from tests.edge.conftest import request_of, serve  # noqa: F401 - fixtures

CHROMIUM = shutil.which("chromium")


# As Playwright starts it, as far as it matters here: no sandbox for root, no first-run dialogs, no traffic of its own.
FLAGS = ("--headless=new", "--no-sandbox", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage")
QUIET_FLAGS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
)
START_S = 60.0


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one Chromium for all tests: to start it takes longer than most of them."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium (make test does it as root)")
    profile = tmp_path_factory.mktemp("chromium")
    log = profile.with_suffix(".log")
    command = [CHROMIUM, *FLAGS, *QUIET_FLAGS, "--remote-debugging-port=0", f"--user-data-dir={profile}"]
    with log.open("wb") as output, subprocess.Popen([*command, "about:blank"], stdout=output, stderr=output) as process:
        try:
            yield f"http://127.0.0.1:{_port(process, profile / 'DevToolsActivePort', log)}"
        finally:
            process.terminate()


def _port(process: subprocess.Popen[bytes], told: Path, log: Path) -> int:
    """The port, which Chromium writes to a file of its profile once it listens."""
    give_up_s = time.monotonic() + START_S
    while time.monotonic() < give_up_s and process.poll() is None:
        if told.exists() and (lines := told.read_text().splitlines()):
            return int(lines[0])
        time.sleep(0.02)
    pytest.fail(f"chromium did not start:\n{log.read_text(errors='replace')[-2000:]}")


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """The session's browser for one test; its pages go with the test."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(chromium)
        yield browser
        await browser.close()  # of a browser connected to: what this connection opened, not the process


@pytest.fixture
def open_page(browser: Browser) -> Callable[..., Any]:
    """`await open_page(served, **context)`: the live page, once it has heard of the service.

    Beside it comes a list of what the console was told and what was loaded from elsewhere; a test wants it empty.
    """

    async def start(served: Any, **context: Any) -> tuple[Page, list[str]]:
        page = await (await browser.new_context(**context)).new_page()
        home = f"http://{served.addresses.http}/"
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(home) else complaints.append(request.url))
        await page.goto(home)
        await page.locator("#status[data-level=good]").wait_for()
        return page, complaints

    return start
