"""The build folder, `build/`: exports lie in it, whole, before and after they are published."""

import contextlib
from pathlib import Path
from typing import Final

from export.card import CardError, read_card
from export.filesystem.atomic_folder import recover
from export.repository.version_content import FP32_FILE

DEFAULT_BUILD: Final = Path("build")


def built_folder(build: Path, name: str) -> Path:
    """Where the export of a model lies: `fp32.onnx`, the configuration, the card and the assets."""
    return build / "models" / name


def kept_folder(build: Path, name: str) -> Path:
    """Where what quantizing computed lies until it is published."""
    return build / "quantize" / name / "kept"


def is_built(build: Path, name: str) -> bool:
    """Whether a finished export lies in the build folder, with a card that can be read."""
    folder = built_folder(build, name)
    recover(folder)
    with contextlib.suppress(CardError):
        read_card(folder)
        return (folder / FP32_FILE).is_file()
    return False
