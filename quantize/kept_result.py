"""A quantized graph that took minutes, kept on disk until it is published.

The graph and its card lie in the build folder, as `quantize/NAME/kept`. They are deleted once they are published, and
loaded where a server was named. The next result takes their place, so a model has one at most. Nothing is computed
again because publishing failed.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from export.card import CARD_FILE, CardError, ModelCard, read_card
from export.errors import ExportError
from export.filesystem.atomic_folder import discard, put_back
from export.filesystem.folder_lock import locked
from export.repository.build_folder import kept_folder
from export.repository.config_compatibility import check_fit
from export.repository.previous_files import PreviousFiles
from export.repository.refused_version import clear
from export.repository.repository import Repository
from export.repository.version_content import FP32_FILE, MODEL_FILE


class NothingKeptError(ExportError):
    """There is nothing to publish that was computed before."""


@dataclass(frozen=True)
class Published:
    """What is served of a model from now on; `new` says whether the version was made for it.

    `before` is what lay beside the graphs before.
    """

    card: ModelCard
    version: int
    new: bool
    before: PreviousFiles


@contextmanager
def keeping(build: Path, name: str) -> Iterator[Path]:
    """Be the only one that quantizes a model in a build folder.

    Yields:
        Where the result is kept; nothing is there where all was published.

    Raises:
        FolderBusyError: another process is at it. Says which.
    """
    kept = kept_folder(build, name)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with locked(kept.parent):
        put_back(kept)
        yield kept


def expect_kept(kept: Path, built: Path) -> None:
    """Refuse to publish what is not there, or was computed of another export.

    Raises:
        NothingKeptError: saying what to run.
        CardError: a card cannot be read.
    """
    if not (kept / CARD_FILE).is_file() or not (kept / MODEL_FILE).is_file():
        raise NothingKeptError(f"{kept}: nothing is kept there: quantize it without --kept")
    if not read_card(kept).is_of_export(read_card(built)):
        raise NothingKeptError(
            f"{kept}: expected a result of the export in {built}, got one of an earlier export: quantize it without "
            "--kept"
        )


def is_kept(kept: Path, built: Path) -> bool:
    """Whether something is there that was computed of an export, and can be published."""
    try:
        expect_kept(kept, built)
    except (NothingKeptError, CardError):
        return False
    return True


def publish(kept: Path, built: Path, repository: Repository) -> Published:
    """Serve what is kept: INT8, or the FP32 export where the gate refused it.

    Args:
        kept: from `keeping`.
        built: the folder of the export that it was computed of.
        repository: where to publish; one that waits for others.

    Raises:
        ConfigError: another process has meanwhile given the model a configuration that it does not fit.
        MixedExportError: another process has exported the model anew.
        FolderBusyError: another process has the model, and goes on for longer than one waits for.
        OSError: the disk is full, for one. What is served, and what is kept, stays as it was.
    """
    card = read_card(kept)
    passed = card.quantization is not None and card.quantization.passed
    with repository.changing(card.name):
        check_fit(repository, card.name, built / FP32_FILE)
        before, beside = repository.versions(card.name), repository.previous_files(card.name)
        version = int(repository.publish(card, kept / MODEL_FILE if passed else built / FP32_FILE, built).name)
    return Published(card, version, version not in before, beside)


def forget(kept: Path) -> None:
    """Delete what is published. What cannot be deleted goes when it is replaced."""
    with suppress(OSError):
        discard(kept)
        clear(kept)
