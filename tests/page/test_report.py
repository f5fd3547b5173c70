"""The report of `fairlane bench` in a real browser: one file that needs nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from bench.reporting.report import write_report
from bench.scenarios.result import Result
from tests.bench.conftest import made_recording, made_result  # noqa: F401 - fixtures


@pytest.fixture
def open_report(browser: Browser, made_result: Callable[..., Result], tmp_path: Path) -> Callable[..., Any]:  # noqa: F811
    """`await open_report(**context)`: the report of a made-up result, and what the browser complained of or fetched."""

    async def start(**context: Any) -> tuple[Page, list[str]]:
        write_report(made_result(), tmp_path)
        home = (tmp_path / "made.html").as_uri()
        page = await (await browser.new_context(**context)).new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url[:80]}"))
        page.on(
            "request", lambda asked: None if asked.url.startswith((home, "data:")) else complaints.append(asked.url)
        )
        await page.goto(home)
        return page, complaints

    return start


async def test_every_plot_is_drawn_and_nothing_is_fetched(open_report: Any) -> None:
    page, complaints = await open_report()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Two streams")
    captions = [
        "Latency of class interactive",
        "Latency of class background",
        "Answers in time against offered load",
        "Answers per second by tenant",
        "Rows that Triton ran at a time",
    ]
    for caption in captions:
        picture = page.get_by_role("img", name=caption)
        await expect(picture).to_be_visible()
        # An SVG that cannot be read has no size.
        assert await picture.evaluate("image => image.complete && image.naturalWidth > 300")
    await expect(page.get_by_role("img")).to_have_count(len(captions))
    assert complaints == []


async def test_verdicts_and_numbers_can_be_read(open_report: Any) -> None:
    page, _ = await open_report()
    await expect(page.get_by_role("listitem")).to_have_count(5)  # the run's validity, and four verdicts
    await expect(page.get_by_role("listitem").first).to_contain_text("VALID")
    await expect(page.get_by_role("columnheader", name="fairlane.flood")).to_be_visible()
    await expect(page.get_by_role("row", name="p99 ms").first).to_contain_text("400")
    await expect(page.locator("pre")).to_contain_text("of_capacity: 2")


async def test_phone_scrolls_the_table_and_not_the_page(open_report: Any) -> None:
    page, complaints = await open_report(viewport={"width": 375, "height": 740}, color_scheme="dark")
    assert await page.evaluate("document.documentElement.scrollWidth") <= 375
    assert complaints == []
