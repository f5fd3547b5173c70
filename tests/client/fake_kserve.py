"""A KServe server for tests: real gRPC on a free port, with every next answer written down in advance."""

# ruff: noqa: N802 - gRPC names the methods

import threading
from collections import deque
from concurrent import futures
from dataclasses import dataclass, field
from typing import Self

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

CALL_THREADS = 16
# Only bounds a broken test; nothing waits this long when all is well.
PATIENCE_S = 30


@dataclass(frozen=True)
class Refuse:
    """End the call with a status, as the scheduler does."""

    code: grpc.StatusCode
    message: str = "refused"
    pushback_ms: int | None = None
    reason: str | None = None
    trailers: tuple[tuple[str, str | bytes], ...] = ()

    def all_trailers(self):
        named = (("grpc-retry-pushback-ms", self.pushback_ms), ("fairlane-reason", self.reason))
        return (*((key, str(value)) for key, value in named if value is not None), *self.trailers)


@dataclass(frozen=True)
class Answer:
    """End the call well, with this response."""

    response: pb.ModelInferResponse


@dataclass(frozen=True)
class Hang:
    """Never answer; `started` is set when the call is there, `ended` when the client gave it up."""

    started: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Seen:
    """One inference as it reached the server; `left_s` is what remained of its deadline, None for no deadline."""

    request: pb.ModelInferRequest
    metadata: dict[str, str]
    left_s: float | None


class FakeKServe(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Plays `script` from the left, then echoes: every input comes back as the output of its name."""

    def __init__(self, port=0):
        self.script = deque()
        self.seen: list[Seen] = []
        self.server_ready = True
        self._pool = futures.ThreadPoolExecutor(CALL_THREADS)
        self._server = grpc.server(self._pool)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(grace=None).wait(PATIENCE_S)
        self._pool.shutdown()

    def play(self, *steps):
        self.script.extend(steps)

    def ModelInfer(self, request, context):
        left_s = context.time_remaining()
        self.seen.append(Seen(request, dict(context.invocation_metadata()), left_s))
        match self.script.popleft() if self.script else None:
            case Refuse() as refuse:
                context.set_trailing_metadata(refuse.all_trailers())
                context.abort(refuse.code, refuse.message)
            case Hang() as hang:
                if context.add_callback(hang.ended.set):
                    hang.started.set()
                    hang.ended.wait(PATIENCE_S)
                return pb.ModelInferResponse()
            case Answer(response):
                return response
        return echo(request)

    def ServerLive(self, request, context):
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, request, context):
        return pb.ServerReadyResponse(ready=self.server_ready)

    def ModelReady(self, request, context):
        return pb.ModelReadyResponse(ready=request.name == "echo")

    def ModelMetadata(self, request, context):
        if request.name != "echo":
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {request.name!r}")
        tensor = pb.ModelMetadataResponse.TensorMetadata(name="x", datatype="FP32", shape=[-1, 3])
        return pb.ModelMetadataResponse(
            name="echo", versions=["1", "2"], platform="fake", inputs=[tensor], outputs=[tensor]
        )


def echo(request):
    response = pb.ModelInferResponse(
        model_name=request.model_name,
        model_version=request.model_version or "1",
        id=request.id,
        raw_output_contents=request.raw_input_contents,
    )
    for tensor in request.inputs:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    return response
