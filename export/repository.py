"""The model repository: what Triton serves, `NAME/1/model.onnx` beside `NAME/config.pbtxt`.

A version folder holds everything about the model in it: the graph, the assets its callers need, and the
card. It is replaced as a whole, so the card always describes the graph it lies with.
"""

import contextlib
import shutil
from pathlib import Path
from typing import Final

from export.card import CARD_FILE, CardError, ModelCard, read_card
from export.folder import recover, replacing

VERSION: Final = "1"
MODEL_FILE: Final = "model.onnx"
CONFIG_FILE: Final = "config.pbtxt"
FP32_FILE: Final = "fp32.onnx"

DEFAULT_REPOSITORY: Final = Path("model_repository")
DEFAULT_BUILD: Final = Path("build")

# The configurations that are committed, for a repository that is not this one.
COMMITTED: Final = Path(__file__).parents[1] / DEFAULT_REPOSITORY


def built_folder(build: Path, name: str) -> Path:
    """Where the export of a model lies: `fp32.onnx`, the card and the assets."""
    return build / "models" / name


def is_built(build: Path, name: str) -> bool:
    """Whether a finished export lies in the build folder, with a card that can be read."""
    folder = built_folder(build, name)
    recover(folder)
    with contextlib.suppress(CardError):
        read_card(folder)
        return (folder / FP32_FILE).is_file()
    return False


class Repository:
    """A Triton model repository on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def version_folder(self, name: str) -> Path:
        """The folder of the one version that Fairlane keeps of a model."""
        return self.folder / name / VERSION

    def serves(self, name: str) -> bool:
        """Whether there is something to serve. Repairs what a crash while publishing left behind."""
        version = self.version_folder(name)
        recover(version)
        return (version / MODEL_FILE).is_file()

    def card(self, name: str) -> ModelCard | None:
        """The card of the served model; None where the model was not put there by Fairlane.

        Raises:
            CardError: there is a card, and it cannot be read.
        """
        version = self.version_folder(name)
        return read_card(version) if (version / CARD_FILE).is_file() else None

    def publish(self, card: ModelCard, onnx_path: Path, assets: Path) -> Path:
        """Serve this graph from now on, in place of any before it.

        Args:
            card: describes the graph; its name is the model's.
            onnx_path: the graph.
            assets: a built folder; all its files but the graph and the card go along.

        Returns:
            The version folder.
        """
        version = self.version_folder(card.name)
        self._provide_config(card.name)
        with replacing(version) as new:
            shutil.copyfile(onnx_path, new / MODEL_FILE)
            for file in assets.iterdir():
                if file.name not in (FP32_FILE, CARD_FILE):
                    shutil.copyfile(file, new / file.name)
            card.write(new)
        return version

    def _provide_config(self, name: str) -> None:
        config, committed = self.folder / name / CONFIG_FILE, COMMITTED / name / CONFIG_FILE
        if not config.exists() and committed.exists():
            config.parent.mkdir(parents=True, exist_ok=True)
            new = config.with_name(f".{CONFIG_FILE}.new")
            shutil.copyfile(committed, new)
            new.replace(config)
