"""Options that several commands have."""

import math
from pathlib import Path
from typing import Any, Final

import click

from export.repository.repository import DEFAULT_REPOSITORY


class Finite(click.FloatRange):
    """A range of numbers without NaN, which compares false with every bound, and without infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click."""
        number: float = super().convert(value, param, ctx)
        return number if math.isfinite(number) else self.fail(f"{value} is not a finite number.", param, ctx)


# As of `fairlane export` and `serve`: where one is, not where this is installed.
REPOSITORY: Final = click.option(
    "--model-repository",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=DEFAULT_REPOSITORY,
    show_default=True,
)
