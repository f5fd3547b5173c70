"""A result that took minutes and could not be published: where it stays, and which command publishes it."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from export.errors import ExportError
from export.filesystem.folder_lock import Tell
from export.repository.build_folder import DEFAULT_BUILD
from export.repository.repository import DEFAULT_REPOSITORY
from export.repository.version_content import MixedExportError


class UnpublishedError(ExportError):
    """Something stood in the way of publishing; what was computed is there."""


@contextmanager
def staying(computed: Path, command: str, tell: Tell) -> Iterator[None]:
    """Say of what ends a publication that nothing is lost by it.

    Args:
        computed: where it stays.
        command: publishes it, and computes nothing.
        tell: told where the user interrupts it.

    Raises:
        UnpublishedError: in place of an error of this project or of the system.
        MixedExportError: as it came; then what was computed is of no use.
    """
    told = stays(computed, command)
    try:
        yield
    except MixedExportError:
        # It is of an export that is there no longer.
        raise
    except (ExportError, OSError) as error:
        raise UnpublishedError(f"{error}; {told}") from error
    except KeyboardInterrupt:
        tell(told)
        raise


def stays(computed: Path, command: str) -> str:
    """What is told of it."""
    return f"what was computed stays in {computed}, and `{command}` publishes it"


def command(words: tuple[str, ...], model_repository: Path, build_dir: Path, server: str | None) -> str:
    """A command line with the places that this call was given, where they are not the default ones."""
    options = {
        "--model-repository": (model_repository, DEFAULT_REPOSITORY),
        "--build-dir": (build_dir, DEFAULT_BUILD),
        "--server": (server, None),
    }
    given = [(flag, str(value)) for flag, (value, default) in options.items() if value != default]
    return shlex.join(["fairlane", *words, *(word for pair in given for word in pair)])
