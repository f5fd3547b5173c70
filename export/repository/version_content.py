"""The files of a version, all from one export. An export that is replaced while it is read is an error."""

import filecmp
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from export.card import CARD_FILE, CardError, ModelCard, read_card
from export.configuration.model_config import CONFIG_FILE, read_config
from export.errors import ExportError
from export.filesystem.atomic_folder import naming, write_file
from export.graph.external_data import WEIGHTS_FILE
from export.repository.pinned_version import LABELS

MODEL_FILE: Final = "model.onnx"
FP32_FILE: Final = "fp32.onnx"


class MixedExportError(ExportError):
    """An export was replaced by another while it was being read."""


@dataclass(frozen=True)
class Content:
    """A version's card and its files by name, and the labels and configuration that go with them, read already."""

    card: ModelCard
    built: Path
    files: Mapping[str, Path]
    beside: Mapping[str, bytes]

    @classmethod
    def of(cls, card: ModelCard, onnx_path: Path, built: Path) -> "Content":
        """What there is in a built folder.

        Args:
            card: what it was when its export ended, or after.
            onnx_path: the graph, which may lie elsewhere.
            built: the folder; its files but FP32's graph and the card go along with the version.

        Raises:
            MixedExportError: another export is taking its place.
        """
        with _read_from(built):
            apart = (FP32_FILE, CARD_FILE, WEIGHTS_FILE)
            paths = [path for path in sorted(built.iterdir()) if path.name not in apart]
            # Labels first: a configuration that names a file that is not there does not load.
            beside = [path for path in paths if path.name.endswith(LABELS)]
            beside += [path for path in paths if path.name == CONFIG_FILE]
            if built / CONFIG_FILE in beside:
                read_config(built / CONFIG_FILE)
            files = {path.name: path for path in paths if path not in beside}
            # Those of this graph, not of another form of it.
            if (weights := onnx_path.with_name(WEIGHTS_FILE)).is_file():
                files[WEIGHTS_FILE] = weights
            return cls(card, built, {MODEL_FILE: onnx_path} | files, {path.name: path.read_bytes() for path in beside})

    @property
    def labels(self) -> dict[str, bytes]:
        """The label files by name."""
        return {name: content for name, content in self.beside.items() if name != CONFIG_FILE}

    def fill(self, version: Path) -> None:
        """Write all that belongs into a version's folder, but for labels.

        Raises:
            MixedExportError: the built folder is no longer the export that the card describes.
            OSError: naming a file.
        """
        for name, file in self.files.items():
            with _read_from(self.built), naming(version / name):
                shutil.copyfile(file, version / name)
        self.card.write(version)
        self.check()

    def configure(self, model: Path) -> None:
        """Write the labels and then the configuration into a model's folder."""
        for name, content in self.beside.items():
            write_file(model / name, content)

    def is_in(self, version: Path) -> bool:
        """Whether a version's folder has these files, by name and content, and a card and labels at most.

        Raises:
            MixedExportError: as `fill`.
        """
        if not version.is_dir() or content_names(version) != set(self.files):
            return False
        with _read_from(self.built):
            same = all(filecmp.cmp(version / name, file, shallow=False) for name, file in self.files.items())
        self.check()
        return same

    def check(self) -> None:
        """See that what was read until now was of one export: a folder that took its place has another card.

        Raises:
            MixedExportError: it was not.
        """
        with _read_from(self.built):
            if not read_card(self.built).is_of_export(self.card):
                raise _mixed(self.built)


def content_names(version: Path) -> set[str]:
    """The files of a version's folder by which it is told from others: all but the card and the labels."""
    names = {path.name for path in version.iterdir()}
    return {name for name in names if name != CARD_FILE and not name.endswith(LABELS)}


@contextmanager
def unreplaced(built: Path) -> Iterator[None]:
    """See that all that the block reads from a built folder is of one export.

    Raises:
        MixedExportError: at the end, where another took its place, even if the first one is there again by then.
    """
    try:
        # Held open, so that no other folder can have its number.
        descriptor = os.open(built, os.O_RDONLY)
    except OSError:
        # Whoever reads there says what is missing.
        yield
        return
    try:
        yield
    except Exception as error:
        # What an export mixed with another one led to is no error of either.
        _expect_same(descriptor, built, error)
        raise
    else:
        _expect_same(descriptor, built)
    finally:
        os.close(descriptor)


def _expect_same(descriptor: int, built: Path, error: Exception | None = None) -> None:
    if not built.exists() or not os.path.samestat(os.fstat(descriptor), built.stat()):
        raise _mixed(built) from error


@contextmanager
def _read_from(built: Path) -> Iterator[None]:
    """For a moment, while another export takes its place, the folder is not there."""
    try:
        yield
    except (FileNotFoundError, CardError) as error:
        if isinstance(error.__cause__ or error, FileNotFoundError):
            raise _mixed(built) from error
        raise


def _mixed(built: Path) -> MixedExportError:
    return MixedExportError(f"{built}: another process has exported it anew meanwhile; run this again")
