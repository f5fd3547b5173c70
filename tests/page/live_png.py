"""docs/images/live.png: the live page during a flood, on the real models; `make screenshot` runs it, in two minutes.

Three tenants flood the background class of `minilm` at more than Triton can answer, while people ask interactively.
"""

import asyncio
import contextlib
import random
import shutil
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import fairlane
import numpy as np
from playwright.async_api import async_playwright

from scheduler.app import App
from scheduler.config import Config

SECONDS: Final = 70
SIZE: Final = {"width": 1180, "height": 1060}
SETTINGS: Final = {
    "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
    "tenants": {
        "acme": {"weight": 3, "max_queued": 500},
        "globex": {"weight": 2, "max_queued": 300},
        "initech": {"max_in_flight": 4, "max_queued": 120},
    },
    "limits": {"drain_s": 1},
}
# tenant, class, model, rows, requests a second; the flood pauses now and then, as jobs do.
STREAMS: Final = (
    ("mobile", "interactive", "minilm", 1, 14.0),
    ("search", "interactive", "minilm", 1, 8.0),
    ("kiosk", "interactive", "digits", 1, 10.0),
    ("acme", "background", "minilm", 2, 60.0),
    ("globex", "background", "minilm", 2, 60.0),
    ("initech", "background", "minilm", 4, 40.0),
    ("archive", "background", "digits", 8, 30.0),
)


def tensors(model: str, rows: int) -> dict[str, Any]:
    if model == "digits":
        return {"image": np.zeros((rows, 1, 8, 8), dtype=np.float32)}
    return {name: np.ones((rows, 24), dtype=np.int64) for name in ("input_ids", "attention_mask")}


async def stream(client: Any, tenant: str, priority: str, model: str, rows: int, per_s: float) -> None:
    """Poisson arrivals that never wait for answers."""
    inputs = tensors(model, rows)
    asked: set[asyncio.Task[Any]] = set()
    dice = random.Random(tenant)
    while True:
        await asyncio.sleep(dice.expovariate(per_s))
        call = client.infer(model, inputs, priority=priority, tenant=tenant, timeout_s=30)
        asked.add(task := asyncio.ensure_future(swallow(call)))
        task.add_done_callback(asked.discard)


async def swallow(call: Coroutine[Any, Any, Any]) -> None:
    with contextlib.suppress(fairlane.FairlaneError):
        await call


async def picture(http: str, target: Path) -> None:
    async with async_playwright() as playwright:
        path = shutil.which("chromium")
        if path is None:
            sys.exit("no chromium on this machine: apt-get install chromium")
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = await browser.new_page(viewport=SIZE, device_scale_factor=1)
        await page.goto(f"http://{http}/")
        await asyncio.sleep(SECONDS)
        await page.screenshot(path=target)
        await browser.close()


async def main(target: Path) -> None:
    app = App(Config.model_validate(SETTINGS))
    addresses = await app.start()
    await app.until_ready()
    async with fairlane.aio.Client(addresses.grpc, retry=fairlane.RetryPolicy(max_attempts=1)) as client:
        streams = [asyncio.ensure_future(stream(client, *each)) for each in STREAMS]
        await picture(addresses.http, target)
        for each in streams:
            each.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
    await app.stop()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
