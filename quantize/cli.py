"""The commands `fairlane quantize` and `fairlane quantize-report`."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console

from export.card import CardError, ModelCard, Quantization, read_card
from export.catalog.catalog import chosen, is_path, load_definition, named_in
from export.command_failure import told
from export.errors import about
from export.filesystem.folder_lock import waiting_on
from export.repository.build_folder import DEFAULT_BUILD, built_folder, is_built, kept_folder
from export.repository.refused_version import note, refusal
from export.repository.repository import DEFAULT_REPOSITORY, Repository
from export.repository.server_load import WithdrawnError, bring_into_service
from export.repository.unpublished_export import UnpublishedError, command, staying, stays
from export.repository.version_content import FP32_FILE, unreplaced

if TYPE_CHECKING:
    from quantize.recipe import Recipe
    from quantize.tasks.task import Task

# By default, of the report on layers and of --budget-mb. A large graph takes many seconds a layer.
LAYERS_TRIED: Final = 64
DEFAULT_REPORT: Final = DEFAULT_BUILD / "quantize" / "report.html"

_repository_option = click.option(
    "--model-repository",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_REPOSITORY,
    show_default=True,
    help="Where models are published: NAME/1/model.onnx and assets.",
)
_build_option = click.option(
    "--build-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_BUILD,
    show_default=True,
    help="Where `fairlane export` left its exports.",
)
_layers_option = click.option(
    "--layers",
    type=click.IntRange(min=1),
    default=LAYERS_TRIED,
    show_default=True,
    help="How many layers to quantize alone, those with most weights; each is a quantization of the whole graph.",
)


def _refuse_nan(_context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    # A comparison with it is false, so that click's range lets it through.
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is not in the range x>0.", param=option)
    return value


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME | FILE.py]...")
@click.option("--missing", is_flag=True, help="Skip models that were judged before; a refusal is then not an error.")
@click.option("--search", is_flag=True, help="Try every candidate recipe side by side, and publish the best.")
@click.option(
    "--exclude",
    multiple=True,
    metavar="LAYER",
    help="Leave a layer in FP32: a node's name, a pattern, or after:OPERATOR. May be given several times.",
)
@click.option(
    "--budget-mb",
    type=click.FloatRange(min=0, min_open=True),
    callback=_refuse_nan,
    help="Leave the layers in FP32 that cost the most accuracy, as far as the file stays within this size.",
)
@_layers_option
@_repository_option
@_build_option
@click.option(
    "--kept", is_flag=True, help="Compute nothing: publish what an earlier call computed and could not publish."
)
@click.option("--server", metavar="HOST:PORT", help="A running Triton on this repository: load the version there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
def quantize(names: tuple[str, ...], missing: bool, as_json: bool, **options: Any) -> None:
    """Quantize exported models to INT8 behind an accuracy gate, and publish them.

    NAME is one of the catalog; without any: the default ones. FILE.py is a model definition of yours, which
    `fairlane export FILE.py` has exported: its calibration inputs, evaluation and gates are used. A model whose
    INT8 form loses more than its gate allows is published as FP32, and the command exits with 1. With --missing it
    exits with 0: what was asked for is a model to serve.
    """
    console, run = Console(stderr=True), _Quantize(missing=missing, **options)
    if run.kept and (missing or run.own_recipe):
        raise click.UsageError(
            "--kept computes nothing; it goes with none of --missing, --search, --exclude, --budget-mb"
        )
    with told(names):
        models = named(names)
        todo = [name for name in models if not (missing and run.is_done(name, models[name], console))]
        cards = [run.one(name, models[name], console) for name in todo]
        served = {name: run.repository.card(name) for name in models}
    _print(cards, served, todo, as_json)
    judged = {card.name: card.quantization for card in served.values() if card and card.quantization}
    for name, verdict in judged.items():
        _warn(name, verdict, console)
    if not missing and not all(verdict.passed for verdict in judged.values()):
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME | FILE.py]...")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT_REPORT,
    show_default=True,
    help="The HTML file; its plots are written beside it as PNG.",
)
@_layers_option
@_repository_option
@_build_option
def quantize_report(names: tuple[str, ...], output: Path, layers: int, model_repository: Path, build_dir: Path) -> None:
    """Write one HTML file about quantized models: size, latency, accuracy, layers, and the search if there was one."""
    console = Console(stderr=True)
    with told(names), console.status("importing ONNX Runtime") as status:
        # Imported late: onnxruntime and matplotlib take a second each.
        from quantize.reporting.report import write_report  # noqa: PLC0415
        from quantize.tasks.task_loading import load_task  # noqa: PLC0415

        tasks = {name: load_task(typed, build_dir) for name, typed in named(names).items()}
        written = write_report(tasks, build_dir, Repository(model_repository), output, status.update, layers)
    for path in written:
        click.echo(path)


def named(typed: Sequence[str]) -> dict[str, str]:
    """The models a command is about: the name of each, and what was typed for it.

    Raises:
        UnknownModelError: a name is not in the catalog.
        DefinitionFileError: a file does not define a model.
    """
    plain = [one for one in typed if not is_path(one)]
    found = {name: name for name in chosen(plain)} if plain or not typed else {}
    return found | {load_definition(one).name: one for one in typed if is_path(one)}


def is_judged(name: str, repository: Repository, build: Path) -> bool:
    """Whether what is served of a model has been through the gate, and is of the export in the build folder.

    A refused model counts: trying again would give the same. So does a model that somebody else put there.
    """
    if not repository.serves(name):
        return False
    try:
        served = repository.card(name)
    except CardError:
        # Left by a version of Fairlane that wrote other cards.
        return False
    if served is None:
        return True
    if served.quantization is None:
        return False
    return not is_built(build, name) or read_card(built_folder(build, name)).is_of_export(served)


@dataclass(frozen=True)
class _Quantize:
    """One call of the command. Fields are named like the options."""

    model_repository: Path
    build_dir: Path
    search: bool
    exclude: tuple[str, ...]
    budget_mb: float | None
    layers: int
    missing: bool
    kept: bool
    server: str | None

    @property
    def repository(self) -> Repository:
        return Repository(self.model_repository)

    @property
    def own_recipe(self) -> bool:
        """Whether the call says something about the recipe."""
        return self.search or bool(self.exclude) or self.budget_mb is not None

    def is_done(self, name: str, typed: str, console: Console) -> bool:
        """Whether a model was judged, or a server refused what was computed and none is there to try again; says so."""
        if is_judged(name, self.repository, self.build_dir):
            return True
        kept, built = kept_folder(self.build_dir, name), built_folder(self.build_dir, name)
        if self.server is not None or self.own_recipe or (why := refusal(kept)) is None:
            return False
        if not self.repository.serves(name) or not read_card(kept).is_of_export(read_card(built)):
            return False
        waiting_on(console)(
            f"{name}: {kept}: a server could not load it, so it is not published unasked, as `{self._again(typed)}` "
            f"does: {why}"
        )
        return True

    def _again(self, typed: str) -> str:
        return command(("quantize", typed, "--kept"), self.model_repository, self.build_dir, self.server)

    def one(self, name: str, typed: str, console: Console) -> ModelCard:
        """Quantize one model, publish what the gate lets through, and see that it is served."""
        with named_in(typed):
            return self._one(name, typed, console)

    def _one(self, name: str, typed: str, console: Console) -> ModelCard:
        with console.status(f"{name}: importing ONNX Runtime"):
            # Imported late, as `--missing` mostly has nothing to do.
            from quantize.kept_result import forget, is_kept, keeping, publish  # noqa: PLC0415

        built, repository = built_folder(self.build_dir, name), Repository(self.model_repository, waiting_on(console))
        again = self._again(typed)
        with keeping(self.build_dir, name) as kept:
            there = not self.kept and is_kept(kept, built)
            enough = there and self.missing and not self.own_recipe
            if there:
                then = "publishing it" if enough else f"`{again}` publishes it"
                waiting_on(console)(f"{kept}: computed before and not published; {then}")
            with about(name):
                if not enough:
                    self._compute(name, typed, kept, console)
            with staying(kept, again, waiting_on(console)), console.status(f"{name}: publishing"):
                done = publish(kept, built, repository)
            try:
                bring_into_service(repository, self.server, name, done.version, new=done.new, before=done.before)
            except WithdrawnError as error:
                note(kept, str(error))
                raise UnpublishedError(f"{error}; {stays(kept, again)}") from error
            finally:
                if done.version in repository.versions(name):
                    forget(kept)
        return done.card

    def _compute(self, name: str, typed: str, kept: Path, console: Console) -> None:
        """Have a graph and a card kept that can be published."""
        from export.configuration.model_config import CONFIG_FILE, has_config, read_config  # noqa: PLC0415  (as above)
        from export.repository.config_compatibility import check_fit  # noqa: PLC0415
        from quantize.judging.verdict import quantize_model  # noqa: PLC0415
        from quantize.kept_result import expect_kept  # noqa: PLC0415
        from quantize.tasks.definition_task import DefinedTask  # noqa: PLC0415
        from quantize.tasks.task_loading import load_task  # noqa: PLC0415

        built = built_folder(self.build_dir, name)
        if self.kept:
            expect_kept(kept, built)
            return
        # The task and the recipe are of the export, too.
        with unreplaced(built):
            task = load_task(typed, self.build_dir)
            read_card(built)
            if isinstance(task, DefinedTask):
                with console.status(f"{name}: looking at FP32's answers"):
                    task.check_gates()
            if has_config(built):
                read_config(built / CONFIG_FILE)
            check_fit(self.repository, name, built / FP32_FILE)
            recipe, choice = self._recipe(name, task, console)
            with console.status(name) as status:
                quantize_model(name, task, recipe, built, kept, lambda text: status.update(f"{name}: {text}"), choice)

    def _recipe(self, name: str, task: "Task", console: Console) -> tuple["Recipe", str]:
        from quantize.quantizing.quantizer import named_graph  # noqa: PLC0415
        from quantize.recipe_choice import searched, within  # noqa: PLC0415  (as above)
        from quantize.tasks.default_recipe import symmetric_form  # noqa: PLC0415

        built = built_folder(self.build_dir, name)
        recipe, choice = searched(name, task, self.build_dir, console) if self.search else (task.recipe, "")
        if read_card(built).symmetric:
            recipe = symmetric_form(recipe, named_graph(built / FP32_FILE).graph)
        recipe = recipe.model_copy(update={"exclude": (*recipe.exclude, *self.exclude)})
        if self.budget_mb is None:
            return recipe, choice
        return within(name, task, recipe, self.build_dir, console, self.budget_mb, self.layers)


def _print(cards: list[ModelCard], served: dict[str, ModelCard | None], todo: list[str], as_json: bool) -> None:
    if as_json:
        rows: list[dict[str, Any]] = [
            {"model": name, "quantized": name in todo, "card": card and card.model_dump(mode="json")}
            for name, card in served.items()
        ]
        click.echo(json.dumps(rows, indent=2))
    elif cards:
        from quantize.reporting.table import comparison  # noqa: PLC0415

        Console().print(comparison(cards))


def _warn(name: str, verdict: Quantization, console: Console) -> None:
    if not verdict.passed:
        console.print(f"{name}: INT8 refused, FP32 is served instead", style="bold yellow", soft_wrap=True)
    for reason in verdict.refusals:
        console.print(f"  {reason}", highlight=False, soft_wrap=True)
    if verdict.left:
        console.print(f"{name}: {verdict.left}", highlight=False, markup=False, soft_wrap=True)
    for one in verdict.stays_fp32:
        if one.why:
            console.print(f"{name}: FP32: {one.what}: {one.why}", highlight=False, markup=False, soft_wrap=True)
    for warning in verdict.warnings:
        console.print(f"{name}: {warning}", style="yellow", highlight=False, markup=False, soft_wrap=True)
