"""Unary calls that are never cancelled, for servers that a cancelled call can end.

Triton's gRPC server before 2.57.0 (25.04) has races between a call's end and its cancellation
(triton-inference-server/server 7368, 7840, 8034, 8078): the whole process ends with a segmentation fault. 2.51.0 did
after 26,000 calls of 0 to 1 ms with deadlines and cancellations of up to 8 ms, and after 12,000 of a model without work
(`python -m bench.cancellations`). A deadline that the call carries is a cancellation, too. So such a server gets no
deadline, its call is left to finish, and the answer is dropped. What that costs is little: Triton does not take back a
request that is with an instance.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from scheduler.driver import NOBODY_WAITS

# The first release whose server survives cancelled calls.
CANCELLABLE: Final = (2, 57, 0)
# Calls that hang and that nobody waits for, of all backends; each may hold a message. Beyond, the oldest is cancelled.
LEFT_MOST: Final = 256


def cancellable(version: str) -> bool:
    """Whether a server of this version survives a cancelled unary call; one that cannot be read counts as if not."""
    parts = version.strip().removeprefix("v").split(".")[: len(CANCELLABLE)]
    return all(part.isascii() and part.isdecimal() for part in parts) and tuple(map(int, parts)) >= CANCELLABLE


class Unwanted(Exception):
    """The call has ended, and nobody waited for its answer for the last `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"nobody waited for the answer for {seconds:.3g} s")
        self.seconds = seconds


class UncancelledCalls:
    """Waits for calls without ever cancelling them, and keeps those that have been given up until they end."""

    def __init__(self) -> None:
        self._left: dict[asyncio.Task[Any], None] = {}

    async def answer(self, call: Any, ended: Callable[[], None]) -> Any:
        """The answer of the call; `ended` is called when it has ended, be it long after.

        Cancelled with `driver.NOBODY_WAITS` this goes on until the call has ended, since its server is at work until
        then. Cancelled in any other way it ends at once, and the call goes on by itself.

        Raises:
            Unwanted: it was cancelled with NOBODY_WAITS, and the call has ended since.
            grpc.aio.AioRpcError: the call failed.
            asyncio.CancelledError: cancelled, or the channel was closed under the call.
        """
        loop = asyncio.get_running_loop()
        waiting = asyncio.ensure_future(_answer(call))
        waiting.add_done_callback(lambda _: ended())
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                raise
            if cancelled.args != (NOBODY_WAITS,):
                self._leave(waiting)
                raise
            task.uncancel()
        since = loop.time()
        try:
            await asyncio.wait({waiting})
        except asyncio.CancelledError:
            self._leave(waiting)
            raise
        _drop(waiting)
        raise Unwanted(loop.time() - since)

    def _leave(self, waiting: asyncio.Task[Any]) -> None:
        self._left[waiting] = None
        waiting.add_done_callback(self._ended)
        if len(self._left) > LEFT_MOST:
            next(iter(self._left)).cancel()

    def _ended(self, waiting: asyncio.Task[Any]) -> None:
        self._left.pop(waiting, None)
        _drop(waiting)


async def _answer(call: Any) -> Any:
    return await call


def _drop(waiting: asyncio.Task[Any]) -> None:
    """Look at how it ended, so that asyncio does not complain that nobody did."""
    if not waiting.cancelled():
        waiting.exception()
