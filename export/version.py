"""What goes into a version's folder, and beside it: copied from the folder of one export, and of no other."""

import filecmp
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from export.card import CARD_FILE, ModelCard, read_card
from export.config import CONFIG_FILE
from export.errors import ExportError
from export.folder import naming, write_file
from export.pin import LABELS

MODEL_FILE: Final = "model.onnx"
FP32_FILE: Final = "fp32.onnx"


class MixedExportError(ExportError):
    """An export was replaced by another while it was being read."""


def files_of(onnx_path: Path, assets: Path) -> dict[str, Path]:
    """The files of a version but its card, by name: the graph, and what its callers need of a built folder."""
    beside = [path for path in sorted(assets.iterdir()) if not path.name.endswith(LABELS)]
    return {MODEL_FILE: onnx_path} | {
        path.name: path for path in beside if path.name not in (FP32_FILE, CARD_FILE, CONFIG_FILE)
    }


def write_config_of(model: Path, source: Path) -> None:
    """Give a model the configuration and the labels that lie in `source`."""
    # Labels first: a configuration that names a file that is not there does not load.
    for path in (*sorted(source.glob(f"*{LABELS}")), source / CONFIG_FILE):
        if path.exists():
            write_file(model / path.name, path.read_bytes())


def fill(version: Path, card: ModelCard, files: Mapping[str, Path], assets: Path) -> None:
    """Copy a version's files and write its card.

    Raises:
        MixedExportError: `assets`, from which they come, is no longer the export that the card describes.
        OSError: naming a file.
    """
    try:
        for name, file in files.items():
            with naming(version / name):
                shutil.copyfile(file, version / name)
        card.write(version)
        # What is copied is of one export: a folder that another took the place of has another card.
        if read_card(assets).fp32_sha256 == card.fp32_sha256:
            return
    except FileNotFoundError as error:
        raise MixedExportError(f"{assets}: another process is exporting it anew; wait for it to end") from error
    raise MixedExportError(f"{assets}: another process has exported it anew meanwhile; run this again")


def holds(folder: Path, files: Mapping[str, Path]) -> bool:
    """Whether a version's folder has these files, by name and content, and a card at most."""
    there = {path.name for path in folder.iterdir()} - {CARD_FILE} if folder.is_dir() else set()
    if there != set(files):
        return False
    return all(filecmp.cmp(folder / name, file, shallow=False) for name, file in files.items())
