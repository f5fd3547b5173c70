"""The models of a repository, loaded one by one into an embedded tritonserver that starts without any.

A model that does not load, that blocks, or that takes the whole server down while it loads then takes no other along:

- what an earlier server served is loaded first;
- what fails is named with Triton's reason;
- what takes longer than SLOW_S is not waited for, and served when it is loaded;
- what was being loaded when the server ended, or had just been, is loaded apart by the next one: after all others, one
  at a time. Where the server ends CRASHES times while a model is loaded apart, that one is left out, until its files
  change or somebody loads it.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import grpc
from tritonclient.grpc import service_pb2

from scheduler.triton import launcher_log
from scheduler.triton.model_folder import ModelFolder, folders
from scheduler.triton.unserved import LOADING, Unserved, load_failure, plain

log = logging.getLogger(__name__)

# As many as Triton itself loads at a time on two CPUs.
AT_A_TIME: Final = 4
SLOW_S: Final = 10.0
# One may be an accident: the system was out of memory, or somebody killed the server.
CRASHES: Final = 2
# A server that a model ends may say before that it has loaded it.
SETTLE_S: Final = 0.5
# What a load ends with when its server has gone.
GONE: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
# Triton's log comes through a pipe; its answer may be here first.
LOG_PATIENCE_S: Final = 0.5
LOG_POLL_S: Final = 0.02


class ModelLoads:
    """What is loaded into each tritonserver that is started on one repository, and what became of it.

    Args:
        repository: of the models.
        log_lines: the end of the server's log.

    Attributes:
        changed: set when a load has ended.
        done: set while all loads have ended.
    """

    def __init__(self, repository: Path, log_lines: Callable[[], list[str]]) -> None:
        self._repository = repository
        self._log_lines = log_lines
        self.changed = asyncio.Event()
        self.done = asyncio.Event()
        self._unserved: dict[str, Unserved] = {}
        # Begun and not ended, in order.
        self._in_progress: dict[str, None] = {}
        # When each was loaded, in the event loop's seconds.
        self._loaded_at: dict[str, float] = {}
        # The one that is being loaded apart, or just was.
        self._apart: str | None = None
        self._calls: set[asyncio.Task[None]] = set()
        # Were being loaded when a server ended, with how often it ended while they were loaded apart.
        self._suspects: Counter[str] = Counter()
        # Were served by an earlier server.
        self._served: set[str] = set()
        # Are not loaded any more, with when their files had changed.
        self._left_out: dict[str, int] = {}

    def unserved(self, served: Collection[str] = ()) -> dict[str, Unserved]:
        """The models of the repository that are not loaded, and why.

        Args:
            served: models that are; what was said of one of them is over, also when it is unloaded later.
        """
        for name in served:
            self._unserved.pop(name, None)
        return {name: about for name, about in self._unserved.items() if (self._repository / name).is_dir()}

    async def run(self, stub: Any) -> None:
        """Load every model into a server that has none; ends when all loads have ended, or the server has.

        Args:
            stub: its `GRPCInferenceServiceStub`.
        """
        self._in_progress.clear()
        self._loaded_at.clear()
        self._apart = None
        self.done.clear()
        try:
            if await self._load_all(stub):
                self.done.set()
        except OSError as error:
            log.error("model repository %s cannot be read: %s", self._repository, error)  # noqa: TRY400
        finally:
            for call in self._calls:
                call.cancel()
            await asyncio.gather(*self._calls, return_exceptions=True)

    def server_ended(self, code: int, served: Collection[str]) -> bool:
        """Draw the conclusions of a server's end.

        Args:
            code: that it ended with.
            served: the models that it had served; they are the next one's first, and what was left out among them has
                been loaded by hand.

        Returns:
            Whether models were being loaded, so that it may have been one of them.
        """
        self._served.update(served)
        for name in served:
            self._left_out.pop(name, None)
        if self._apart is not None:
            self._suspects[self._apart] += 1
            if self._suspects[self._apart] >= CRASHES:
                self._leave_out(self._apart, code)
            return True
        since = asyncio.get_running_loop().time() - SETTLE_S
        loading = [*self._in_progress, *(name for name, loaded_at in self._loaded_at.items() if loaded_at >= since)]
        self._suspects.update(dict.fromkeys(loading, 0))
        for name in loading:
            log.error("embedded Triton ended with %d while it loaded model %r: it is loaded apart now", code, name)
        return bool(loading)

    async def _load_all(self, stub: Any) -> bool:
        """Whether all loads have ended, and the server has not."""
        found = [folder for folder in folders(self._repository) if not self._stays_out(folder)]
        self._unserved = {name: self._unserved[name] for name in self._left_out} | {
            folder.name: LOADING for folder in found
        }
        found.sort(key=self._wave)
        apart = [folder for folder in found if folder.name in self._suspects]
        others = [folder for folder in found if folder.name not in self._suspects]
        gate = asyncio.Semaphore(AT_A_TIME)
        for _, wave in groupby(others, self._wave):
            await asyncio.gather(*(self._load(stub, folder, gate) for folder in wave))
        for folder in apart:
            self._apart = folder.name
            await self._load(stub, folder, gate)
            await asyncio.sleep(SETTLE_S)
            if folder.name not in self._in_progress:
                del self._suspects[folder.name]
        self._apart = None
        while self._calls:
            await asyncio.wait(self._calls, timeout=SLOW_S)
            for name in self._in_progress:
                self._look_for_hint(name)
        return not self._in_progress

    def _wave(self, folder: ModelFolder) -> tuple[bool, bool]:
        """What was served before comes before what may be broken, and an ensemble after what it is made of."""
        return folder.name not in self._served, bool(folder.steps)

    async def _load(self, stub: Any, folder: ModelFolder, gate: asyncio.Semaphore) -> None:
        """Load a model, and wait until it is loaded, has failed, or proves to be slow."""
        async with gate:
            if without := sorted(folder.steps & self._left_out.keys()):
                self._failed(folder.name, f"its step {without[0]} is not loaded: {self._unserved[without[0]].why}")
                return
            call = asyncio.create_task(self._call(stub, folder))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            await asyncio.wait({call}, timeout=SLOW_S)
            if not call.done():
                self._look_for_hint(folder.name)
                log.warning("model %r is not served yet: %s", folder.name, self._unserved[folder.name].why)

    async def _call(self, stub: Any, folder: ModelFolder) -> None:
        name = folder.name
        self._in_progress[name] = None
        try:
            await stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name=name))
        except grpc.aio.AioRpcError as error:
            if error.code() in GONE:
                return  # still in progress, for whoever asks what the server was at when it ended
            self._failed(name, await self._reason(name, error.details() or error.code().name))
        else:
            self._unserved.pop(name, None)
            self._loaded_at[name] = asyncio.get_running_loop().time()
        self._in_progress.pop(name, None)
        self.changed.set()

    def _look_for_hint(self, name: str) -> None:
        """Python may have said what is wrong with a model that Triton waits for without end."""
        if hint := launcher_log.hint(self._log_lines(), self._repository / name):
            self._unserved[name] = Unserved(f"{LOADING.why}: {hint}", loading=True)

    def _failed(self, name: str, why: str) -> None:
        self._unserved[name] = Unserved(why)
        self.changed.set()
        log.error("model %r is not served: %s", name, why)

    async def _reason(self, name: str, details: str) -> str:
        """Triton's reason, from its log where its answer tells none."""
        if not launcher_log.is_poll_failure(details):
            return plain(load_failure(details, name))
        deadline = asyncio.get_running_loop().time() + LOG_PATIENCE_S
        while asyncio.get_running_loop().time() < deadline:
            if found := launcher_log.poll_failure(self._log_lines(), name):
                return plain(found)
            await asyncio.sleep(LOG_POLL_S)
        return plain(details)

    def _stays_out(self, folder: ModelFolder) -> bool:
        """Whether it was left out, and nothing in its folder has changed since."""
        if folder.name not in self._left_out:
            return False
        if folder.changed_at_ns() == self._left_out[folder.name]:
            return True
        del self._left_out[folder.name]
        return False

    def _leave_out(self, name: str, code: int) -> None:
        self._left_out[name] = ModelFolder(self._repository / name).changed_at_ns()
        del self._suspects[name]
        why = (
            f"tritonserver ended, last with {code}, each time it was loaded; it is tried again when its files have "
            "changed, when it is loaded by hand, or when the service starts again"
        )
        self._failed(name, why)
