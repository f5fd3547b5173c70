"""Callers of one kind of request: in a closed loop, and at random moments as a person is."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Final

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2

from bench.http2.connection import CallStatus, Http2Connection
from bench.http2.service import SERVICE
from bench.kinds.kind import Kind

CONNECTIONS: Final = 4
TIMEOUT_S: Final = 30.0
# After an error a caller waits: an endless loop of refusals would measure itself.
PAUSE_S: Final = 0.05


@dataclass
class LoadResult:
    """What came of some seconds of load.

    Attributes:
        answers: in time and without error.
        seconds: from the first request to the end of the last second asked for.
        latencies_ms: of the answers.
        errors: how often each kind of error came.
    """

    answers: int = 0
    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds if self.seconds else 0.0


class Callers:
    """Connections to one server, for requests of one kind and class.

    Args:
        kind: of the requests.
        traffic_class: None where the server knows no classes.
        base: number of the first caller, so that two loads have sequences of their own.
    """

    def __init__(self, kind: Kind, traffic_class: str | None, base: int = 0) -> None:
        self._kind, self._class, self._base = kind, traffic_class, base
        self._numbers: Counter[int] = Counter()
        self._connections: list[Http2Connection] = []
        self._stack = AsyncExitStack()
        self._stream: Any = None

    async def connect(self, address: str) -> "Callers":
        """Open the connections to HOST:PORT."""
        if self._kind.streamed:
            channel = await self._stack.enter_async_context(grpc.aio.insecure_channel(address))
            self._stream = channel.stream_stream(
                f"{SERVICE}/ModelStreamInfer", response_deserializer=service_pb2.ModelStreamInferResponse.FromString
            )
            return self
        for place in range(max(CONNECTIONS, self._kind.tenants)):
            connection = await Http2Connection.connect(
                address, f"{SERVICE}/ModelInfer", self._metadata(place), timeout_s=TIMEOUT_S
            )
            self._stack.callback(connection.close)
            self._connections.append(connection)
        return self

    async def close(self) -> None:
        """Close the connections."""
        await self._stack.aclose()

    async def closed_loop(self, callers: int, seconds: float) -> LoadResult:
        """So many callers, each with one request outstanding."""
        outcome = LoadResult(seconds=seconds)
        until = time.monotonic() + seconds
        await asyncio.gather(*(self._loop(caller, until, outcome) for caller in range(callers)))
        return outcome

    async def paced(self, per_s: float, seconds: float, seed: int) -> LoadResult:
        """Requests at random moments (Poisson), whatever is outstanding; latencies count from the moment due."""
        chance, outcome, begin = Random(seed), LoadResult(seconds=seconds), time.monotonic()  # noqa: S311
        due, people = begin, 0
        calls: list[asyncio.Future[None]] = []
        idle: list[int] = []
        while (due := due + chance.expovariate(per_s)) < begin + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            # A sequence has one request at a time: while one person waits for an answer, the next is another's.
            if not idle:
                idle.append(people)
                people += 1
            caller = idle.pop()
            call = asyncio.ensure_future(self._once(caller, due, outcome))
            call.add_done_callback(partial(_append, idle, caller))
            calls.append(call)
        await asyncio.gather(*calls)
        return outcome

    def _metadata(self, caller: int) -> tuple[tuple[str, str], ...]:
        priority = () if self._class is None else (("x-priority", self._class),)
        return (*priority, ("x-tenant-id", f"tenant-{caller % self._kind.tenants}"))

    async def _loop(self, caller: int, until: float, outcome: LoadResult) -> None:
        while (now := time.monotonic()) < until:
            counted = LoadResult()
            await self._once(caller, now, counted)
            if time.monotonic() < until:
                outcome.answers += counted.answers
            outcome.latencies_ms += counted.latencies_ms
            outcome.errors += counted.errors
            if counted.errors:
                await asyncio.sleep(PAUSE_S)

    async def _once(self, caller: int, since: float, outcome: LoadResult) -> None:
        caller += self._base
        body = self._kind.request(caller, self._numbers[caller])
        self._numbers[caller] += 1
        error = await (self._streamed(caller, body) if self._kind.streamed else self._unary(caller, body))
        if error:
            outcome.errors[error] += 1
            return
        outcome.answers += 1
        outcome.latencies_ms.append((time.monotonic() - since) * 1e3)

    async def _unary(self, caller: int, body: bytes) -> str:
        done: asyncio.Future[CallStatus] = asyncio.get_running_loop().create_future()
        self._connections[caller % len(self._connections)].call(body, [_tell(done)])
        end = await done
        return "" if end.code is grpc.StatusCode.OK else f"{end.code.name}: {end.details[:80]}"

    async def _streamed(self, caller: int, body: bytes) -> str:
        call = self._stream(metadata=self._metadata(caller), timeout=TIMEOUT_S)
        try:
            await call.write(body)
            await call.done_writing()
            async for message in call:
                if message.error_message:
                    return str(message.error_message)[:80]
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {(error.details() or '')[:80]}"
        return ""


def _append(idle: list[int], caller: int, _: object) -> None:
    idle.append(caller)


def _tell(done: "asyncio.Future[CallStatus]") -> Callable[[CallStatus], None]:
    def tell(end: CallStatus) -> None:
        if not done.done():
            done.set_result(end)

    return tell
