"""A browser for the live page: Debian's Chromium, driven by Playwright; without it these tests are skipped."""

import shutil
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright

from tests.edge.conftest import request_of, serve  # noqa: F401 - fixtures

CHROMIUM = shutil.which("chromium")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium (make test does it as root)")
    async with async_playwright() as playwright:
        # Root cannot have Chromium's sandbox; the page comes from this process.
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


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
