"""The live page in a real browser, in front of a whole service."""

import asyncio
import contextlib
import itertools
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from playwright.async_api import expect

HOSTILE = '<img src=x onerror="document.title=`owned`">'


def send(served: Any, request: Any, tenant: str, priority: str = "background") -> Any:
    return asyncio.ensure_future(served.infer(request, metadata=(("x-tenant-id", tenant), ("x-priority", priority))))


async def test_quiet_service_is_shown_and_nothing_complains(serve: Any, open_page: Any) -> None:
    page, complaints = await open_page(await serve())
    await expect(page.locator("#lanes h3")).to_have_text(["interactive", "background"])
    await expect(page.locator("#backends")).to_contain_text("fake")
    await expect(page.locator("#models")).to_contain_text("two_instances")
    await expect(page.locator("#status")).to_contain_text("ready")
    assert complaints == []


async def test_a_flood_is_seen_while_it_lasts(serve: Any, open_page: Any, request_of: Any) -> None:
    served = await serve(tenants={"loud": {"max_queued": 30}}, models={"identity": {"merge": False}})
    page, complaints = await open_page(served)
    served.triton.hold()
    flood = [send(served, request_of([[n]]), "loud") for n in range(2)]
    await served.triton.until(lambda triton: len(triton.in_flight) == 2)
    flood += [send(served, request_of([[n]]), "loud") for n in range(48)]
    background = page.locator("#lanes li").nth(1)
    await expect(background.locator(".road output")).to_have_text(["30 of 20,000 waiting, 1.2 KiB", "2 in flight"])
    await expect(background.locator("dl .alarm")).to_be_visible()
    loud = page.locator("#tenants tr", has_text="loud")
    await expect(loud).to_contain_text("2 / 64")
    await expect(page.locator("#happenings")).to_contain_text("background is being refused")
    served.triton.release()
    await asyncio.gather(*flood, return_exceptions=True)
    await expect(background.locator(".road output")).to_have_text(["0 of 20,000 waiting, 0 B", "0 in flight"])
    await expect(loud).to_contain_text("100 %")
    assert complaints == []


