"""Exclusive changes: one process changes a model of a repository at a time. What a crash left is cleared up first."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from export.card import CARD_FILE
from export.errors import ExportError
from export.filesystem.atomic_folder import sweep
from export.filesystem.folder_lock import FolderBusyError, Tell, locked
from export.repository.pinned_version import is_pinned, unpin

# The end of the name of a new model's folder while it is being written.
NEW_MODEL: Final = ".model"


class ExclusiveChanges:
    """The changes that this object's user makes to the models of a repository. Not for several threads.

    Args:
        folder: the repository.
        waiting: told whom a change waits for; without it, none waits.
    """

    def __init__(self, folder: Path, waiting: Tell | None = None) -> None:
        self.folder, self._waiting = folder, waiting
        self._held: set[str] = set()

    @contextmanager
    def of(self, name: str) -> Iterator[frozenset[str]]:
        """Be the only one that changes a model; what a crash left half done is cleared up first.

        Publishing, promoting and removing do this by themselves. Around several of them, and around what is looked at
        before, it makes one change of them.

        Yields:
            The names of entries that a crash had left half deleted.

        Raises:
            FolderBusyError: another process is changing this model.
            ExportError: this is the name of no model, but a path to what is none of a repository's.
        """
        if not name or "/" in name or name.startswith("."):
            # What is cleared up there would be somebody else's `.vimrc.old`.
            raise ExportError(f"expected the name of a model, got {name!r}")
        if name in self._held:
            yield frozenset()
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        model = self.folder / name
        with self._locked(model):
            self._held.add(name)
            try:
                yield self._cleared(model)
            finally:
                self._held.remove(name)

    @contextmanager
    def _locked(self, model: Path) -> Iterator[None]:
        while True:
            # A model that is not there has no lock of its own.
            there = model.is_dir()
            with locked(model if there else self.folder, self._waiting):
                # Else another process has put it there, just now or while it was waited for.
                if model.is_dir() == there:
                    yield
                    return

    def settle(self, name: str) -> None:
        """Undo what a crash has left half done, so that the newest version is the one that is served."""
        if is_pinned(self.folder / name):
            # Somebody who is at it, or may write where this user may not, sees to it.
            with contextlib.suppress(FolderBusyError, OSError), self.of(name):
                pass

    def new_folder(self, name: str) -> Path:
        """Where a new model is written until it is whole, and one goes to be deleted. The caller is in a change of it.

        Triton takes every folder of a repository for a model, whatever its name, and starts with none where one of
        them is not whole. So this is where it does not look: in the folder of another model, of which a name that
        begins with a dot is no version. In a repository without models, where there is nothing to serve, it is beside.
        """
        device = self.folder.stat().st_dev
        others = (path for path in sorted(self.folder.glob("[!.]*")) if path.is_dir() and path.name != name)
        # A link to another disk is no place to rename from, nor is another user's folder.
        beside = next((one for one in others if one.stat().st_dev == device and os.access(one, os.W_OK)), self.folder)
        return beside / f".{name}{NEW_MODEL}"

    def _unfinished(self) -> list[Path]:
        return [*self.folder.glob(f".*{NEW_MODEL}"), *self.folder.glob(f"*/.*{NEW_MODEL}")]

    def _clear_unfinished(self) -> None:
        for left in self._unfinished():
            shutil.rmtree(left, ignore_errors=True)

    def _cleared(self, model: Path) -> frozenset[str]:
        if not model.is_dir():
            self._clear_unfinished()
            return frozenset()
        if self._unfinished():
            # Who is writing a new model right now has this lock, and what is found under it was left by a crash.
            with contextlib.suppress(FolderBusyError, OSError), locked(self.folder):
                self._clear_unfinished()
        unpin(model)
        for card in model.glob(f"*/.{CARD_FILE}.new"):
            card.unlink()
        return sweep(model)
