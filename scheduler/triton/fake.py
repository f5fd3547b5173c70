"""A Triton without models: for tests of what stands in front of it. It passes the contract tests of the real one.

It answers the RPCs that Fairlane uses, from models that are Python functions. Calls can be held at the
backend, failed and counted, which a real server does not let a test do.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import numpy as np
import numpy.typing as npt
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

Tensors = dict[str, npt.NDArray[Any]]

DTYPES: Final[dict[str, type[np.generic]]] = {"INT64": np.int64, "FP32": np.float32}


def identity(tensors: Tensors) -> Tensors:
    """OUTPUT is INPUT."""
    return {"OUTPUT": tensors["INPUT"]}


@dataclass(frozen=True, slots=True)
class FakeModel:
    """One model: named like its real counterpart, computing with `compute`.

    Attributes:
        name: of the model.
        max_batch_size: 0: no batch dimension.
        instances: as told in the model's config; the fake itself runs everything at once.
        datatype: of INPUT and OUTPUT; INT64 or FP32.
        dims: of INPUT and OUTPUT without the batch dimension.
        stateful: whether its config has a sequence batcher.
        compute: input tensors to output tensors; raises ValueError for content it does not take.
        tell: input tensors to the answer's own parameters; models of Triton's C API may give some, Python ones of
            release 24.10 may not.
    """

    name: str
    max_batch_size: int = 8
    instances: int = 1
    datatype: str = "INT64"
    dims: tuple[int, ...] = (-1,)
    stateful: bool = False
    compute: Callable[[Tensors], Tensors] = field(default=identity)
    tell: Callable[[Tensors], dict[str, int]] = field(default=lambda _: {})


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """An in-process `GRPCInferenceService` on a free loopback port.

    Attributes:
        models: by name; may be changed while it runs.
        requests: every ModelInfer request, in order of arrival.
        metadata: of each of these calls.
        in_flight: requests that are at the backend now.
        failures: (code, message) to answer the next calls with, taken from the front.
        version: that it says to be of; one whose calls may be cancelled (uncancelled.py).
    """

    version = "2.57.0"

    def __init__(self, models: Sequence[FakeModel]) -> None:
        self.models = {model.name: model for model in models}
        self.requests: list[Any] = []
        self.metadata: list[list[tuple[str, str | bytes]]] = []
        self.in_flight: list[Any] = []
        self.failures: list[tuple[grpc.StatusCode, str]] = []
        self._server: grpc.aio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._going = asyncio.Event()
        self._going.set()
        self._changed = asyncio.Condition()

    async def start(self) -> str:
        """Listen on a free port; returns HOST:PORT."""
        # As in Triton: no bound on messages.
        unbounded = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._server = grpc.aio.server(options=unbounded)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return f"127.0.0.1:{port}"

    async def stop(self) -> None:
        """End at once, as a killed server does: calls in flight fail."""
        if self._server is not None:
            await self._server.stop(None)

    def hold(self) -> None:
        """Keep every call at the backend until `release`."""
        self._open.clear()

    def release(self) -> None:
        """Let the held calls, and those to come, end."""
        self._open.set()

    def stand_still(self) -> None:
        """Answer nothing, not even whether it lives, until `go_on`: as a stopped process does."""
        self._going.clear()

    def go_on(self) -> None:
        """Answer what has come meanwhile, and what comes."""
        self._going.set()

    async def until(self, condition: Callable[["FakeTriton"], bool]) -> None:
        """Wait until the condition holds; it is looked at whenever a call arrives or ends."""
        async with self._changed:
            await self._changed.wait_for(lambda: condition(self))

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Always live."""
        del request, context
        await self._going.wait()
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Always ready."""
        del request, context
        return service_pb2.ServerReadyResponse(ready=True)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Name and version."""
        del request, context
        return service_pb2.ServerMetadataResponse(name="fake", version=self.version)

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Every model, in version 1, ready."""
        del request, context
        index = service_pb2.RepositoryIndexResponse()
        for name in self.models:
            index.models.add(name=name, version="1", state="READY")
        return index

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Whether there is such a model."""
        del context
        return service_pb2.ModelReadyResponse(ready=request.name in self.models)

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The model's configuration."""
        model = await self._model(request.name, request.version, context)
        config = model_config_pb2.ModelConfig(name=model.name, max_batch_size=model.max_batch_size)
        kind = model_config_pb2.DataType.Value(f"TYPE_{model.datatype}")
        config.input.add(name="INPUT", data_type=kind, dims=model.dims)
        config.output.add(name="OUTPUT", data_type=kind, dims=model.dims)
        config.instance_group.add(count=model.instances, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
        if model.stateful:
            config.sequence_batching.SetInParent()
        elif model.max_batch_size:
            config.dynamic_batching.SetInParent()
        return service_pb2.ModelConfigResponse(config=config)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The model's inputs and outputs."""
        model = await self._model(request.name, request.version, context)
        shape = [-1, *model.dims] if model.max_batch_size else list(model.dims)
        reply = service_pb2.ModelMetadataResponse(name=model.name, versions=["1"], platform="fake")
        reply.inputs.add(name="INPUT", datatype=model.datatype, shape=shape)
        reply.outputs.add(name="OUTPUT", datatype=model.datatype, shape=shape)
        return reply

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Compute, once the call is let go."""
        await self._going.wait()
        model = await self._model(request.model_name, request.model_version, context)
        self.requests.append(request)
        self.metadata.append(list(context.invocation_metadata() or ()))
        self.in_flight.append(request)
        await self._notify()
        try:
            await self._open.wait()
            if self.failures:
                await context.abort(*self.failures.pop(0))
            return await self._compute(model, request, context)
        finally:
            self.in_flight.remove(request)
            await self._notify()

    async def _compute(self, model: FakeModel, request: Any, context: Any) -> Any:
        try:
            outputs = model.compute(self._decode(request))
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        reply = service_pb2.ModelInferResponse(model_name=model.name, model_version="1", id=request.id)
        for name, value in model.tell(self._decode(request)).items():
            reply.parameters[name].int64_param = value
        for name, array in outputs.items():
            reply.outputs.add(name=name, datatype=model.datatype, shape=array.shape)
            reply.raw_output_contents.append(array.tobytes())
        return reply

    @staticmethod
    def _decode(request: Any) -> Tensors:
        if not request.raw_input_contents:
            return {
                tensor.name: np.array(
                    tensor.contents.ListFields()[0][1] if tensor.contents.ListFields() else [],
                    dtype=DTYPES[tensor.datatype],
                ).reshape(tuple(tensor.shape))
                for tensor in request.inputs
            }
        return {
            tensor.name: np.frombuffer(raw, dtype=DTYPES[tensor.datatype]).reshape(tuple(tensor.shape))
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }

    async def _model(self, name: str, version: str, context: Any) -> FakeModel:
        if name not in self.models or version not in {"", "1"}:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found")
        return self.models[name]

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
