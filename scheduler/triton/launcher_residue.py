"""What embedded servers leave behind when everything that would have cleaned up was killed with them.

A server's name is the name of its scratch directory and the start of its shared-memory regions' names. It tells
which process started it, in which pid namespace: /dev/shm and the temporary directory may be shared with containers
whose process numbers mean nothing here.
"""

import contextlib
import os
import re
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Final

from scheduler.triton import supervise

NAME: Final = re.compile(r"fairlane_triton_(?P<namespace>\d+)_(?P<pid>\d+)_[0-9a-f]{12}")


def _namespace() -> str:
    return str(Path("/proc/self/ns/pid").stat().st_ino)


def new_name() -> str:
    """Make a name that no other server has and that tells which process it belongs to."""
    return f"fairlane_triton_{_namespace()}_{os.getpid()}_{uuid.uuid4().hex[:12]}"


def remove_stale() -> None:
    """Remove scratch directories and shared memory whose owner, a process of this user and namespace, is dead."""
    namespace = _namespace()
    for path in [
        *Path(tempfile.gettempdir()).glob("fairlane_triton_*"),
        *supervise.SHARED_MEMORY.glob("fairlane_triton_*"),
    ]:
        match = NAME.match(path.name)
        if match is None or match["namespace"] != namespace or Path("/proc", match["pid"]).exists():
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(FileNotFoundError):  # another start removes it, too
                if path.stat().st_uid == os.getuid():
                    path.unlink()
