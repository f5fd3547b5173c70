"""Every change of a model repository, killed, or out of disk, before each call of the system that changes the disk.

`python -m tests.export.faults FOLDER` goes through them, each in a fork of its own on a fresh repository in FOLDER, and
prints as JSON, by change and fault, what was wrong after each step: null where nothing was.
"""

import builtins
import errno
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import onnx
from click.testing import CliRunner
from onnx import TensorProto, helper

from export.card import ModelCard, Parity, Source, read_card
from export.config import parse_config
from export.models_cli import models
from export.repository import KEPT_VERSIONS, Repository

Fault = Literal["killed", "full"]
FAULTS: Final[tuple[Fault, ...]] = ("killed", "full")
NAME: Final = "digits"
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


OLD: Final = ("old 3", "old", "old")
NEW: Final = ("new", "new", "new")


@dataclass(frozen=True)
class Place:
    """A repository and two built folders; its model serves OLD, its other model itself."""

    folder: Path
    repository: Repository = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "repository", Repository(self.folder / "repository"))

    def fill(self) -> None:
        """Publish what is there before."""
        for number in range(KEPT_VERSIONS):
            self.publish("old", graph=f"old {number}")
        self.publish("old", graph="old", name="other")
        _build(self.folder / NAME, "new", "new", NAME)
        _build(self.folder / "another", "new", "new", "another")

    def publish(self, of: str, *, graph: str, name: str = NAME) -> None:
        """Build a model and publish it."""
        _build(self.folder / name, of, graph, name)
        self.publish_built(name)

    def publish_built(self, name: str, *, configure: bool = False) -> str:
        """Publish a built folder."""
        built = self.folder / name
        self.repository.publish(read_card(built), built / "fp32.onnx", built, configure=configure)
        return ""

    def configure(self) -> str:
        """Replace the configuration and the labels alone."""
        self.repository.configure(NAME, self.folder / NAME)
        return ""

    def withdraw(self) -> str:
        """As for a version that a server refused."""
        self.repository.withdraw(NAME, KEPT_VERSIONS)
        return ""

    def tune(self) -> str:
        """As `fairlane tune` writes what it found."""
        self.repository.rewrite_config(NAME, lambda text: text.replace("count: 1", "count: 2"))
        return ""

    def models(self, *args: str) -> str:
        """`fairlane models ARGS`; gives back its error."""
        result = CliRunner().invoke(models, [*args, "--model-repository", str(self.repository.folder)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return "" if result.exit_code == 0 else result.stderr

    def served(self) -> dict[str, tuple[str, str, str]]:
        """What Triton takes from the repository, by model: graph, whose configuration, whose labels.

        It takes every folder for a model, and each has to be whole.
        """
        found = {}
        for model in filter(Path.is_dir, self.repository.folder.iterdir()):
            config = parse_config((model / "config.pbtxt").read_text(encoding="utf-8"), model)
            versions = sorted(int(path.name) for path in model.iterdir() if path.name.isdecimal())
            assert versions, f"{model.name} has no version"
            for version in versions:
                folder = model / str(version)
                assert {path.name for path in folder.iterdir()} >= {"model.onnx", "model_card.json", "samples.npz"}
                assert (folder / "samples.npz").read_text() == _graph(folder)
                assert read_card(folder).name == model.name == config.name
            serving = list(config.version_policy.specific.versions) or versions[-1:]
            assert len(serving) == 1
            labels = (model / config.output[0].label_filename).read_text()
            instances = f" x {config.instance_group[0].count}" if config.instance_group[0].count > 1 else ""
            found[model.name] = (
                _graph(model / str(serving[0])),
                config.parameters["of"].string_value + instances,
                labels,
            )
        return found

    def residue(self) -> list[str]:
        """Files and folders that are nobody's."""
        return sorted(path.name for path in self.repository.folder.rglob(".*"))


CHANGES: Final = {
    "publish": Change(lambda place: place.publish_built(NAME), ("new", "old", "old")),
    "publish and configure": Change(lambda place: place.publish_built(NAME, configure=True), NEW),
    "publish another model": Change(lambda place: place.publish_built("another"), NEW, name="another"),
    "configure": Change(Place.configure, ("old 3", "new", "new")),
    "tune": Change(Place.tune, ("old 3", "old x 2", "old")),
    "promote": Change(lambda place: place.models("promote", NAME, "2"), ("old 1", "old", "old")),
    "rollback": Change(lambda place: place.models("rollback", NAME), ("old 2", "old", "old"), ("old 1", "old", "old")),
    "remove": Change(lambda place: place.models("remove", NAME, "1"), OLD),
    "withdraw": Change(Place.withdraw, ("old 2", "old", "old")),
}


def _graph(version: Path) -> str:
    return str(onnx.load(version / "model.onnx").producer_name)


def _build(built: Path, of: str, graph: str, name: str) -> None:
    built.mkdir(parents=True, exist_ok=True)
    x, y = (helper.make_tensor_value_info(each, TensorProto.FLOAT, ["batch", 3]) for each in "xy")
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    # Larger than one write of a file's buffer.
    parts = helper.make_graph(nodes, "graph", [x], [y], doc_string=" " * 20_000)
    onnx.save(helper.make_model(parts, producer_name=graph), built / "fp32.onnx")
    (built / "samples.npz").write_text(graph)
    (built / "y_labels.txt").write_text(of)
    (built / "config.pbtxt").write_text(
        f'name: "{name}" backend: "onnxruntime" max_batch_size: 8 instance_group {{ count: 1 }}\n'
        'input { name: "x" data_type: TYPE_FP32 dims: 3 }\n'
        'output { name: "y" data_type: TYPE_FP32 dims: 3 label_filename: "y_labels.txt" }\n'
        f'parameters {{ key: "of" value {{ string_value: "{of}" }} }}\n'
    )
    source = Source(package="p", version="1", file="f", sha256="0" * 64, licence="none")
    parity = Parity(max_abs_diff=0.0, tolerance=1.0, shapes=("x[1]",))
    ModelCard(name=name, source=source, opset=20, tools={}, fp32_sha256=of, parity=parity).write(built)


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
    found = {row["model"]: _graph(place.repository.version_folder(row["model"], row["version"])) for row in rows}
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
