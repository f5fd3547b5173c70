"""Calls that are not inference: to one ready backend, to all of them, or to the only one."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import grpc

from scheduler.edge.statistics import QueueTimes, summed
from scheduler.errors import RequestError, no_backend, unsupported
from scheduler.triton.answer import parsed
from scheduler.triton.catalog import Catalog
from scheduler.triton.pool import Pool

# A metadata call that Triton has not answered by then will not be.
RELAY_TIMEOUT_S: Final = 10.0
# Loading a model reads and warms it up; a client's own deadline is the sooner one where it sets any.
LOAD_TIMEOUT_S: Final = 600.0
# After these a model may be there that was not there before, or not be there any longer.
CHANGING: Final = frozenset({"RepositoryModelLoad", "RepositoryModelUnload"})


class Relay:
    """Calls to the backends' own RPCs.

    A backend's own error comes out as the `grpc.aio.AioRpcError` that it is.
    """

    def __init__(self, pool: Pool, catalog: Catalog) -> None:
        self._pool = pool
        self._catalog = catalog

    async def to_one(self, method: str, request: Any) -> Any:
        """Ask a ready backend, and the next one where it has gone; where the request names a model, one that serves it.

        Raises:
            RequestError: UNAVAILABLE, where none is ready.
        """
        *others, last = self._asked(request)
        for backend in others:
            try:
                return await self._call(backend, method, request, RELAY_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
        return await self._call(last, method, request, RELAY_TIMEOUT_S)

    async def to_all(self, method: str, request: Any, remaining_s: float | None) -> Any:
        """Ask every backend, ready or not: all must agree.

        Args:
            method: name of the RPC.
            request: its message.
            remaining_s: what is left of the client's deadline, None where it set none.

        Returns:
            The answer of the first backend; all answered.

        Raises:
            RequestError: some backend did not do it; with its code, and each backend's answer in the message.
        """
        names = self._pool.names()
        if not names:
            raise no_backend("no backend is connected")
        limit_s = LOAD_TIMEOUT_S if method in CHANGING else RELAY_TIMEOUT_S
        timeout_s = limit_s if remaining_s is None else min(limit_s, remaining_s)
        calls = (self._call(name, method, request, timeout_s) for name in names)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        if method in CHANGING:
            for name, answer in zip(names, answers, strict=True):
                self._catalog.loaded_by_hand(name, request.model_name, _refused(answer))
            await self._catalog.refresh(whole=True)
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        if not errors:
            return answers[0]
        if len(names) == 1:
            raise errors[0]
        raise _disagreement(method, names, answers)

    async def to_only(self, method: str, request: Any) -> Any:
        """Ask the only backend.

        Raises:
            RequestError: UNIMPLEMENTED, where there are several: a region lies in one machine's memory, and which
                backend a request goes to is decided anew for each.
        """
        names = self._pool.names()
        if len(names) > 1:
            raise unsupported(
                f"{method}: there are {len(names)} backends ({', '.join(names)}), and a request may go to any; "
                "shared memory needs exactly one"
            )
        if not names:
            raise no_backend("no backend is connected")
        return await self._call(names[0], method, request, RELAY_TIMEOUT_S)

    async def statistics(self, request: Any, queue_times: QueueTimes) -> Any:
        """Statistics of all ready backends that are there, added up; of a model, those that serve it.

        Raises:
            RequestError: UNAVAILABLE, where none is ready.
        """
        calls = (self._call(name, "ModelStatistics", request, RELAY_TIMEOUT_S) for name in self._asked(request))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        told = [answer for answer in answers if not isinstance(answer, BaseException)]
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        gone = [error for error in errors if _code(error) is grpc.StatusCode.UNAVAILABLE]
        if errors and not (told and len(gone) == len(errors)):
            raise next((error for error in errors if error not in gone), errors[0])
        return summed(told, queue_times)

    def _asked(self, request: Any) -> list[str]:
        """The ready backends that serve the model that the request names; one that tells where there are none."""
        ready = self._catalog.ready()
        if not ready:
            raise no_backend("no backend is ready")
        name = getattr(request, "name", "")
        if not name:
            return ready
        return [each for each in ready if self._catalog.serves(each, name)] or ready[:1]

    async def _call(self, backend: str, method: str, request: Any, timeout_s: float) -> Any:
        if backend not in self._pool.names():
            raise no_backend(f"backend {backend} was let go")
        return parsed(await getattr(self._pool.stub(backend), method)(request, timeout=timeout_s))


def _code(error: BaseException) -> grpc.StatusCode | None:
    return error.code() if isinstance(error, grpc.aio.AioRpcError) else None


def _refused(answer: Any) -> str | None:
    """What a backend that is there had against it; None where it did as asked."""
    if not isinstance(answer, grpc.aio.AioRpcError) or answer.code() in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ):
        return None
    return answer.details() or answer.code().name


def _disagreement(method: str, names: Sequence[str], answers: Sequence[Any]) -> RequestError:
    """One error that tells what each backend said."""
    told = []
    code = None
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, grpc.aio.AioRpcError):
            code = code or answer.code()
            told.append(f"{name}: {answer.code().name}: {answer.details()}")
        elif isinstance(answer, BaseException):
            told.append(f"{name}: {type(answer).__name__}")
        else:
            told.append(f"{name}: done")
    message = f"{method}: not all backends agree: {'; '.join(told)}"
    return RequestError(code or grpc.StatusCode.UNAVAILABLE, "BACKENDS_DISAGREE", message)
