"""The model repository: what Triton serves, `NAME/VERSION/model.onnx` beside `NAME/config.pbtxt`.

A version folder holds everything about the model in it: the graph, the assets its callers need, and the card.
Versions only move forward: publishing makes a new number, and so does going back, whose new version holds the content
of an old one. The newest is served (Triton's `latest { num_versions: 1 }`), so every change of what is served is one
rename of a finished folder, and a crash at any point leaves the version before (docs/decisions/0012).
"""

import contextlib
import filecmp
import os
import shutil
from pathlib import Path
from typing import Final

from export.card import CARD_FILE, CardError, ModelCard, read_card
from export.config import CONFIG_FILE, parse_config
from export.errors import ExportError
from export.folder import appearing, discard, locked, recover, write_file

FIRST_VERSION: Final = 1
MODEL_FILE: Final = "model.onnx"
FP32_FILE: Final = "fp32.onnx"
LABELS: Final = "_labels.txt"
# The served version and those to go back to. More would fill a disk with what nobody asks for.
KEPT_VERSIONS: Final = 4

DEFAULT_REPOSITORY: Final = Path("model_repository")
DEFAULT_BUILD: Final = Path("build")

# The configurations that are committed, for a repository that is not this one.
COMMITTED: Final = Path(__file__).parents[1] / DEFAULT_REPOSITORY


class VersionError(ExportError):
    """A version is not there, or cannot be what was asked of it."""


