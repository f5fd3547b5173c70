"""ExportError: every error of this package derives from it. A command shows such an error in one line."""

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError


class ExportError(Exception):
    """Something about a model, its source or its files is not as it must be. The message says what."""


class DefinitionError(ExportError):
    """A definition contradicts itself, or a tensor contradicts its definition."""


@contextmanager
def about(name: str) -> Iterator[None]:
    """Put a model's name in front of errors that do not name it."""
    try:
        yield
    except ExportError as error:
        if name in str(error):
            raise
        raise ExportError(f"{name}: {error}") from error


def faults(error: ValidationError) -> str:
    """Each field that is not as it must be, why, and what came."""
    every = error.errors()
    return "; ".join(
        f"{'.'.join(map(str, one['loc']))}: {one['msg'].lower()}, got {reprlib.repr(one['input'])}" for one in every
    )
