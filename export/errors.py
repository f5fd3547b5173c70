"""The one error every failure of this package derives from, so that a command can report it plainly."""


class ExportError(Exception):
    """Something about a model, its source or its files is not as it must be. The message says what."""


class DefinitionError(ExportError):
    """A definition contradicts itself, or a tensor contradicts its definition."""
