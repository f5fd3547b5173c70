"""grpc.aio's batches of operations, freed when gRPC has ended them, whoever still waits.

grpc.aio hands its core an array of operations and awaits a future. It frees the array, with the metadata and the
message in it, behind that `await`: not where the batch failed, as an answer to a caller who has just gone does, nor
where the awaiting task was cancelled, as a call to a backend that nobody waits for any more is. Then all of it is lost
(grpc/grpc#43360). Each caller who gives up at the right moment could so take a message's bytes for good.
"""

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Iterator
from typing import Any, Final

from grpc._cython import cygrpc  # type: ignore[attr-defined]  # where it is; no public way leads there

log = logging.getLogger(__name__)

EXECUTE_BATCH: Final = "execute_batch"
ONE_WAIT: Final = (None,)


def free_operations() -> None:
    """Let all calls of this process, on both sides, run their batches through `_Batch`."""
    execute = getattr(cygrpc, EXECUTE_BATCH, None)
    if execute is None:
        log.warning("this grpcio runs its calls in a way unknown here: whether cancelled ones are freed is not known")
        return
    if execute.__module__ == __name__:
        return  # done before in this process

    def execute_batch(call: Any, operations: tuple[Any, ...], loop: asyncio.AbstractEventLoop) -> Awaitable[None]:
        if type(operations[0]) is cygrpc.ReceiveCloseOnServerOperation:
            # One for each call, for its whole life: it cannot fail, and the task that awaits it is not cancelled.
            return execute(call, operations, loop)  # type: ignore[no-any-return]
        return _Batch(loop, execute, call, operations).ended

    setattr(cygrpc, EXECUTE_BATCH, execute_batch)


class _Batch:
    """What grpc.aio's own coroutine takes for its event loop and for the future of one batch.

    The coroutine is stepped by hand, once to the `await` and once to its end, where it frees: at the end of the batch
    and as if that had gone well. The awaiting task has a future of its own, which it may leave.

    Attributes:
        ended: done at the batch's end, with gRPC's error where it failed.
    """

    __slots__ = ("_coroutine", "_loop", "ended")

    def __init__(self, loop: asyncio.AbstractEventLoop, execute: Any, call: Any, operations: tuple[Any, ...]) -> None:
        """Hand the batch to gRPC, which holds this object until the batch ends."""
        self._loop = loop
        self.ended: asyncio.Future[None] = loop.create_future()
        self._coroutine: Coroutine[Any, Any, None] = execute(call, operations, self)
        self._coroutine.send(None)

    def create_future(self) -> "_Batch":
        """As the event loop: what is awaited."""
        return self

    def call_soon_threadsafe(self, ended: Any, *about: Any) -> None:
        """As an event loop that is not the one that polls: the batch has ended."""
        if asyncio.get_running_loop() is self._loop:
            ended(*about)
        else:
            self._loop.call_soon_threadsafe(ended, *about)

    def __await__(self) -> Iterator[None]:
        """As the future: wait for the second step."""
        return iter(ONE_WAIT)

    def cancelled(self) -> bool:
        """As the future: never, so that the end is told."""
        return False

    def set_exception(self, error: Exception) -> None:
        """As the future: the batch failed."""
        self.set_result(None, error)

    def set_result(self, result: None, error: Exception | None = None) -> None:
        """As the future: the batch succeeded, or failed with this error."""
        try:
            self._coroutine.send(None)
        except StopIteration:
            pass
        except Exception as broken:  # what cannot be read is the awaiting task's error, as before
            error = error or broken
        del self._coroutine
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(result)
        else:
            self.ended.set_exception(error)
