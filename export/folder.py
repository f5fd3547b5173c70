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

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from export.errors import ExportError


class FolderBusyError(ExportError):
    """Another process is writing the same folder."""


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
    with locked(target.parent):
        _put_back(target)
        try:
            with _written(target) as new:
                yield new
            _swap_in(_beside(target, "new"), target)
        finally:
            _put_back(target)
            shutil.rmtree(_beside(target, "new"), ignore_errors=True)


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Write a folder that is at `target`, where there is none, when the block ends without an error.

    The caller holds the parent's lock. Where the block raises, nothing of it stays.

    Yields:
        An empty folder on the same filesystem, to write into.
    """
    new = _beside(target, "new")
    try:
        with _written(target):
            yield new
        new.rename(target)
        _flush_one(target.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def discard(target: Path) -> None:
    """Take a folder away, in one step for whoever looks at it. The caller holds the parent's lock."""
    trash = _beside(target, "trash")
    shutil.rmtree(trash, ignore_errors=True)
    target.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a file in place of any before it; it is never there in part, also after a loss of power."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_bytes(content)
        _flush_one(new)
        new.replace(path)
        _flush_one(path.parent)
    finally:
        new.unlink(missing_ok=True)


def recover(target: Path) -> None:
    """Put the old folder back where a crash struck between the two renames. Otherwise does nothing.

    A process that is between the two renames right now holds the lock, and is left to finish.
    """
    if _beside(target, "old").exists():
        with suppress(FolderBusyError), locked(target.parent):
            _put_back(target)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only one that changes a folder's entries.

    Raises:
        FolderBusyError: another process is at it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _written(target: Path) -> Iterator[Path]:
    new = _beside(target, "new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    yield new
    for path in (*new.rglob("*"), new):
        _flush_one(path)


def _put_back(target: Path) -> None:
    old = _beside(target, "old")
    if old.exists() and not target.exists():
        old.rename(target)


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


def _lock(descriptor: int, folder: Path) -> None:
    # The kernel drops the lock when the process ends, however it ends.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FolderBusyError(f"{folder}: another export or quantize is writing there; wait for it to end") from error
