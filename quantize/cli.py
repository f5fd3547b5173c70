"""The command `fairlane quantize`."""

import json
from pathlib import Path

import click
from rich.console import Console

from export.card import CardError, ModelCard, read_card
from export.catalog import chosen
from export.errors import ExportError
from export.repository import DEFAULT_BUILD, DEFAULT_REPOSITORY, Repository, built_folder, is_built


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--missing", is_flag=True, help="Skip models that were judged before; a refusal is then not an error.")
@click.option(
    "--model-repository",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_REPOSITORY,
    show_default=True,
    help="Where to publish: NAME/1/model.onnx and assets.",
)
@click.option(
    "--build-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_BUILD,
    show_default=True,
    help="Where `fairlane export` left its exports.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@click.pass_context
def quantize(
    ctx: click.Context, names: tuple[str, ...], missing: bool, model_repository: Path, build_dir: Path, as_json: bool
) -> None:
    """Quantize exported models to INT8 behind an accuracy gate, and publish them.

    Without NAME: all models. A model whose INT8 form loses more than its gate allows is published as FP32, and
    the command exits with 1. With --missing it exits with 0: what was asked for is a model to serve.
    """
    console, repository = Console(stderr=True), Repository(model_repository)
    try:
        todo = [name for name in chosen(names) if not (missing and is_judged(name, repository, build_dir))]
        cards = [_quantize(name, repository, build_dir, console) for name in todo]
        served = {name: repository.card(name) for name in chosen(names)}
    except ExportError as error:
        raise click.ClickException(str(error)) from error
    _print(cards, served, todo, as_json)
    refused = [card for card in served.values() if card and card.quantization and not card.quantization.passed]
    for card in refused:
        _warn(card, console)
    if refused and not missing:
        ctx.exit(1)


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
    return not is_built(build, name) or read_card(built_folder(build, name)).fp32_sha256 == served.fp32_sha256


def _quantize(name: str, repository: Repository, build: Path, console: Console) -> ModelCard:
    with console.status(f"{name}: importing ONNX Runtime") as status:
        # Imported late, as `--missing` mostly has nothing to do.
        from quantize.task import load_task  # noqa: PLC0415
        from quantize.verdict import quantize_model  # noqa: PLC0415

        task = load_task(name)
        step = lambda text: status.update(f"{name}: {text}")  # noqa: E731
        return quantize_model(name, task, task.recipe, build, repository, step)


def _print(cards: list[ModelCard], served: dict[str, ModelCard | None], todo: list[str], as_json: bool) -> None:
    if as_json:
        rows = [
            {"model": name, "quantized": name in todo, "card": card and card.model_dump(mode="json")}
            for name, card in served.items()
        ]
        click.echo(json.dumps(rows, indent=2))
    elif cards:
        from quantize.table import comparison  # noqa: PLC0415

        Console().print(comparison(cards))


def _warn(card: ModelCard, console: Console) -> None:
    assert card.quantization is not None
    console.print(f"{card.name}: INT8 refused, FP32 is served instead", style="bold yellow", soft_wrap=True)
    for refusal in card.quantization.refusals:
        console.print(f"  {refusal}", highlight=False, soft_wrap=True)
