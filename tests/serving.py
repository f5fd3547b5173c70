"""`fairlane serve` as a process of its own."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from scheduler.triton.fake import FakeModel, FakeTriton

ROOT = Path(__file__).parents[1]
READY = re.compile(rb"fairlane is ready: .*?gRPC on (\S+?), HTTP on ([^\s,]+)")
STOP_S = 60
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class ServeProcess:
    """One that is ready: its gRPC address, HOST:PORT, and the URL of its HTTP side."""

    process: asyncio.subprocess.Process
    grpc: str
    http: str
    told: bool = False

    def end(self) -> None:
        """Tell it to end, once: a second SIGTERM may come when nothing is left that handles it."""
        if not self.told:
            self.told = True
            self.process.terminate()


@asynccontextmanager
async def serve_process(log: Path, *flags: str) -> AsyncIterator[ServeProcess]:
    """Run it on free ports with these flags, stderr into `log`; left alone, it is told to end and must exit with 0."""
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "scheduler", "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", *flags),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
        )
    try:
        assert process.stdout is not None
        found = READY.match(await process.stdout.readline())
        assert found, f"it did not start: {log}"
        serving = ServeProcess(process, found[1].decode(), found[2].decode())
        yield serving
        serving.end()
        assert await asyncio.wait_for(process.wait(), STOP_S) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def serve_before_a_fake(tmp_path: Path) -> AsyncIterator[tuple[int, str]]:
    """One in front of a fake Triton with the model `identity`: its process id and gRPC address."""
    triton = FakeTriton((FakeModel("identity"),))
    address = await triton.start()
    try:
        async with serve_process(tmp_path / "serve.err", "--backend", address) as serving:
            yield serving.process.pid, serving.grpc
    finally:
        await triton.stop()


def resident_bytes(pid: int) -> int:
    """What the process holds of the machine's memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
