"""Sends the requests of one stream and books how each of them ends."""

import asyncio
import time
from typing import Any, Final

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2

from bench.outcome import Outcome, has_pushback, outcome_of
from bench.payload import infer_request
from bench.recording import Recorder
from bench.stream import Job

SERVICE: Final = "/inference.GRPCInferenceService"
CONNECT_TIMEOUT_S: Final = 20.0

CHANNEL_OPTIONS: Final = (
    # A refusal has to reach the measurement, and the retry filter costs CPU on every call.
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1),
)


class Sender:
    """One channel, one prepared request. Answers are taken as bytes and not parsed, to keep the generator cheap.

    Attributes:
        recorder: what was measured so far.
        pending: tasks of requests that are outstanding.
    """

    def __init__(self, channel: grpc.aio.Channel, job: Job, body: bytes) -> None:
        stream = job.stream
        self.recorder = Recorder(job.duration_s, stream.deadline_ms)
        self.pending: set[asyncio.Task[None]] = set()
        self._stream = stream
        self._body = body
        self._metadata = stream.metadata()
        self._timeout_s = None if stream.deadline_ms is None else stream.deadline_ms / 1e3
        # Without serializers gRPC passes bytes through as they are.
        self._infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{SERVICE}/ModelInfer")
        self._start_s = 0.0

    @classmethod
    async def prepare(cls, channel: grpc.aio.Channel, job: Job) -> "Sender":
        """Wait for the server, ask it for the model's inputs, and build the request.

        Raises:
            TimeoutError: no connection within 20 s.
            grpc.aio.AioRpcError: the server does not serve the model.
        """
        await asyncio.wait_for(channel.channel_ready(), CONNECT_TIMEOUT_S)
        ask: Any = channel.unary_unary(
            f"{SERVICE}/ModelMetadata",
            request_serializer=service_pb2.ModelMetadataRequest.SerializeToString,
            response_deserializer=service_pb2.ModelMetadataResponse.FromString,
        )
        request = service_pb2.ModelMetadataRequest(name=job.stream.model)
        metadata = await ask(request, metadata=job.stream.metadata(), timeout=CONNECT_TIMEOUT_S)
        return cls(channel, job, infer_request(job.stream, metadata, seed=job.seed, priority=job.triton_priority))

    def begin(self, start_s: float) -> None:
        """Set the monotonic time that is zero in the recording."""
        self._start_s = start_s

    def now_s(self) -> float:
        """Seconds since the start of the run."""
        return time.monotonic() - self._start_s

    def fire(self, due_s: float) -> None:
        """Send a request that was due then, without waiting; beyond the bound on outstanding ones, only book it."""
        number = self.recorder.arrive(due_s)
        if len(self.pending) >= self._stream.max_outstanding:
            return
        task = asyncio.create_task(self.request(number))
        self.pending.add(task)
        task.add_done_callback(self.pending.discard)

    async def request(self, number: int) -> None:
        """Send one booked request and book its end. A cancelled one stays unanswered."""
        self.recorder.send(number, self.now_s())
        try:
            await self._infer(self._body, metadata=self._metadata, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            self.recorder.finish(number, self.now_s(), outcome_of(error), pushback=has_pushback(error))
            self.recorder.failed(error.code().name, error.details())
        else:
            self.recorder.finish(number, self.now_s(), Outcome.OK)
