"""A tiny process between the scheduler and its embedded tritonserver, so that no Triton outlives it.

Run as a script, standard library only, by `launcher.EmbeddedTriton`. The scheduler holds the other end of
this process's standard input: when that end closes, however the scheduler died (SIGKILL included), tritonserver
and its Python stubs are killed and what they left in /dev/shm and in the scratch directory is removed.

Three lines of defence, each for the failure of the one before:
1. end of file on standard input: the scheduler's last reference to the pipe is gone;
2. `getppid()` changed: the scheduler is dead and a process it forked still holds the pipe. PR_SET_PDEATHSIG would
   do this too, but it fires when the parent's THREAD ends, and the event loop may not be in the main thread;
3. PR_SET_PDEATHSIG on tritonserver: this process was killed. It has one thread, so the signal means what it says;
   the orphaned stubs notice by themselves within two seconds.

Standard input, one line each: a JSON object (see `Spec`), then `stop SECONDS`: SIGTERM, SIGKILL after that grace.
Standard output, one line each: `pid N` when tritonserver runs, `exit CODE` when it and all its children are gone.
It also copies Triton's output to the log file, so a scheduler that is busy or stopped never blocks Triton on a pipe.
"""

import ctypes
import io
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypedDict

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
PARENT_CHECK_S: Final = 1.0  # how long a scheduler that died with its pipe held open goes unnoticed
REAP_S: Final = 5.0  # killed processes are gone in milliseconds; longer means stuck in the kernel
CHUNK_BYTES: Final = 65536
SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108  where the C library puts shm_open()


class Spec(TypedDict):
    """What to run: tritonserver's command, environment and CPUs (none: this process's own); its log; its traces."""

    command: list[str]
    environment: dict[str, str]
    cpus: list[int]
    log: str
    log_bytes: int
    shm_prefix: str
    scratch: str


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process through the C library that Python already has."""
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def remove_shared_memory(prefix: str) -> None:
    """Unlink every region in /dev/shm whose name starts with `prefix`; Triton killed does not."""
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def kill_group(group: int) -> None:
    """SIGKILL to every process of a group; none left is fine."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


