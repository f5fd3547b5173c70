"""Processes that do not outlive the one that started them, SIGKILL included.

`python bench/processes/parent_death.py PARENT COMMAND...` asks the kernel to kill this process when its parent ends,
and becomes the command. A signal handler or an `atexit` of the parent would not do: nothing of it runs after
SIGKILL. Set by the child itself and not between fork and exec, since a fork of a process with gRPC's threads in it is
not safe.
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    # Run as a script, the folder of `bench` and `scheduler` is not on the path; -I -S keeps the start under 50 ms.
    sys.path.insert(0, str(Path(__file__).parents[2]))

from scheduler.triton.supervise import die_with


def killed_with_parent(*command: str) -> tuple[str, ...]:
    """The command that runs `command` tied to this process. Start it from the main thread: the tie is to the thread."""
    return (sys.executable, "-I", "-S", __file__, str(os.getpid()), *command)


def main() -> None:
    """Tie, and become the command."""
    parent, *command = sys.argv[1:]
    die_with(int(parent))()
    os.execv(command[0], command)  # noqa: S606  the command comes from the parent, not from outside


if __name__ == "__main__":
    main()
