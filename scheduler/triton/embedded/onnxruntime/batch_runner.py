"""One instance's batches; under load, the next is read and the last is answered while one runs.

Triton hands an instance its next batch when `execute` has returned. Where `execute` runs the model itself, the instance
idles meanwhile: the answers travel to tritonserver, the next batch from there, each a change of process. So under load
`execute` returns when its batch has begun on a thread beside it, the next one lies ready when it ends, and answers
leave by each request's response sender. It is double buffering: one batch runs and one waits, never more, so that
Triton forms no batch earlier than one run ahead (its guide warns of backends that return at once).

Between two runs the thread does nothing that another can do: who waits for the turn of the next batch answers the one
before and lets go of it.

A batch that comes alone is run by `execute` itself: the other thread would only cost it a change of threads, and
Triton takes the time that `execute` takes for the time that the model took. So is every batch where there is one CPU:
reading and running take turns on it anyway.

Where models have CPUs that tritonserver has not, only what runs the model keeps to them: under load the caller of
`execute`, which reads and answers, moves to the server's. Among the models' it would stop a run twice for every batch.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence, Set
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

import triton_python_backend_utils as pb_utils

Respond: TypeAlias = Callable[[], Any]  # makes the response to one request
Run: TypeAlias = Callable[[], Sequence[Respond]]  # runs the model on a batch; for each request, in order

# Batches in a row that came sooner after the one before than it had run, before it is tried whether one lies ready by
# the end of another. A model that is done sooner than a batch comes has nothing to gain from the thread.
IN_A_ROW: Final = 4
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


def keep_to(cpus: Set[int]) -> None:
    """Give the calling thread these CPUs and no other."""
    os.sched_setaffinity(0, cpus)


class BatchRunner:
    """Runs batches one at a time and in order, by itself or on a thread.

    Args:
        models: CPUs of this process, by number.
        server: CPUs of tritonserver.
        now: seconds of a monotonic clock.
        keep_to: gives the calling thread its CPUs.
    """

    def __init__(
        self,
        models: Set[int],
        server: Set[int],
        now: Callable[[], float] = time.monotonic,
        keep_to: Callable[[Set[int]], None] = keep_to,
    ) -> None:
        self._now = now
        self._models = models
        self._server = server
        self._kept_to = models  # by the caller of `answer`
        self._keep_to = keep_to
        self._side_by_side = len(models | server) > 1
        self._soon = 0
        self._tries = 0
        self._ran_s = 0.0
        self._ended = now()
        self._idle = True
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        # A daemon: a stub whose server died must end.
        self._running = threading.Thread(target=self._run_all, daemon=True)
        self._running.start()

    def answer(self, requests: Sequence[Any], run: Run) -> list[Any]:
        """What `execute` returns for a batch: its responses, or None for each, where they are sent when it ends.

        Returns when the batch has ended, or when its turn has come on the thread and the one before is answered.

        Args:
            requests: a Triton batch.
            run: runs the model on it; called once.
        """
        if not self._loaded():
            self._move(self._models)
            began = self._now()
            responses = [_response(respond) for respond in _run(requests, run).responds]
            self._ended = self._now()
            self._ran_s = self._ended - began
            return responses
        self._move(self._server)
        batch = Batch(requests, run)
        self._batches.put(batch)
        batch.turn.acquire()
        # Taken from it: whoever held the last reference would free the requests, and the thread has no time for that.
        before, batch.before = batch.before, None
        if before is not None:
            _send(before)
        return [None] * len(requests)

    def _loaded(self) -> bool:
        if not self._idle or self._tries:
            return True
        self._soon = self._soon + 1 if self._now() - self._ended < self._ran_s else 0
        if self._soon < IN_A_ROW or not self._side_by_side:
            return False
        self._soon, self._tries = 0, 1
        return True

    def _move(self, cpus: Set[int]) -> None:
        if cpus == self._kept_to:
            return
        try:
            self._keep_to(cpus)
        except OSError as error:
            # Whoever runs the host took CPUs away: no reason to fail a request, and none to try at each.
            pb_utils.Logger.log_error(f"stays on its CPUs: {sorted(cpus)} are not to be had: {error}")
            self._models = self._server = self._kept_to
            return
        self._kept_to = cpus

    def close(self) -> None:
        """Return when every batch has run and every answer is sent."""
        self._batches.put(None)
        self._running.join()

    def _run_all(self) -> None:
        before: Answered | None = None
        while (batch := self._batches.get()) is not None:
            self._idle = False
            batch.before, before = before, None
            batch.turn.release()
            before = _run(batch.requests, batch.run)
            if not self._batches.empty():
                self._tries = NONE_READY
                continue
            self._tries = max(0, self._tries - 1)
            self._ended = self._now()
            self._idle = True
            _send(before)
            del batch  # or its memory would wait for the next one
            before = None
        if before is not None:
            _send(before)


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
    for request, respond in zip(answered.requests, answered.responds, strict=True):
        try:
            sender = request.get_response_sender()
            sender.send(_response(respond), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception as error:
            pb_utils.Logger.log_error(f"a response could not be sent: {error!r}")
