"""Sends the requests of one stream and books how each of them ends."""

import asyncio
import time
from typing import Any, Final

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2

from bench.outcome import has_pushback, outcome_of
from bench.payload import infer_request
from bench.samples import Recorder
from bench.stream import Stream

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

    def __init__(self, channel: grpc.aio.Channel, stream: Stream, body: bytes) -> None:
        self.recorder = Recorder()
        self.pending: set[asyncio.Task[None]] = set()
        self._stream = stream
        self._body = body
        self._metadata = stream.metadata()
        self._timeout_s = None if stream.deadline_ms is None else stream.deadline_ms / 1e3
        # Without serializers gRPC passes bytes through as they are.
        self._infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{SERVICE}/ModelInfer")
        self._start_s = 0.0

    @classmethod
    async def prepare(cls, channel: grpc.aio.Channel, stream: Stream, *, seed: int) -> "Sender":
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
        request = service_pb2.ModelMetadataRequest(name=stream.model)
        metadata = await ask(request, metadata=stream.metadata(), timeout=CONNECT_TIMEOUT_S)
        return cls(channel, stream, infer_request(stream, metadata, seed=seed))

    def begin(self, start_s: float) -> None:
        """Set the monotonic time that is zero in the samples."""
        self._start_s = start_s

    def now_s(self) -> float:
        """Seconds since the start of the run."""
        return time.monotonic() - self._start_s

    def fire(self, due_s: float) -> None:
        """Send a request that was due then, without waiting; beyond the bound on outstanding ones, only book it."""
        index = self.recorder.arrive(due_s)
        if len(self.pending) >= self._stream.max_outstanding:
            return
        task = asyncio.create_task(self.request(index))
        self.pending.add(task)
        task.add_done_callback(self.pending.discard)

    async def request(self, index: int) -> None:
        """Send one booked request and book its end. A cancelled one stays unanswered."""
        recorder = self.recorder
        recorder.send(index, self.now_s())
        try:
            await self._infer(self._body, metadata=self._metadata, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            self._failed(index, error)
        else:
            recorder.finish(index, self.now_s(), outcome_of(grpc.StatusCode.OK))

    def _failed(self, index: int, error: grpc.aio.AioRpcError) -> None:
        recorder, code = self.recorder, error.code()
        recorder.finish(index, self.now_s(), outcome_of(code), pushback=has_pushback(error))
        recorder.errors[code.name] = recorder.errors.get(code.name, 0) + 1
        if not recorder.first_error:
            recorder.first_error = f"{code.name}: {error.details()}"
