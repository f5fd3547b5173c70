"""The choice of a recipe in a call of `fairlane quantize`: by a search or within a size, with progress and a table."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from export.errors import ExportError
from export.graph.external_data import graph_bytes
from export.repository.build_folder import built_folder
from export.repository.version_content import FP32_FILE
from quantize.judging.verdict import quantized_bytes
from quantize.recipe import Recipe
from quantize.reporting import plot
from quantize.reporting.report import search_file
from quantize.reporting.table import sensitivity_table, trials_table
from quantize.searching.search import TRIALS, choose, headline, search
from quantize.searching.sensitivity import Sensitivity, given_back, sensitivities, tried_layers, within_budget
from quantize.tasks.task import Task

Step = Callable[[str], None]


class BudgetError(ExportError):
    """A size that no choice of layers can be held to: less than all in INT8 takes, or as much as all in FP32."""


def searched(name: str, task: Task, build: Path, console: Console) -> tuple[Recipe, str]:
    """The best of a task's candidates, and why. Prints the table; what was measured is kept, with a plot beside it."""
    built = built_folder(build, name)
    peers, shapes = len(task.peers()), len(task.latency_feeds(built))
    with _progress(console, 2 * len(task.candidates) + 1 + peers + shapes) as step:
        trials = search(task, built, step)
    best, choice = choose(task, trials)
    file = search_file(build, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(TRIALS.dump_json(trials, indent=2))
    file.with_suffix(".png").write_bytes(plot.png(plot.pareto(name, trials, headline(task))))
    console.print(trials_table(name, trials, headline(task)))
    console.print(f"{choice}\n{file.with_suffix('.png')}", highlight=False, soft_wrap=True)
    return task.candidates[best.name], choice


def within(
    name: str, task: Task, recipe: Recipe, build: Path, console: Console, budget_mb: float, most: int
) -> tuple[Recipe, str]:
    """A recipe without the layers that cost the most accuracy, as far as the file stays within a size; and why.

    Raises:
        BudgetError: the file is larger with every layer in INT8, or no larger with every one in FP32.
    """
    built = built_folder(build, name)
    bare = quantized_bytes(task, recipe, built)
    if bare > budget_mb * 1e6:
        raise BudgetError(
            f"--budget-mb: expected {_round(bare, ROUND_CEILING)} or more, as all of {name} in INT8 takes, "
            f"got {budget_mb:g}"
        )
    whole = graph_bytes(built / FP32_FILE)
    if whole <= budget_mb * 1e6:
        raise BudgetError(
            f"--budget-mb: expected less than {_round(whole, ROUND_FLOOR)}, as all of {name} in FP32 takes, "
            f"got {budget_mb:g}"
        )
    spare = budget_mb * 1e6 - bare
    with _progress(console, len(tried_layers(recipe, built, most))) as step:
        found = sensitivities(task, recipe, built, step, most)
    kept = within_budget(found, spare)
    with console.status(f"{name}: measuring the size"):
        # What layers share is not in what each saves alone.
        while kept and (excess := quantized_bytes(task, _without(recipe, kept), built) - budget_mb * 1e6) > 0:
            kept = given_back(kept, excess)
    console.print(sensitivity_table(name, found, [one.layer for one in kept]))
    choice = f"{len(kept)} of {len(found)} layers in FP32, those that cost the most accuracy, within {budget_mb:g} MB"
    return _without(recipe, kept), choice


def _round(size_bytes: int, towards: str) -> str:
    """Bytes as MB with three digits, rounded so that what is said is still allowed."""
    return f"{Context(prec=3, rounding=towards).create_decimal(size_bytes).scaleb(-6):f}"


def _without(recipe: Recipe, kept: Sequence[Sensitivity]) -> Recipe:
    names = [name for one in kept for name in (one.layer, *one.shared)]
    return recipe.model_copy(update={"exclude": (*recipe.exclude, *names)})


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Step]:
    columns = (SpinnerColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=total)

        def step(text: str) -> None:
            progress.update(bar, advance=1, description=text)

        yield step
