"""Every change of a model repository, killed, or out of disk, before each call of the system that changes the disk.

`python -m tests.export.repository.faults FOLDER` goes through them, each in a fork of its own on a fresh
repository in FOLDER, and prints as JSON, by change and fault, what was wrong after each step: null where nothing was.
"""

import builtins
import errno
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from click.testing import CliRunner

from export.models_cli import models
from tests.export.repository.stand_in import NAME, OLD, Place, graph_of

Fault = Literal["killed", "full"]
FAULTS: Final[tuple[Fault, ...]] = ("killed", "full")
CHANGED: Final = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link")
FREEING: Final = ("os.remove", "os.rmdir")
KILLED: Final = 9


@dataclass
class Disk:
    """Counts this process's changes to the disk and lets the `last`-th fail; a full disk stays full."""

    fault: Fault
    last: int
    done: int = 0
    armed: bool = False

    @property
    def failed(self) -> bool:
        """Whether there was such a change."""
        return self.done >= self.last

    def arm(self) -> None:
        """From now on, in this process, for good."""
        sys.addaudithook(self._hook)
        plain, sendfile = io.open, os.sendfile

        def opened(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if set(mode).isdisjoint("wax+"):
                return plain(file, mode, *args, **options)
            # What is written to a repository is bytes.
            return io.BufferedWriter(_File(self, file, mode.replace("b", "")))

        def sent(out: int, source: int, offset: int, count: int) -> int:
            self.step("sendfile", torn=lambda: sendfile(out, source, offset, 1))
            return sendfile(out, source, offset, count)

        builtins.open = io.open = opened  # type: ignore[assignment]
        os.sendfile = sent  # type: ignore[assignment]
        os.fsync = lambda _: self.step("fsync")
        self.armed = True

    def step(self, event: str, path: Any = None, torn: Callable[[], Any] = lambda: None) -> None:
        """One change is about to happen, of a path where it is one by name; `torn` does a part of it."""
        if not self.armed or (self.fault == "full" and event in FREEING):
            return
        self.done += 1
        if self.fault != "full" and self.done == self.last:
            torn()
            os._exit(KILLED)
        # Names change, and what is there is flushed, on a full disk too, but for this once.
        if self.done == self.last or (self.done > self.last and event not in ("os.rename", "fsync")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in CHANGED:
            self.step(event, os.fspath(args[0]))


class _File(io.FileIO):
    def __init__(self, disk: Disk, file: Any, mode: str) -> None:
        super().__init__(file, mode)
        self._disk = disk

    def write(self, content: Any, /) -> int:
        data = bytes(content)
        self._disk.step("write", torn=lambda: super(_File, self).write(data[: len(data) // 2]))
        return super().write(data)


@dataclass(frozen=True)
class Change:
    """A change of a repository; what is served after it, and may be after it was done twice."""

    run: Callable[["Place"], str]
    after: tuple[str, str, str]
    twice: tuple[str, str, str] | None = None
    name: str = NAME


NEW: Final = ("new", "new", "new")

CHANGES: Final = {
    "publish": Change(lambda place: place.publish_built(NAME), ("new", "old", "old")),
    "publish and configure": Change(lambda place: place.publish_built(NAME, configure=True), NEW),
    "publish another model": Change(lambda place: place.publish_built("another"), NEW, name="another"),
    "configure": Change(Place.configure, ("old 3", "new", "new")),
    "tune": Change(Place.tune, ("old 3", "old x 2", "old")),
    "promote": Change(lambda place: place.models("promote", NAME, "2"), ("old 1", "old", "older")),
    "rollback": Change(
        lambda place: place.models("rollback", NAME), ("old 2", "old", "old"), ("old 1", "old", "older")
    ),
    "remove": Change(lambda place: place.models("remove", NAME, "1"), OLD),
    "withdraw": Change(Place.withdraw, ("old 2", "old", "old")),
    "withdraw with its configuration": Change(Place.withdraw_configured, ("old 2", "new", "new")),
    "put back": Change(Place.put_back, ("old 3", "new", "new")),
}


def _in_fork(place: Place, change: Change, disk: Disk) -> tuple[int, bool, str]:
    """Run a change in a process of its own; its exit code, whether the disk failed, and its error."""
    readable, writable = os.pipe()
    if not (child := os.fork()):
        code = 1
        try:
            disk.arm()
            told = change.run(place)
            code = 1 if told else 0
        except Exception as error:
            told = f"Error: {error}\n" if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        os.write(writable, f"{disk.failed:d}{told}".encode()[:4000])
        os._exit(code)
    os.close(writable)
    with os.fdopen(readable, encoding="utf-8") as told_by:
        told = told_by.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, code == KILLED or told[0] == "1", told[1:]


def _check(place: Place, change: Change, fault: Fault, code: int, told: str) -> None:
    others, served = {"other": ("old", "old", "old")}, place.served()
    before, after = others | {NAME: OLD}, others | {NAME: OLD, change.name: change.after}
    assert served in ((before, after) if code else (after,)), served
    if fault == "full":
        assert not place.residue(), place.residue()
        # A line that names the reason, and where.
        assert code == 0 or (told.count("\n") <= 1 and "No space left on device: '" in told), told
    listed = CliRunner().invoke(models, ["list", "--json", "--model-repository", str(place.repository.folder)])
    rows = [row for row in json.loads(listed.stdout) if row["served"]]
    found = {row["model"]: graph_of(place.repository.version_folder(row["model"], row["version"])) for row in rows}
    assert place.served() == served
    assert found == {name: graph for name, (graph, *_) in served.items()}, found
    if code != 0:
        again = change.run(place)
        assert not again, again
        assert place.served()[change.name] in (change.after, change.twice)
    assert not place.residue(), place.residue()


def _every_step(folder: Path, change: Change, fault: Fault) -> Iterator[str | None]:
    """What is wrong after each step that failed; None where nothing is."""
    template = Place(folder / "template")
    if not template.folder.exists():
        template.fill()
    step, failed = 0, True
    while failed:
        step += 1
        place = Place(folder / "now")
        shutil.copytree(template.folder, place.folder, copy_function=os.link)
        code, failed, told = _in_fork(place, change, Disk(fault, step))
        try:
            _check(place, change, fault, code, told)
            yield None
        except Exception as error:
            yield f"step {step}: {type(error).__name__}: {error}; {told!r}; left {place.residue()}"
        shutil.rmtree(place.folder)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    # Nothing here is ever to outlive a loss of power.
    os.fsync = lambda _: None
    root = Path(sys.argv[1])
    wrong = {
        name: {fault: list(_every_step(root, change, fault)) for fault in FAULTS} for name, change in CHANGES.items()
    }
    print(json.dumps(wrong))
