"""Sends the requests of one stream and books how each of them ends."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from bench.http2.connection import CallStatus, Http2Connection
from bench.http2.service import SERVICE
from bench.load.job import Job
from bench.load.payload import infer_request
from bench.load.request_mix import Request
from bench.recording.outcome import Outcome, has_pushback, outcome_of
from bench.recording.recording import Recorder

CONNECT_TIMEOUT_S: Final = 20.0


class Prepared(NamedTuple):
    """A request's bytes, and how long it has; None: as long as it takes."""

    body: bytes
    deadline_ms: float | None


class Sender:
    """One connection, and prepared requests in turn. Answers are not parsed, to keep the generator cheap.

    Attributes:
        recorder: what was measured so far.
    """

    def __init__(self, connection: Http2Connection, job: Job, requests: Sequence[Prepared]) -> None:
        self.recorder = Recorder(job.duration_s, job.stream.deadline_ms)
        self._connection = connection
        self._most = job.stream.max_outstanding
        self._requests = requests
        self._start_s = 0.0
        self._drained = asyncio.Event()

    @classmethod
    async def prepare(cls, job: Job) -> "Sender":
        """Wait for the server, ask it for the model's inputs, and build the requests.

        Raises:
            TimeoutError: no connection within 20 s.
            grpc.aio.AioRpcError: the server does not serve the model.
        """
        stream = job.stream
        requests = _prepared(job, await _inputs(job))
        timeout_s = None if stream.deadline_ms is None else stream.deadline_ms / 1e3
        connecting = Http2Connection.connect(
            job.target, f"{SERVICE}/ModelInfer", stream.metadata(), timeout_s=timeout_s
        )
        return cls(await asyncio.wait_for(connecting, CONNECT_TIMEOUT_S), job, requests)

    def begin(self, start_s: float) -> None:
        """Set the monotonic time that is zero in the recording."""
        self._start_s = start_s

    def now_s(self) -> float:
        """Seconds since the start of the run."""
        return time.monotonic() - self._start_s

    def fire(self, due_s: Sequence[float]) -> None:
        """Send a request for each due time in one write, without waiting.

        Beyond the bound on outstanding ones they are booked only.
        """
        numbers = [self.recorder.arrive(due) for due in due_s]
        self._send(numbers[: max(0, self._most - self._connection.outstanding)])

    async def request(self, number: int) -> None:
        """Send one booked request and wait for its end."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._send([number], done)
        await done

    async def drained(self, timeout_s: float) -> None:
        """Wait until nothing is outstanding, or that long."""
        self._drained.clear()
        if self._connection.outstanding:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), timeout_s)

    def close(self) -> None:
        """Give up on what is outstanding: it stays unanswered."""
        self._connection.close()

    def _send(self, numbers: Sequence[int], done: asyncio.Future[None] | None = None) -> None:
        now_s = self.now_s()
        if len(self._requests) == 1:
            for number in numbers:
                self.recorder.send(number, now_s)
            self._connection.call(self._requests[0].body, [partial(self._ended, number, done) for number in numbers])
            return
        for number in numbers:
            body, deadline_ms = self._requests[number % len(self._requests)]
            self.recorder.send(number, now_s, deadline_ms)
            timeout_s = None if deadline_ms is None else deadline_ms / 1e3
            self._connection.call(body, [partial(self._ended, number, done)], timeout_s=timeout_s)

    def _ended(self, number: int, done: asyncio.Future[None] | None, end: CallStatus) -> None:
        outcome = outcome_of(end)
        if outcome is Outcome.OK:
            self.recorder.finish(number, self.now_s(), outcome)
        else:
            self.recorder.finish(number, self.now_s(), outcome, pushback=has_pushback(end))
            self.recorder.failed(end.code.name, end.details)
        if done is not None and not done.done():
            done.set_result(None)
        if not self._connection.outstanding:
            self._drained.set()


def _prepared(job: Job, inputs: Any) -> list[Prepared]:
    """The requests of the stream; each body is built once."""
    stream = job.stream
    drawn = [Request(stream.rows, stream.seq, stream.deadline_ms)]
    if stream.mix is not None:
        drawn = stream.mix.draw(drawn[0], job.seed, job.name)
    bodies: dict[tuple[int, int], bytes] = {}
    for rows, seq, _ in drawn:
        if (rows, seq) not in bodies:
            one = stream.model_copy(update={"rows": rows, "seq": seq})
            bodies[rows, seq] = infer_request(one, inputs, seed=job.seed, priority=job.triton_priority)
    return [Prepared(bodies[rows, seq], deadline_ms) for rows, seq, deadline_ms in drawn]


async def _inputs(job: Job) -> Any:
    async with grpc.aio.insecure_channel(job.target) as channel:
        await asyncio.wait_for(channel.channel_ready(), CONNECT_TIMEOUT_S)
        stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = service_pb2.ModelMetadataRequest(name=job.stream.model)
        return await stub.ModelMetadata(request, metadata=job.stream.metadata(), timeout=CONNECT_TIMEOUT_S)