async def test_limit_across_models_is_seen_to_move_and_why(
    serve: Any, open_page: Any, request_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.core.backends.concurrency.QUIET_S", 1e-9)
    served = await serve()
    page, complaints = await open_page(served)
    limit = page.locator("#backends .limit")
    await expect(limit).to_contain_text("beside a more important model at most 1: nothing is known yet")
    for number in range(2):
        await send(served, request_of([[number]]), "acme", "interactive")
    await expect(limit).to_contain_text(re.compile(r"at most ([2-9]|\d\d+), moved at \d\d:\d\d:\d\d: quiet"))
    picture = page.get_by_role("img", name=re.compile(r"fake: the limit was between 1 and ([2-9]|\d\d+) in"))
    await expect(picture).to_be_visible()
    assert "L" in str(await picture.locator(".p50").get_attribute("d"))
    assert complaints == []


async def test_hostile_tenant_name_is_text(serve: Any, open_page: Any, request_of: Any) -> None:
    served = await serve()
    await send(served, request_of([[1]], id=HOSTILE), HOSTILE)
    page, complaints = await open_page(served)
    await expect(page.locator("#tenants th", has_text=HOSTILE)).to_be_visible()
    await page.get_by_label("Request id").fill(HOSTILE)
    await page.get_by_role("button", name="Explain").click()
    await expect(page.locator("#answer")).to_contain_text(f"tenant {HOSTILE}")
    assert await page.locator("main img").count() == 0
    await expect(page).to_have_title("Fairlane")
    assert complaints == []


async def test_many_tenants_are_cut_to_the_busiest_and_can_be_searched(
    serve: Any, open_page: Any, request_of: Any
) -> None:
    served = await serve()
    await asyncio.gather(*(send(served, request_of([[1]]), f"tenant-{number:04d}") for number in range(1000)))
    page, complaints = await open_page(served)
    await expect(page.locator("#tenants tr")).to_have_count(25)
    await expect(page.locator("#tenants-count")).to_contain_text("the busiest 25 of 1,000")
    await page.get_by_label("Filter").fill("TENANT-077")
    await expect(page.locator("#tenants tr")).to_have_count(10)
    await expect(page.locator("#tenants-count")).to_contain_text("10 that match, 1,000 known")
    assert complaints == []


# Sizes of the next three states as the browser gets them, from a listener of its own.
THREE_STATES = """() => new Promise((done) => {
  const sizes = [];
  const source = new EventSource("/events");
  source.addEventListener("state", (event) => {
    sizes.push(event.data.length);
    if (sizes.length === 3) { source.close(); done(sizes); }
  });
})"""


async def test_thousand_tenants_under_load_leave_page_and_events_small_and_the_page_usable(
    serve: Any, open_page: Any, request_of: Any
) -> None:
    served = await serve()
    names = [f"tenant-{number:04d}-{'x' * 115}" for number in range(1000)]  # no name may be longer

    async def ask(mine: list[str]) -> None:
        for number, name in enumerate(itertools.cycle(mine)):
            with contextlib.suppress(grpc.aio.AioRpcError):  # the load counts, not the answers
                await send(served, request_of([[number]]), name, ("background", "interactive")[number % 2])

    page, complaints = await open_page(served)
    askers = [asyncio.create_task(ask(names[place::20])) for place in range(20)]
    await expect(page.locator("#tenants-count")).to_contain_text("the busiest 25 of 1,000", timeout=90_000)
    elements = await page.locator("*").count()
    assert max(await page.evaluate(THREE_STATES)) < 32 * 1024
    await expect(page.locator("#tenants tr")).to_have_count(25)
    assert await page.locator("*").count() < elements + 100
    await page.get_by_label("Filter").fill("tenant-0777")
    await expect(page.locator("#tenants tr")).to_have_count(1)
    await page.get_by_role("button", name="Pause").click()
    await expect(page.locator("#status")).to_have_text("paused")
    assert not any(asker.done() for asker in askers)  # all the while
    for asker in askers:
        asker.cancel()
    await asyncio.gather(*askers, return_exceptions=True)
    assert complaints == []


async def test_phone_needs_no_sideways_scrolling(serve: Any, open_page: Any, request_of: Any) -> None:
    served = await serve()
    await send(served, request_of([[1]]), "a-tenant-with-quite-a-long-name-that-goes-on")
    page, complaints = await open_page(
        served, viewport={"width": 375, "height": 740}, has_touch=True, is_mobile=True, color_scheme="dark"
    )
    await expect(page.locator("#tenants tr")).to_have_count(1)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 375
    background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(19, 21, 24)"
    assert complaints == []


async def test_keyboard_reaches_the_controls_in_order_and_pauses(serve: Any, open_page: Any) -> None:
    page, complaints = await open_page(await serve())
    reached = []
    for _ in range(7):
        await page.keyboard.press("Tab")
        reached.append(
            await page.evaluate("(({id, className, tagName}) => id || className || tagName)(document.activeElement)")
        )
    assert reached == ["skip", "pause", "tenant-filter", "scroll", "scroll", "request-id", "BUTTON"]
    await page.locator("#pause").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#status")).to_have_text("paused")
    await page.locator("body").press("p")
    await expect(page.locator("#status")).to_contain_text("ready")
    assert complaints == []


async def test_reader_hears_of_tables_plots_and_events(serve: Any, open_page: Any, request_of: Any) -> None:
    served = await serve()
    await send(served, request_of([[1]]), "acme", "interactive")
    page, _ = await open_page(served)
    await expect(page.get_by_role("row", name="acme")).to_be_visible()
    await expect(page.get_by_role("columnheader", name="in flight / cap")).to_be_visible()
    await expect(page.get_by_role("img", name="interactive: over the last five minutes")).to_be_visible()
    await expect(page.get_by_role("log", name="What happened")).to_contain_text("backend fake is ready")
    await expect(page.get_by_role("status").first).to_contain_text("ready")


async def test_service_that_goes_away_is_told(serve: Any, open_page: Any) -> None:
    served = await serve()
    page, _ = await open_page(served)
    await served.app.stop()
    await expect(page.locator("#status")).to_contain_text("no word since", timeout=20000)


def test_picture_in_the_readme_is_small() -> None:
    picture = Path(__file__).parents[2] / "docs" / "images" / "live.png"
    assert picture.stat().st_size < 200 * 1024
