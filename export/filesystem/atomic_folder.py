"""Folders that appear whole or not at all.

A folder is written under another name beside its place, flushed to disk, and renamed into place. A folder that is new
(`appearing`) needs no more than that. Rename cannot replace a folder that is not empty, so to replace one
(`replacing`) the old one is first renamed aside:

    write .NAME.new -> rename NAME to .NAME.old -> rename .NAME.new to NAME -> .NAME.old to .NAME.trash -> delete

At every moment NAME is whole or absent. A crash between the two renames leaves it absent and the old one
whole as `.NAME.old`; the next `recover` puts that back. `.old` is renamed before it is deleted, so that a
folder called `.old` is never one that was half deleted.

The names begin with a dot for Triton's sake: it reads a version folder's name like C's strtoll, which takes
`1.new` for version 1, but ignores `.1.new`.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from export.filesystem.folder_lock import FolderBusyError, locked


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Write a folder that takes the place of `target` when the block ends without an error.

    Where the block raises, what it wrote is deleted and `target` stays as it was.

    Yields:
        An empty folder on the same filesystem, to write into.

    Raises:
        FolderBusyError: another process is at it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.parent), swapped(target) as new:
        yield new


@contextmanager
def swapped(target: Path) -> Iterator[Path]:
    """As `replacing`, for who has the parent's lock already."""
    put_back(target)
    try:
        with _written(_beside(target, "new")) as new:
            yield new
        _swap_in(_beside(target, "new"), target)
    finally:
        put_back(target)
        shutil.rmtree(_beside(target, "new"), ignore_errors=True)


@contextmanager
def appearing(target: Path, written: Path | None = None) -> Iterator[Path]:
    """Write a folder that is at `target`, where there is none, when the block ends without an error.

    The caller holds the parent's lock. Where the block raises, nothing of it stays.

    Args:
        target: the folder.
        written: where it is until then, on the same filesystem; by default beside its place, as `.NAME.new`.

    Yields:
        An empty folder, to write into.
    """
    new = written or _beside(target, "new")
    try:
        with _written(new):
            yield new
        _renamed(new, target)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def discard(target: Path) -> None:
    """Take a folder away, in one step for whoever looks at it. The caller holds the parent's lock."""
    trash = _beside(target, "trash")
    shutil.rmtree(trash, ignore_errors=True)
    # Durable first: else, after a loss of power, it might be at its place in part.
    _renamed(target, trash)
    shutil.rmtree(trash, ignore_errors=True)


def sweep(folder: Path) -> frozenset[str]:
    """Delete what a crash left of writing and discarding in a folder whose lock the caller holds.

    Returns:
        The names of the entries whose deletion had begun, and is finished now.
    """
    trash = list(folder.glob(".*.trash"))
    for left in (*trash, *folder.glob(".*.new")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink()
    return frozenset(left.name[1:].removesuffix(".trash") for left in trash if not left.exists())


def write_file(path: Path, content: bytes) -> None:
    """Write a file in place of any before it; it is never there in part, also after a loss of power.

    Raises:
        OSError: naming the file.
    """
    with _in_place_of(path) as new, naming(path):
        new.write_bytes(content)


def link(source: Path, target: Path) -> None:
    """Give a file's content a second name, in place of any file there; copy it where the filesystem has no links."""
    with _in_place_of(target) as new:
        try:
            os.link(source, new)
        except OSError:
            shutil.copyfile(source, new)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put a path into an error of the system that names none, as where a disk is full while one writes."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def recover(target: Path) -> None:
    """Put the old folder back where a crash struck between the two renames. Otherwise does nothing.

    A process that is between the two renames right now holds the lock, and is left to finish.
    """
    if _beside(target, "old").exists():
        with suppress(FolderBusyError), locked(target.parent):
            put_back(target)


def put_back(target: Path) -> None:
    """As `recover`, for who has the parent's lock already."""
    old = _beside(target, "old")
    if old.exists() and not target.exists():
        old.rename(target)


def _renamed(source: Path, target: Path) -> None:
    source.rename(target)
    try:
        _flush_one(target.parent)
    except OSError:
        target.rename(source)
        raise


@contextmanager
def _in_place_of(path: Path) -> Iterator[Path]:
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    try:
        yield new
        _flush_one(new)
        new.replace(path)
        _flush_one(path.parent)
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def _written(new: Path) -> Iterator[Path]:
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    yield new
    for path in (*new.rglob("*"), new):
        _flush_one(path)


def _swap_in(new: Path, target: Path) -> None:
    old, trash = _beside(target, "old"), _beside(target, "trash")
    _discard_old(old, trash)
    if target.exists():
        target.rename(old)
    new.rename(target)
    _flush_one(target.parent)
    _discard_old(old, trash)


def _flush_one(path: Path) -> None:
    # Of a folder this makes the names in it durable, not what its files hold.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard_old(old: Path, trash: Path) -> None:
    shutil.rmtree(trash, ignore_errors=True)
    if old.exists():
        old.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)


def _beside(target: Path, role: str) -> Path:
    return target.parent / f".{target.name}.{role}"
