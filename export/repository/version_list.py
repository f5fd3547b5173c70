"""The versions in a model repository: which there are, which is served, which a rollback can use. Only reads."""

import filecmp
from pathlib import Path
from typing import Final

from export.card import ModelCard, has_card, read_card
from export.configuration.model_config import CONFIG_FILE, has_config, read_config
from export.errors import ExportError
from export.repository.pinned_version import LABELS
from export.repository.version_content import MODEL_FILE, content_names

FIRST_VERSION: Final = 1


class VersionError(ExportError):
    """A version is not there, or cannot be what was asked of it."""


class Versions:
    """What there is in a Triton model repository on disk.

    Args:
        folder: where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> tuple[str, ...]:
        """The models that have a version."""
        found = sorted(path.name for path in self.folder.glob("[!.]*") if path.is_dir())
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
        return read_card(folder) if has_card(folder) else None

    def differing(self, name: str, built: Path) -> tuple[str, ...]:
        """Which of a built folder's configuration, however it is written, and labels are not those of the model.

        Returns:
            The names of the files; none where the model or the folder has no configuration.

        Raises:
            ConfigError: one of them cannot be read.
        """
        model = self.folder / name
        if not has_config(model) or not has_config(built):
            return ()
        first, second = (read_config(folder / CONFIG_FILE) for folder in (model, built))
        labels = [path.name for path in sorted(built.glob(f"*{LABELS}")) if not same_file(path, model / path.name)]
        return (*([] if first == second else [CONFIG_FILE]), *labels)

    def earlier(self, name: str) -> int:
        """The version to roll back to: the newest from before the content that is served now.

        Raises:
            VersionError: there is nothing earlier.
        """
        versions = self.versions(name)
        self.expect(name, max(versions, default=FIRST_VERSION))
        served = self.version_folder(name)
        alike = [each for each in versions if same_content(served, self.version_folder(name, each))]
        earlier = [each for each in versions if each < alike[0]]
        if not earlier:
            raise VersionError(
                f"{name}: there is nothing earlier than version {versions[-1]}, which has the content of {alike[0]}; "
                f"there are {list(versions)}"
            )
        return earlier[-1]

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
        policy = read_config(config).version_policy
        # Triton's default, where nothing is said, is the newest one too.
        if policy.WhichOneof("policy_choice") not in (None, "latest"):
            raise VersionError(
                f"{config}: version_policy: expected latest, got {policy.WhichOneof('policy_choice')}: "
                "somebody has written there what is served. Change it there"
            )


def same_content(first: Path, second: Path) -> bool:
    """Whether two versions have the same files, whatever their cards and labels say."""
    names, others = content_names(first), content_names(second)
    return names == others and all(same_file(first / name, second / name) for name in names)


def same_file(first: Path, second: Path) -> bool:
    """Whether two files have the same content; one that is not there has none."""
    return second.is_file() and filecmp.cmp(first, second, shallow=False)


def same_bytes(path: Path, content: bytes) -> bool:
    """Whether a file is there and has this content."""
    return path.is_file() and path.read_bytes() == content
