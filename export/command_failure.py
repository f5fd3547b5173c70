"""A failure of a command in one line. A fault of a file or the machine has no traceback; a bug of Fairlane has one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from export.catalog.catalog import blame
from export.errors import ExportError
from export.inference.session import absent


@contextmanager
def told(typed: Sequence[str]) -> Iterator[None]:
    """Tell errors as click does. Those that are a fault of this project keep their traceback.

    Args:
        typed: the names and paths of the command: what fails in a definition's file is told with its line.
    """
    try:
        yield
    except ExportError as error:
        raise click.ClickException(str(error)) from error
    except (Exception, SystemExit) as error:  # a definition's own sys.exit would end the command as if all was well
        found = blame(error, typed) or absent(error) or (error if isinstance(error, OSError) else None)
        if found is None:
            raise
        raise click.ClickException(str(found)) from error
