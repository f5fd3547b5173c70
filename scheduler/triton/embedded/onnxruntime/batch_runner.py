"""One instance's batches; under load, the next is read and the last is answered while one runs.

Triton hands an instance its next batch when `execute` has returned. Where `execute` runs the model itself, the instance
idles meanwhile: the answers travel to tritonserver, the next batch from there, each a change of process. So under load
`execute` returns when its batch has begun on a thread beside it, the next one lies ready when it ends, and answers
leave by each request's response sender. It is double buffering: one batch runs and one waits, never more, so that
Triton forms no batch earlier than one run ahead (its guide warns of backends that return at once).

Between two runs the thread does nothing that another can do. A third one sends the answers; where who reads has CPUs of
its own, who waits for the turn of the next batch sends those of the one before, which is a change of threads less.
Where the third one falls behind, as with answers larger than they take to compute, that one helps it, so that no more
than a few batches and their answers are in memory.

A batch that comes alone is run by `execute` itself: the other thread would only cost it a change of threads, and
Triton takes the time that `execute` takes for the time that the model took. So is every batch where there is one CPU:
reading and running take turns on it anyway.

`reader_cpus.py` says on which CPUs the caller of `execute` does its part.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

import triton_python_backend_utils as pb_utils
from reader_cpus import ReaderCpus

Respond: TypeAlias = Callable[[], Any]  # makes the response to one request
Run: TypeAlias = Callable[[], Sequence[Respond]]  # runs the model on a batch; for each request, in order

# Batches in a row that came sooner after the one before than it had run, before it is tried whether one lies ready by
# the end of another. A model that is done sooner than a batch comes has nothing to gain from the thread.
IN_A_ROW: Final = 4
# Batches that wait to be sent, beside one that is being sent, before the caller of the next one helps.
UNSENT: Final = 1
# Where Triton's C library puts shared memory, and how much of it free is enough: twice what a message of gRPC carries.
# With less, the end of a request is sent apart from its response.
SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108
ROOM: Final = 4 << 30
# Batches in a row by whose end none lay ready before the load is held to be over.
NONE_READY: Final = 8


class Answered(NamedTuple):
    """A batch that has run.

    Attributes:
        requests: of the batch. Held until they are answered: their arrays are views of memory that goes with them.
        responds: one for each request, in order.
    """

    requests: Sequence[Any]
    responds: Sequence[Respond]


class Batch:
    """What waits to be run.

    Attributes:
        requests: of the batch.
        run: runs the model on them.
        turn: locked until it is this batch's turn.
        before: the batch that ran before, where it is not answered when the turn has come.
    """

    __slots__ = ("before", "requests", "run", "turn")

    def __init__(self, requests: Sequence[Any], run: Run) -> None:
        self.requests = requests
        self.run = run
        self.before: Answered | None = None
        self.turn = threading.Lock()
        self.turn.acquire()


class BatchRunner:
    """Runs batches one at a time and in order, by itself or on a thread; others send what that one gave.

    Args:
        reader: moves the caller of `answer`.
        side_by_side: whether reading and running can be done at the same time, on two CPUs.
        now: seconds of a monotonic clock.
    """

    def __init__(self, reader: ReaderCpus, *, side_by_side: bool, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._reader = reader
        self._side_by_side = side_by_side
        self._soon = 0
        self._tries = 0
        self._ran_s = 0.0
        self._ended = now()
        self._idle = True
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._answered: queue.SimpleQueue[Answered | None] = queue.SimpleQueue()
        # Daemons: a stub whose server died must end.
        self._running = threading.Thread(target=self._run_all, daemon=True)
        self._sending = threading.Thread(target=self._send_all, daemon=True)
        self._running.start()
        self._sending.start()

    def answer(self, requests: Sequence[Any], run: Run) -> list[Any]:
        """What `execute` returns for a batch: its responses, or None for each, where they are sent when it ends.

        Returns when the batch has ended, or when its turn has come on the thread and the one before is answered.

        Args:
            requests: a Triton batch.
            run: runs the model on it; called once.
        """
        if not self._loaded():
            self._reader.run_itself()
            began = self._now()
            responses = [_response(respond) for respond in _run(requests, run).responds]
            self._ended = self._now()
            self._ran_s = self._ended - began
            return responses
        self._reader.read_beside()
        batch = Batch(requests, run)
        self._batches.put(batch)
        batch.turn.acquire()
        # Taken from it: whoever held the last reference would free the requests, and the thread has no time for that.
        before, batch.before = batch.before, None
        if before is not None:
            _send(before)
        while self._answered.qsize() > UNSENT:
            self._send_one()
        return [None] * len(requests)

    def _loaded(self) -> bool:
        if not self._idle or self._tries:
            return True
        self._soon = self._soon + 1 if self._now() - self._ended < self._ran_s else 0
        if self._soon < IN_A_ROW or not self._side_by_side:
            return False
        self._soon, self._tries = 0, 1
        return True

    def close(self) -> None:
        """Return when every batch has run and every answer is sent."""
        self._batches.put(None)
        self._running.join()
        self._answered.put(None)
        self._sending.join()

    def _run_all(self) -> None:
        before: Answered | None = None
        while (batch := self._batches.get()) is not None:
            began = self._now()
            # Longer than a run is a lull: whoever sends has nothing to send.
            waited_s = began - self._ended if self._idle and began - self._ended < self._ran_s else 0.0
            self._idle = False
            batch.before, before = before, None
            batch.turn.release()
            before = _run(batch.requests, batch.run)
            self._ended = self._now()
            self._ran_s = self._ended - began
            self._reader.ran(self._ran_s, waited_s)
            if self._batches.empty():
                self._tries = max(0, self._tries - 1)
                self._idle = True
                _send(before)
            else:
                self._tries = NONE_READY
                if self._reader.away:
                    continue
                self._answered.put(before)
            before = None
            del batch  # or its memory would wait for the next one
        if before is not None:
            _send(before)

    def _send_one(self) -> None:
        # The other thread may have taken it.
        with suppress(queue.Empty):
            if (answered := self._answered.get_nowait()) is not None:
                _send(answered)

    def _send_all(self) -> None:
        while (answered := self._answered.get()) is not None:
            _send(answered)
            del answered


def _run(requests: Sequence[Any], run: Run) -> Answered:
    try:
        return Answered(requests, run())
    except Exception as error:
        # No request goes without an answer, and the thread goes on.
        return Answered(requests, [partial(_failure, repr(error))] * len(requests))


def _response(respond: Respond) -> Any:
    try:
        return respond()
    except Exception as error:
        return _failure(repr(error))


def _failure(message: str) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INTERNAL))


def _send(answered: Answered) -> None:
    roomy = _is_roomy()
    for request, respond in zip(answered.requests, answered.responds, strict=True):
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if roomy else 0
        try:
            request.get_response_sender().send(_response(respond), flags=flags)
        except Exception as error:
            pb_utils.Logger.log_error(f"a response could not be sent: {error!r}")
        if not roomy:
            _end(request)


def _is_roomy() -> bool:
    """Whether any response fits into the shared memory that it goes through."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize >= ROOM


def _end(request: Any) -> None:
    """End a request whose response was sent apart: its caller gets an error where that one did not fit.

    A sender takes no second response, and its end is in the first one or apart. With the end in one that does not fit,
    the request would never end.
    """
    try:
        request.get_response_sender().send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    except Exception as error:
        pb_utils.Logger.log_error(f"a request could not be ended: {error!r}")
