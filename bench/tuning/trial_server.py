"""One Triton that serves a model with one setting after the other, by its model control API."""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import grpc.aio
from google.protobuf import json_format
from tritonclient.grpc import service_pb2, service_pb2_grpc

from bench.http2.service import SERVICE
from bench.load.input_range import with_accepted_range
from bench.load.loops import SATURATING_OUTSTANDING
from bench.load.payload import infer_request
from bench.load.stream import Stream
from bench.measuring.metric import STREAM_METRICS
from bench.tuning.setting import Setting
from bench.tuning.single_stream import run_single_stream
from bench.tuning.trial import Trial, trial_of
from scheduler.cpus import TritonCpus
from scheduler.triton.launcher import EmbeddedTriton

LOAD_TIMEOUT_S: Final = 120.0
POLL_S: Final = 0.05
ANY_SIZE: Final = ("grpc.max_receive_message_length", -1)
WARMUP_WAVES: Final = 2  # of SATURATING_OUTSTANDING requests at once: each instance has run a full batch
CLOSED_LOOP_S: Final = 2.0  # of closed loop


class TrialError(RuntimeError):
    """The server does not serve what was to be tried; the message has its reason."""


class TrialServer:
    """A server for trials. An async context.

    Args:
        models: repository with the model alone; stays as it is. Recordings go beside it.
        config: the model's ModelConfig message.
        stream: what a request is.
        seed: of arrivals and request values.
        cpus: of the server and the models; None: all that this process may use.
    """

    def __init__(self, models: Path, config: Any, stream: Stream, seed: int, cpus: TritonCpus | None = None) -> None:
        self._config = config
        self._stream = stream
        self._fits = False
        self._seed = seed
        self._recording = models.with_name("recording.json")
        self._triton = EmbeddedTriton(models, cpus=cpus)
        self._address = ""
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        self._address = (await self._triton.start()).grpc
        self._channel = grpc.aio.insecure_channel(self._address, options=[ANY_SIZE])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None:
            await self._channel.close()
        await self._triton.stop(grace_s=0.0)

    async def closed_loop_per_s(self, setting: Setting) -> float:
        """Requests per second that a setting answers of a closed loop.

        Raises:
            TrialError: it does not load, or does not answer.
        """
        await self._serve(setting)
        return STREAM_METRICS["ok_per_s"](await self._run_stream(None, CLOSED_LOOP_S))

    async def trial(self, setting: Setting, rate_per_s: float, seconds: float) -> Trial:
        """One open-loop run of a setting, on a model freshly loaded: nobody pays for the backlog of the run before.

        Raises:
            TrialError: it does not load, or does not answer.
        """
        await self._serve(setting)
        return trial_of(rate_per_s, await self._run_stream(rate_per_s, seconds))

    async def _run_stream(self, rate_per_s: float | None, seconds: float) -> Any:
        out, seed = self._recording, self._seed
        return await run_single_stream(
            self._address, self._stream, rate_per_s=rate_per_s, seconds=seconds, seed=seed, out=out
        )

    async def _serve(self, setting: Setting) -> None:
        """Load the model with a setting, once what was served before is gone, and warm it up."""
        stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        try:
            await self._unload(stub)
            await self._load(stub, setting)
            if not self._fits:
                self._stream, self._fits = await with_accepted_range(self._address, self._stream, seed=self._seed), True
            about = service_pb2.ModelMetadataRequest(name=self._stream.model)
            metadata = await stub.ModelMetadata(about, timeout=LOAD_TIMEOUT_S)
            await self._warm_up(infer_request(self._stream, metadata, seed=self._seed))
        except (grpc.aio.AioRpcError, TimeoutError, ValueError) as error:
            why = error.details() if isinstance(error, grpc.aio.AioRpcError) else error or "no answer"
            raise TrialError(f"{self._stream.model} with {setting}: {why}") from error

    async def _unload(self, stub: Any) -> None:
        unload = service_pb2.RepositoryModelUnloadRequest(model_name=self._stream.model)
        await stub.RepositoryModelUnload(unload, timeout=LOAD_TIMEOUT_S)
        async with asyncio.timeout(LOAD_TIMEOUT_S):
            while not await self._is_gone(stub):  # noqa: ASYNC110 - the event is in another process
                await asyncio.sleep(POLL_S)

    async def _load(self, stub: Any, setting: Setting) -> None:
        load = service_pb2.RepositoryModelLoadRequest(model_name=self._stream.model)
        load.parameters["config"].string_param = json_format.MessageToJson(setting.applied(self._config))
        await stub.RepositoryModelLoad(load, timeout=LOAD_TIMEOUT_S)

    async def _warm_up(self, body: bytes) -> None:
        assert self._channel is not None
        infer: Any = self._channel.unary_unary(f"{SERVICE}/ModelInfer")
        for _ in range(WARMUP_WAVES):
            await asyncio.gather(*(infer(body, timeout=LOAD_TIMEOUT_S) for _ in range(SATURATING_OUTSTANDING)))

    async def _is_gone(self, stub: Any) -> bool:
        index = await stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), timeout=LOAD_TIMEOUT_S)
        return all(one.state in ("", "UNAVAILABLE") for one in index.models)