def built_folder(build: Path, name: str) -> Path:
    """Where the export of a model lies: `fp32.onnx`, the configuration, the card and the assets."""
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

    def names(self) -> tuple[str, ...]:
        """The models that have a version."""
        found = sorted(path.name for path in self.folder.glob("*") if path.is_dir())
        return tuple(name for name in found if self.versions(name))

    def versions(self, name: str) -> tuple[int, ...]:
        """The versions with a graph in them, oldest first. The last one is served."""
        folders = [path for path in (self.folder / name).glob("*") if path.name.isdecimal()]
        return tuple(sorted(int(path.name) for path in folders if (path / MODEL_FILE).is_file()))

    def version_folder(self, name: str, version: int | None = None) -> Path:
        """The folder of a version; of the served one by default, or of the first where there is none yet."""
        if version is None:
            version = max(self.versions(name), default=FIRST_VERSION)
        return self.folder / name / str(version)

    def serves(self, name: str) -> bool:
        """Whether there is something to serve."""
        return bool(self.versions(name))

    def card(self, name: str, version: int | None = None) -> ModelCard | None:
        """The card of a version, by default the served one; None where Fairlane did not put it there.

        Raises:
            CardError: there is a card, and it cannot be read.
        """
        folder = self.version_folder(name, version)
        return read_card(folder) if (folder / CARD_FILE).is_file() else None

    def publish(self, card: ModelCard, onnx_path: Path, assets: Path, *, configure: bool = False) -> Path:
        """Serve this graph from now on, as a new version.

        Where the served version has the same graph and assets already, only its card is replaced. Of older versions
        the newest few stay to go back to.

        Args:
            card: describes the graph; its name is the model's.
            onnx_path: the graph.
            assets: a built folder. Its configuration and labels become the model's where it has none; the other
                files but the graph and the card go along with the version.
            configure: replace the model's configuration and labels too, when the version is there.

        Returns:
            The version folder.

        Raises:
            FolderBusyError: another process is publishing this model.
            OSError: the disk is full, for one. What was served stays so.
        """
        files = {MODEL_FILE: onnx_path}
        for file in sorted(assets.iterdir()):
            if file.name not in (FP32_FILE, CARD_FILE, CONFIG_FILE) and not file.name.endswith(LABELS):
                files[file.name] = file
        (self.folder / card.name).mkdir(parents=True, exist_ok=True)
        with locked(self.folder / card.name):
            self._provide_config(card.name, assets)
            served = self.version_folder(card.name)
            if _holds(served, files):
                card.write(served)
                if configure:
                    self._write_config(card.name, assets)
                return served
            target = self._next(card.name)
            with appearing(target) as new:
                for name, file in files.items():
                    shutil.copyfile(file, new / name)
                card.write(new)
            if configure:
                self._configure_or_undo(card.name, assets, target)
            self._forget_oldest(card.name)
        return target

    def configure(self, name: str, built: Path) -> None:
        """Replace the model's configuration and labels by those of a built folder."""
        self.folder.joinpath(name).mkdir(parents=True, exist_ok=True)
        with locked(self.folder / name):
            self._write_config(name, built)

    def rewrite_config(self, name: str, text: str) -> None:
        """Replace the model's configuration by this text; its labels stay.

        Raises:
            ConfigError: the text is not a model configuration.
            FolderBusyError: another process is publishing this model.
        """
        parse_config(text, CONFIG_FILE)
        with locked(self.folder / name):
            write_file(self.folder / name / CONFIG_FILE, text.encode())

    def has_config_of(self, name: str, built: Path) -> bool:
        """Whether the model's configuration is the one in the built folder, however it is written."""
        texts = [folder / CONFIG_FILE for folder in (self.folder / name, built)]
        if not all(path.is_file() for path in texts):
            return True
        first, second = (parse_config(path.read_text(encoding="utf-8"), path) for path in texts)
        return bool(first == second)

    def promote(self, name: str, version: int) -> int:
        """Serve an older version's content again, as a new version. Costs no disk where it has hard links.

        Returns:
            The new version's number; `version` itself where it is served already.

        Raises:
            VersionError: there is no such version, or the model is not served by its newest version.
        """
        self.expect(name, version)
        with locked(self.folder / name):
            if version == self.versions(name)[-1]:
                return version
            target = self._next(name)
            with appearing(target) as new:
                for file in sorted(self.version_folder(name, version).iterdir()):
                    _link(file, new / file.name)
            self._forget_oldest(name)
        return int(target.name)

    def earlier(self, name: str) -> int:
        """The version to roll back to: the newest from before the content that is served now.

        Raises:
            VersionError: there is nothing earlier.
        """
        versions = self.versions(name)
        self.expect(name, max(versions, default=FIRST_VERSION))
        served = self.version_folder(name) / MODEL_FILE
        alike = [
            each
            for each in versions
            if filecmp.cmp(served, self.version_folder(name, each) / MODEL_FILE, shallow=False)
        ]
        earlier = [each for each in versions if each < alike[0]]
        if not earlier:
            raise VersionError(
                f"{name}: there is nothing earlier than version {versions[-1]}, which has the content of {alike[0]}; "
                f"there are {list(versions)}"
            )
        return earlier[-1]

    def remove(self, name: str, version: int) -> None:
        """Delete a version that is not served.

        Raises:
            VersionError: there is no such version, or it is the one that is served.
        """
        self.expect(name, version)
        with locked(self.folder / name):
            if version == self.versions(name)[-1]:
                raise VersionError(f"{name}: version {version} is being served; promote another, or roll back, first")
            discard(self.version_folder(name, version))

    def withdraw(self, name: str, version: int) -> None:
        """Delete the newest version, which no server could load; the one before is served again.

        Raises:
            VersionError: it is the only one.
        """
        self.expect(name, version)
        with locked(self.folder / name):
            if self.versions(name) == (version,):
                raise VersionError(f"{name}: version {version} is the only one")
            discard(self.version_folder(name, version))

    def expect(self, name: str, version: int) -> None:
        """Refuse a version that cannot be gone back to.

        Raises:
            VersionError: there is no such version, or the model is not served by its newest one.
        """
        versions = self.versions(name)
        if version not in versions:
            known = f"there are {list(versions)}" if versions else f"known models: {', '.join(self.names()) or 'none'}"
            raise VersionError(f"{name}: no version {version} in {self.folder}; {known}")
        config = self.folder / name / CONFIG_FILE
        policy = parse_config(config.read_text(encoding="utf-8"), config).version_policy
        # Triton's default, where nothing is said, is the newest one too.
        if policy.WhichOneof("policy_choice") not in (None, "latest"):
            raise VersionError(
                f"{config}: version_policy: expected latest, got {policy.WhichOneof('policy_choice')}: "
                "what is served is written there by hand"
            )

    def _next(self, name: str) -> Path:
        # Also beyond a folder without a graph, which somebody else may be filling.
        taken = [int(path.name) for path in (self.folder / name).glob("*") if path.name.isdecimal()]
        return self.folder / name / str(max(taken, default=FIRST_VERSION - 1) + 1)

    def _forget_oldest(self, name: str) -> None:
        for left in self.folder.joinpath(name).glob(".*.trash"):
            shutil.rmtree(left, ignore_errors=True)
        for version in self.versions(name)[:-KEPT_VERSIONS]:
            discard(self.version_folder(name, version))

    def _provide_config(self, name: str, assets: Path) -> None:
        if not (self.folder / name / CONFIG_FILE).exists():
            self._write_config(name, assets if (assets / CONFIG_FILE).exists() else COMMITTED / name)

    def _configure_or_undo(self, name: str, assets: Path, version: Path) -> None:
        # The old version with the new configuration might not load, nor the new version with the old one.
        try:
            self._write_config(name, assets)
        except OSError:
            discard(version)
            raise

    def _write_config(self, name: str, source: Path) -> None:
        # Labels first: a configuration that names a file that is not there does not load.
        for path in (*sorted(source.glob(f"*{LABELS}")), source / CONFIG_FILE):
            if path.exists():
                write_file(self.folder / name / path.name, path.read_bytes())


def _holds(folder: Path, files: dict[str, Path]) -> bool:
    there = {path.name for path in folder.iterdir()} - {CARD_FILE} if folder.is_dir() else set()
    if there != set(files):
        return False
    return all(filecmp.cmp(folder / name, file, shallow=False) for name, file in files.items())


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # A filesystem without hard links.
        shutil.copyfile(source, target)
