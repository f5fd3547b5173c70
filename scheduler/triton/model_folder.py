"""A model's folder in a repository, as far as it is looked at before Triton reads it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

COMMENT: Final = re.compile(r"#[^\n]*")
# Without these a configuration is one for Triton to complete.
FIELDS: Final = tuple(re.compile(rf"\b{name}\s*[:\[{{]") for name in ("input", "output", "(?:backend|platform)"))
ENSEMBLE: Final = re.compile(r"\bensemble_scheduling\b")
STEP: Final = re.compile(r"""\bmodel_name\s*:\s*["']([^"']+)["']""")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """The folder of one model, with `config.pbtxt` and a folder for each version.

    Attributes:
        path: its name is the model's.
    """

    path: Path

    @property
    def name(self) -> str:
        """The model's name."""
        return self.path.name

    @property
    def incomplete(self) -> bool:
        """Whether its configuration says nothing of inputs, outputs or backend, so that Triton has to complete it."""
        text = self._configuration()
        return not all(field.search(text) for field in FIELDS)

    @property
    def steps(self) -> frozenset[str]:
        """The models that an ensemble is made of; none for another model."""
        text = self._configuration()
        return frozenset(STEP.findall(text)) if ENSEMBLE.search(text) else frozenset()

    def changed_at_ns(self) -> int:
        """When anything in it was last written, by the files' clock; a file that is added or taken away counts."""
        times = [0]
        for path in (self.path, *self.path.rglob("*")):
            try:
                times.append(path.stat().st_mtime_ns)
            except OSError:  # just gone
                continue
        return max(times)

    def _configuration(self) -> str:
        try:
            return COMMENT.sub("", (self.path / "config.pbtxt").read_text(errors="replace"))
        except OSError:
            return ""


def folders(repository: Path) -> list[ModelFolder]:
    """The models of a repository, by name; names with a dot in front are what tools keep beside them.

    Raises:
        OSError: it cannot be read.
    """
    return [ModelFolder(path) for path in sorted(repository.iterdir()) if path.is_dir() and path.name[0] != "."]
