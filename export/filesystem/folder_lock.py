"""The lock of a folder: one process at a time changes its entries. The kernel frees it when that process ends."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from export.errors import ExportError

if TYPE_CHECKING:
    from rich.console import Console

LOCKS: Final = Path("/proc/locks")
# Of a command line; enough to know it by.
COMMAND_CHARACTERS: Final = 120
# A change takes seconds: the largest model that is shipped, copied to a disk that writes 10 MB/s, takes a minute.
WAIT_S: Final = 120.0
POLL_S: Final = 0.05

# Told whom a process waits for.
Tell = Callable[[str], None]


class FolderBusyError(ExportError):
    """Another process is writing the same folder."""


def waiting_on(console: "Console") -> Tell:
    """Tells on a console whom a command waits for."""
    return lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def locked(folder: Path, waiting: Tell | None = None) -> Iterator[None]:
    """Be the only one that changes a folder's entries.

    Args:
        folder: it is there.
        waiting: where given, another process is waited for, for `WAIT_S` at most, and this is told once who it is.

    Raises:
        FolderBusyError: another process is at it; says which, where the kernel tells. At once where it is this one,
            which would wait for itself.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _take(descriptor, folder, waiting)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path, waiting: Tell | None) -> None:
    """Polls: a process that is blocked in flock could not give up after a while without a signal of its own."""
    until = None
    while not _is_taken(descriptor):
        pid, holder = _holder(descriptor)
        now = time.monotonic()
        if until is None and waiting is not None and pid != os.getpid():
            until = now + WAIT_S
            waiting(f"{folder}: waiting for {holder}, for {WAIT_S:.0f} s at most")
        if until is None or now >= until:
            raise FolderBusyError(f"{folder}: {holder} is writing there; wait for it to end")
        time.sleep(POLL_S)


def _is_taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> tuple[int | None, str]:
    """The process that has a folder's lock, and how it is told: `process 4711 (fairlane models remove digits 1)`."""
    status = os.fstat(descriptor)
    # As in "1: FLOCK  ADVISORY  WRITE 4711 fe:00:2785281 0 EOF".
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        fields = [line.split() for line in LOCKS.read_text().splitlines()]
        pid = next(one[4] for one in fields if one[1] == "FLOCK" and one[5] == place)
        command = Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (OSError, StopIteration, IndexError):
        # It has ended since, lives in another container, or this kernel keeps no such list.
        return None, "another process"
    return int(pid), f"process {pid} ({' '.join(command.split())[:COMMAND_CHARACTERS]})"
