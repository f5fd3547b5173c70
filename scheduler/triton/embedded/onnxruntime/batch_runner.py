"""One instance's batches; under load, the next is read and the last is answered while one runs.

Triton hands an instance its next batch when `execute` has returned. Where `execute` runs the model itself, the instance
idles meanwhile: the answers travel to tritonserver, the next batch from there, each a change of process. So under load
`execute` returns when its batch has begun on a thread beside it, the next one lies ready when it ends, and answers
leave by each request's response sender. It is double buffering: one batch runs and one waits, never more, so that
Triton forms no batch earlier than one run ahead (its guide warns of backends that return at once).

A batch that comes alone is run by `execute` itself: the other thread would only cost it a change of threads, and
Triton takes the time that `execute` takes for the time that the model took. So is every batch where there is one CPU:
reading and running take turns on it anyway.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import triton_python_backend_utils as pb_utils

Responses: TypeAlias = list[Any]

# Batches in a row that came sooner after the one before than it had run, before it is tried whether one lies ready by
# the end of another. A model that is done sooner than a batch comes has nothing to gain from the thread.
IN_A_ROW: Final = 4
# Batches in a row by whose end none lay ready before the load is held to be over.
NONE_READY: Final = 8


class Batch(NamedTuple):
    """What waits to be run.

    Attributes:
        requests: of the batch. Held until they are answered: their arrays are views of memory that goes with them.
        run: gives a response for each request, in order.
        begun: set when it is this batch's turn.
    """

    requests: Sequence[Any]
    run: Callable[[], Responses]
    begun: threading.Event


class Answered(NamedTuple):
    """What waits to be sent: a response for each request, in order."""

    requests: Sequence[Any]
    responses: Responses


class BatchRunner:
    """Runs batches one at a time and in order, by itself or on a thread; a second thread sends what that one gave.

    Args:
        cpus: how many this process and tritonserver share.
        now: seconds of a monotonic clock.
    """

    def __init__(self, cpus: int, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._side_by_side = cpus > 1
        self._soon = 0
        self._tries = 0
        self._ran_s = 0.0
        self._ended = now()
        self._idle = threading.Event()
        self._idle.set()
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._answered: queue.SimpleQueue[Answered | None] = queue.SimpleQueue()
        # Daemons: a stub whose server died must end.
        self._running = threading.Thread(target=self._run_all, daemon=True)
        self._sending = threading.Thread(target=self._send_all, daemon=True)
        self._running.start()
        self._sending.start()

    def answer(self, requests: Sequence[Any], run: Callable[[], Responses]) -> Responses:
        """What `execute` returns for a batch: its responses, or None for each, where they are sent when it ends.

        Returns when the batch has ended, or when its turn has come on the thread.

        Args:
            requests: a Triton batch.
            run: gives a response for each request, in order; called once.
        """
        if not self._loaded():
            began = self._now()
            responses = _responses(requests, run)
            self._ended = self._now()
            self._ran_s = self._ended - began
            return responses
        batch = Batch(requests, run, threading.Event())
        self._batches.put(batch)
        batch.begun.wait()
        return [None] * len(requests)

    def _loaded(self) -> bool:
        if not self._idle.is_set() or self._tries:
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
        while (batch := self._batches.get()) is not None:
            self._idle.clear()
            batch.begun.set()
            answered = Answered(batch.requests, _responses(batch.requests, batch.run))
            ready = not self._batches.empty()
            self._tries = NONE_READY if ready else max(0, self._tries - 1)
            # The other thread costs more than the sending does: it is worth it where a batch waits.
            if ready:
                self._answered.put(answered)
            else:
                self._ended = self._now()
                self._idle.set()
                _send(answered)
            del batch, answered  # or their memory would wait for the next batch

    def _send_all(self) -> None:
        while (answered := self._answered.get()) is not None:
            _send(answered)
            del answered


def _responses(requests: Sequence[Any], run: Callable[[], Responses]) -> Responses:
    try:
        return run()
    except Exception as error:
        # No request goes without an answer, and the thread goes on.
        failure = pb_utils.TritonError(repr(error), pb_utils.TritonError.INTERNAL)
        return [pb_utils.InferenceResponse(error=failure) for _ in requests]


def _send(answered: Answered) -> None:
    for request, response in zip(answered.requests, answered.responses, strict=True):
        try:
            request.get_response_sender().send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except Exception as error:
            pb_utils.Logger.log_error(f"a response could not be sent: {error!r}")
