"""The catalog: which models there are, and how to get at their definitions.

Names are known without importing a definition, because definitions import torch and
`fairlane export --missing` must be instant where nothing is missing.
"""

import importlib
from collections.abc import Sequence
from typing import Final, cast

from export.definition import Definition
from export.errors import ExportError

MODEL_NAMES: Final = ("minilm", "digits")


class UnknownModelError(ExportError):
    """A model was named that the catalog does not hold."""


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """The models a command is about: those named, or all of them where none is.

    Args:
        names: what the user typed; may repeat a name.

    Returns:
        Known names, each once, in the order given.

    Raises:
        UnknownModelError: a name is not in the catalog.
    """
    for name in names:
        if name not in MODEL_NAMES:
            raise UnknownModelError(f"unknown model {name!r}: expected one of {', '.join(MODEL_NAMES)}")
    return tuple(dict.fromkeys(names)) or MODEL_NAMES


def load_definition(name: str) -> Definition:
    """Import `export.models.NAME` (and with it torch) and return its `DEFINITION`.

    Raises:
        UnknownModelError: the name is not in the catalog.
    """
    (known,) = chosen([name])
    return cast(Definition, importlib.import_module(f"export.models.{known}").DEFINITION)