class BoundedLog:
    """A log file of one run that never exceeds its limit: what was there before, or is full, becomes NAME.1."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self.file = self.begin()

    def begin(self) -> io.FileIO:
        """Start an empty file; an earlier run's errors must not be read as this one's."""
        if self.path.exists():
            self.path.replace(f"{self.path}.1")
        return io.FileIO(self.path, "a")

    def write(self, data: bytes) -> None:
        """Append; a full disk loses log lines, it does not stop Triton."""
        try:
            if self.file.tell() + len(data) > self.limit_bytes:
                self.file.close()
                self.file = self.begin()
            self.file.write(data)
        except (OSError, ValueError):  # ValueError: closed above, and could not be opened again
            return


class Supervisor:
    """tritonserver as a child: its output copied, its end reported, its life tied to the parent's."""

    def __init__(self, control: int, parent: int) -> None:
        self.control = control
        self.parent = parent
        self.pending = b""
        self.spec: Spec | None = None
        self.child: subprocess.Popen[bytes] | None = None
        self.kill_at: float | None = None
        self.copy: Callable[[], bool] = lambda: False
        self.selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Serve until tritonserver is gone or the parent is; returns this process's exit code."""
        self.selector.register(self.control, selectors.EVENT_READ, self.on_control)
        self.watch_signals()
        while self.child is None or self.child.poll() is None:
            if self.parent_gone():
                break
            for key, _ in self.selector.select(self.patience_s()):
                key.data()
            if self.kill_at is not None and self.child is not None and time.monotonic() >= self.kill_at:
                kill_group(self.child.pid)
        self.clean_up()
        return 0

    def watch_signals(self) -> None:
        """SIGCHLD wakes the loop; SIGTERM asks Triton to stop; a terminal's Ctrl-C is the scheduler's affair."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self.stop(REAP_S))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.selector.register(reader, selectors.EVENT_READ, lambda: os.read(reader, CHUNK_BYTES))

    def parent_gone(self) -> bool:
        """Whether the scheduler has died, by the pipe or by the process table."""
        return self.control < 0 or os.getppid() != self.parent

    def patience_s(self) -> float:
        """How long the loop may sleep."""
        if self.kill_at is None:
            return PARENT_CHECK_S
        return min(PARENT_CHECK_S, max(0.0, self.kill_at - time.monotonic()))

    def on_control(self) -> None:
        """Take what the parent wrote; end of file means it is gone."""
        data = os.read(self.control, CHUNK_BYTES)
        if not data:
            self.selector.unregister(self.control)
            self.control = -1
            return
        *lines, self.pending = (self.pending + data).split(b"\n")
        for line in lines:
            if self.spec is None:
                self.spec = json.loads(line)
                self.start(self.spec)
            else:
                self.stop(float(line.split()[1]))

    def start(self, spec: Spec) -> None:
        """Start tritonserver in a group of its own, its output on a pipe to this process."""
        prctl(PR_SET_CHILD_SUBREAPER, 1)  # a crashed tritonserver's stubs become this process's to reap
        if spec["cpus"]:
            os.sched_setaffinity(0, spec["cpus"])  # what it starts inherits them
        log = BoundedLog(Path(spec["log"]), spec["log_bytes"])
        output, write_end = os.pipe()
        try:
            self.child = subprocess.Popen(  # noqa: S603  the command comes from the parent, not from outside
                spec["command"],
                env=spec["environment"],
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                process_group=0,
                preexec_fn=die_with(os.getpid()),  # noqa: PLW1509  this process has one thread
            )
        finally:
            os.close(write_end)
        os.set_blocking(output, False)
        self.copy = self.copier(output, log)
        self.selector.register(output, selectors.EVENT_READ, self.copy)
        say(f"pid {self.child.pid}")

    def copier(self, output: int, log: BoundedLog) -> Callable[[], bool]:
        """Make the function that copies what Triton wrote, and says whether there was anything."""

        def copy() -> bool:
            try:
                data = os.read(output, CHUNK_BYTES)
            except BlockingIOError:
                return False
            if data:
                log.write(data)
            elif output in self.selector.get_map():
                self.selector.unregister(output)
            return bool(data)

        return copy

    def stop(self, grace_s: float) -> None:
        """SIGTERM to tritonserver alone (it stops its stubs), SIGKILL to the group after the grace."""
        if self.child is not None and self.child.poll() is None:
            self.kill_at = min(time.monotonic() + grace_s, self.kill_at or float("inf"))
            self.child.terminate()

    def clean_up(self) -> None:
        """Kill and reap what is left, remove its traces, report the exit code."""
        if self.child is None or self.spec is None:
            return
        kill_group(self.child.pid)
        code = self.child.wait()
        reap_orphans()
        while self.copy():
            continue
        remove_shared_memory(self.spec["shm_prefix"])
        if self.parent_gone():
            shutil.rmtree(self.spec["scratch"], ignore_errors=True)
            return
        say(f"exit {code}")


def die_with(parent: int) -> Callable[[], None]:
    """What the child does before exec: be killed when `parent` ends, or at once where it already has."""

    def tie() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return tie


def reap_orphans() -> None:
    """Wait until every adopted child has ended, so that none holds a shared-memory region or a port."""
    deadline = time.monotonic() + REAP_S
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(0.01)


def say(line: str) -> None:
    """One line to the parent; a parent that is gone no longer reads."""
    try:
        os.write(sys.stdout.fileno(), f"{line}\n".encode())
    except BrokenPipeError:
        return


def main() -> int:
    """Supervise what standard input describes."""
    return Supervisor(sys.stdin.fileno(), os.getppid()).run()


if __name__ == "__main__":
    # Started with -I -S: none of the environment's packages are on the path, which keeps the start under 50 ms.
    sys.exit(main())
