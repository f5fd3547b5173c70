"""The served version, pinned by its number while a version with another configuration and other labels is published.

A folder and several files cannot change in one step, and a version beside the configuration of another may not load.
So everything but one rename is done where nobody looks:

    1. links to config.pbtxt and to the label files: .FILE.old, and .FILE.back to undo 3 also where a disk is full
    2. config.pbtxt: what it was, but serving the present versions by number, with labels from .FILE.old
    3. the new labels and the new version appear; nothing reads them
    4. config.pbtxt: the new one. This is the step
    5. the links deleted

A crash up to 4 leaves the old version serving, one after it the new; `unpin` clears up after both.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from export.configuration.model_config import CONFIG_FILE, ConfigError, message_text, parse_config, read_config
from export.filesystem.atomic_folder import discard, link, write_file

LABELS: Final = "_labels.txt"
COMING: Final = "# Version {} is coming, with a configuration of its own; until then this is served.\n"
COMING_PATTERN: Final = re.compile(re.escape(COMING).replace(r"\{\}", r"(\d+)"))


@contextmanager
def pinned(model: Path, coming: int) -> Iterator[None]:
    """Keep serving what is served, until the block replaces config.pbtxt; where it raises before, nothing has changed.

    Args:
        model: the folder of a model that has versions. The caller holds its lock.
        coming: the number of the version that may appear.
    """
    config = model / CONFIG_FILE
    try:
        message = read_config(config)
    except ConfigError:
        message = None
    if message is None or message.version_policy.WhichOneof("policy_choice") not in (None, "latest"):
        # Then no version is served before the configuration says so.
        yield
        return
    try:
        for path in (config, *model.glob(f"*{LABELS}")):
            link(path, _old(path))
            link(path, _back(path))
        write_file(config, message_text(_pinned(message, model, coming), COMING.format(coming)).encode())
        yield
    finally:
        unpin(model)


def unpin(model: Path) -> None:
    """Undo what a crash or an error has left half done, and clear up. The caller holds the model's lock."""
    config = model / CONFIG_FILE
    if _old(config).is_file() and (found := COMING_PATTERN.match(config.read_text(encoding="utf-8", errors="replace"))):
        if (version := model / found[1]).exists():
            discard(version)
        for path in model.glob(f"*{LABELS}"):
            if _back(path).is_file():
                _back(path).replace(path)
            elif not _old(path).is_file():
                path.unlink()
        _old(config).replace(config)
    for left in (*model.glob(".*.old"), *model.glob(".*.back")):
        left.unlink()


def return_to(model: Path, coming: int, files: Mapping[str, bytes]) -> None:
    """Put a configuration and labels back and take a version away, in one step where Triton takes the newest version.

    The step is back to what a crash before step 4 would have left, and `unpin` does the rest.

    Args:
        model: the folder of a model that has other versions. The caller holds its lock.
        coming: the version, or the number of none.
        files: config.pbtxt and label files.

    Raises:
        ConfigError: the configuration is none that Triton could read.
    """
    config = model / CONFIG_FILE
    message = parse_config(files[CONFIG_FILE].decode(errors="replace"), config)
    try:
        for name, content in files.items():
            write_file(_old(model / name), content)
            write_file(_back(model / name), content)
        # Until now a crash leaves the version and what it came with.
        write_file(config, message_text(_pinned(message, model, coming), COMING.format(coming)).encode())
    finally:
        try:
            unpin(model)
        except OSError:
            # On a full disk the first try has made room.
            unpin(model)


def is_pinned(model: Path) -> bool:
    """Whether somebody is at it, or a crash has left something to clear up."""
    return _old(model / CONFIG_FILE).is_file()


def _pinned(config: Any, model: Path, coming: int) -> Any:
    count = config.version_policy.latest.num_versions or 1
    versions = sorted(int(path.name) for path in model.glob("*") if path.name.isdecimal() and int(path.name) < coming)
    made = type(config)()
    made.CopyFrom(config)
    made.version_policy.specific.versions.extend(versions[-count:])
    for output in made.output:
        if output.label_filename and _old(model / output.label_filename).is_file():
            output.label_filename = _old(model / output.label_filename).name
    return made


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _back(path: Path) -> Path:
    return path.with_name(f".{path.name}.back")
