"""The one error every failure of this package derives from, so that a command can report it plainly."""

from collections.abc import Iterator
from contextlib import contextmanager


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
