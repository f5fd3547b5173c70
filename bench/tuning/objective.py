"""What `fairlane capacity` and `fairlane tune` are asked alike: a model, its requests, and the p99 that is to hold."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import click

from bench.load.stream import Stream
from bench.terminal.options import REPOSITORY, Finite

OPTIONS: Final = (
    click.argument("model"),
    click.option("--p99-ms", type=Finite(min=0, min_open=True), required=True, help="The objective."),
    click.option("--rows", type=click.IntRange(min=1), default=1, show_default=True, help="Rows of one request."),
    click.option("--seq", type=click.IntRange(min=1), default=32, show_default=True, help="Size of open dimensions."),
    click.option("--seed", default=1, show_default=True, help="Seed of arrivals and request values."),
    REPOSITORY,
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout."),
)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The flags of OPTIONS, by their names."""

    model: str
    p99_ms: float
    rows: int
    seq: int
    seed: int
    model_repository: Path
    as_json: bool

    def stream(self, tenant: str) -> Stream:
        """The requests, under the name of a tenant; each load has a rate of its own."""
        about = {"model": self.model, "rows": self.rows, "seq": self.seq}
        return Stream.model_validate({"class": "interactive", "tenant": tenant, "rate_per_s": 1} | about)


def objective_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of OPTIONS; it gets them as one `Objective`, before its own."""

    @functools.wraps(command)
    def gathered(**given: Any) -> None:
        objective = Objective(**{field.name: given.pop(field.name) for field in fields(Objective)})
        command(objective, **given)

    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(OPTIONS), gathered)
