"""The lock of a folder: who changes its entries does so alone. The kernel lets go when a process ends, however."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from export.errors import ExportError

LOCKS: Final = Path("/proc/locks")
# Of a command line; enough to know it by.
COMMAND_CHARACTERS: Final = 120


class FolderBusyError(ExportError):
    """Another process is writing the same folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only one that changes a folder's entries.

    Raises:
        FolderBusyError: another process is at it; says which, where the kernel tells.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderBusyError(f"{folder}: {_holder(descriptor)} is writing there; wait for it to end") from error
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """The process that has a folder's lock: `process 4711 (fairlane models remove digits 1)`."""
    status = os.fstat(descriptor)
    # As in "1: FLOCK  ADVISORY  WRITE 4711 fe:00:2785281 0 EOF".
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        fields = [line.split() for line in LOCKS.read_text().splitlines()]
        pid = next(one[4] for one in fields if one[1] == "FLOCK" and one[5] == place)
        command = Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (OSError, StopIteration, IndexError):
        # It has ended since, lives in another container, or this kernel keeps no such list.
        return "another process"
    return f"process {pid} ({' '.join(command.split())[:COMMAND_CHARACTERS]})"
