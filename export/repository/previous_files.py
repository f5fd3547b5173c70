"""Files beside a model's graphs, as they were before a change. They are put back where no server loads what came."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from export.card import CARD_FILE
from export.configuration.model_config import CONFIG_FILE
from export.repository.pinned_version import LABELS


@dataclass(frozen=True)
class PreviousFiles:
    """Files of a model's folder by their paths in it: configuration and labels, card and labels of a version."""

    files: Mapping[str, bytes]

    @classmethod
    def of(cls, model: Path, version: Path) -> "PreviousFiles":
        """What there is now.

        Args:
            model: the model's folder, which may not be there.
            version: that of the version that is served.
        """
        paths = [model / CONFIG_FILE, *model.glob(f"*{LABELS}"), version / CARD_FILE, *version.glob(f"*{LABELS}")]
        return cls({str(path.relative_to(model)): path.read_bytes() for path in paths if path.is_file()})

    @property
    def configuration(self) -> Mapping[str, bytes]:
        """The model's own files: configuration and labels."""
        return {name: content for name, content in self.files.items() if "/" not in name}

    @property
    def of_version(self) -> Mapping[str, bytes]:
        """The version's."""
        return {name: content for name, content in self.files.items() if "/" in name}


def labels_in(folder: Path) -> dict[str, bytes]:
    """The labels of a model that are in force, or those that a version was published with."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob(f"*{LABELS}"))}
