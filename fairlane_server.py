"""The `fairlane` command. It makes sure that Fairlane's packages are Fairlane's, and runs scheduler.cli.

The packages have plain names, such as `scheduler` and `export` (docs/decisions/0066). Another distribution may have
packages of the same names. One of them in front of ours, or written over ours, is an error here and never a surprise.
"""

import base64
import hashlib
import sys
from importlib import import_module, util
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

DISTRIBUTION: Final = "fairlane-server"
PACKAGES: Final = ("scheduler", "export", "quantize", "bench", "simulate")
ADVICE: Final = (
    "Install fairlane-server in an environment of its own, and look at PYTHONPATH and the working folder "
    "(docs/how-to/install.md)."
)


class CollisionError(RuntimeError):
    """A package that Fairlane needs is somebody else's, or is missing."""


def main() -> None:
    """Run the `fairlane` command; exit with 1 and one line where a package is not Fairlane's."""
    try:
        check()
    except CollisionError as error:
        sys.exit(f"Error: {error}")
    import_module("scheduler.cli").main()


def check() -> None:
    """Look at each of PACKAGES, without importing it.

    Raises:
        CollisionError: one is missing, they do not lie in one folder, or another distribution wrote over one.
    """
    folders = {name: _folder(name) for name in PACKAGES}
    if len(set(folders.values())) > 1:
        found = ", ".join(f"{name} in {folder}" for name, folder in folders.items())
        raise CollisionError(
            f"another package has the name of one of Fairlane's: expected all in one folder, got {found}. {ADVICE}"
        )
    for path in _overwritten():
        raise CollisionError(f"{path} is not Fairlane's any more: another distribution wrote over it. {ADVICE}")


def _folder(name: str) -> Path:
    """Where the package lies; of a module of that name, the module's own path, which is no package's folder."""
    spec = util.find_spec(name)
    if spec is None or spec.origin is None:
        raise CollisionError(f"the package {name} is missing or has no __init__.py. {ADVICE}")
    origin = Path(spec.origin)
    return origin if spec.submodule_search_locations is None else origin.parents[1]


def _overwritten() -> list[Path]:
    """Files of ours that have another content than the wheel had. Of an editable install none is known."""
    try:
        files = distribution(DISTRIBUTION).files or []
    except PackageNotFoundError:
        return []
    ours = [file for file in files if file.parts[1:] == ("__init__.py",) and file.parts[0] in PACKAGES and file.hash]
    changed = []
    for file in ours:
        assert file.hash is not None
        digest = hashlib.new(file.hash.mode, file.read_binary()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            changed.append(Path(str(file.locate())))
    return changed


if __name__ == "__main__":
    main()
