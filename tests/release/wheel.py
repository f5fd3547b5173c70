"""Both wheels, built from a copy of the tree with the setuptools that is here: no network, a second each."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("scheduler", "export", "quantize", "bench", "simulate")
BUILT = re.compile(r"\.so(\.|$)")
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


@dataclass(frozen=True)
class Wheel:
    """A wheel that lies on the disk."""

    path: Path

    @property
    def names(self) -> set[str]:
        """Every file in it, but those of its .dist-info."""
        return {name for name in self.all_names if ".dist-info/" not in name}

    @property
    def all_names(self) -> set[str]:
        with zipfile.ZipFile(self.path) as archive:
            return set(archive.namelist())

    def read(self, ending: str) -> bytes:
        """The one file in it whose name ends so."""
        with zipfile.ZipFile(self.path) as archive:
            (name,) = (each for each in archive.namelist() if each.endswith(ending))
            return archive.read(name)

    @property
    def metadata(self) -> Message:
        return BytesParser().parsebytes(self.read(".dist-info/METADATA"))


def build(source: Path, target: Path) -> Wheel:
    """The wheel of the project in `source`, which is written to on the way."""
    target.mkdir()
    ours = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", BUILD, str(target)]
    built = subprocess.run(command, cwd=source, env=ours, capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = target.iterdir()
    return Wheel(path)


def copy_of_tree(target: Path) -> Path:
    """What the wheels are built of, copied, so that nothing is built in the tree itself."""
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.so", "*.so.*")
    for name in (*PACKAGES, "client"):
        shutil.copytree(ROOT / name, target / name, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "fairlane_server.py"):
        shutil.copy(ROOT / name, target)
    return target


def files_of(*packages: str, below: Path = ROOT) -> set[str]:
    """What lies in these folders, as a wheel names it; but what was built there, which is for this machine alone."""
    return {
        str(path.relative_to(below))
        for package in packages
        for path in (below / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not BUILT.search(path.name)
    }
