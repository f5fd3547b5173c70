"""The command `fairlane export`."""

import json
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from export.card import ModelCard, read_card
from export.catalog import chosen, load_definition
from export.errors import ExportError
from export.repository import DEFAULT_BUILD, DEFAULT_REPOSITORY, FP32_FILE, Repository, built_folder, is_built


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--missing", is_flag=True, help="Skip models whose export is already there.")
@click.option(
    "--model-repository",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_REPOSITORY,
    show_default=True,
    help="Where a model that has no version yet is published as FP32.",
)
@click.option(
    "--build-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_BUILD,
    show_default=True,
    help="Where the export goes: models/NAME/fp32.onnx, model_card.json and assets.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
def export(names: tuple[str, ...], missing: bool, model_repository: Path, build_dir: Path, as_json: bool) -> None:
    """Export PyTorch models to ONNX, checked against PyTorch.

    Without NAME: all models. An export that does not agree with PyTorch is not written. A quantized model
    that is being served stays until `fairlane quantize` replaces it.
    """
    console = Console(stderr=True)
    try:
        rows = [_one(name, missing, Repository(model_repository), build_dir, console) for name in chosen(names)]
    except ExportError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif any(row["exported"] for row in rows):
        Console().print(_table(rows))


def _one(name: str, missing: bool, repository: Repository, build: Path, console: Console) -> dict[str, Any]:
    folder = built_folder(build, name)
    skip = missing and is_built(build, name)
    started = time.monotonic()
    card = read_card(folder) if skip else _export(name, folder, console)
    _serve(card, folder, repository, console)
    return {
        "model": name,
        "exported": not skip,
        "path": str(folder / FP32_FILE),
        "size_bytes": (folder / FP32_FILE).stat().st_size,
        "seconds": round(time.monotonic() - started, 1),
        "card": card.model_dump(mode="json"),
    }


def _export(name: str, folder: Path, console: Console) -> ModelCard:
    with console.status(f"{name}: importing PyTorch") as status:
        # Imported late: torch takes seconds, and `--missing` mostly has nothing to do.
        from export.exporter import export_model  # noqa: PLC0415

        card = export_model(load_definition(name), folder, lambda step: status.update(f"{name}: {step}"))
    console.print(f"{name}: max abs difference to PyTorch {card.parity.max_abs_diff:.1e}", soft_wrap=True)
    return card


def _serve(card: ModelCard, folder: Path, repository: Repository, console: Console) -> None:
    if not repository.serves(card.name):
        repository.publish(card, folder / FP32_FILE, folder)
        return
    served = repository.card(card.name)
    if served is not None and served.fp32_sha256 != card.fp32_sha256:
        console.print(
            f"{card.name}: an earlier export is being served; run `fairlane quantize {card.name}`", soft_wrap=True
        )


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="ONNX exports, checked against PyTorch")
    for column in ("model", "size MB", "opset", "shapes", "max abs diff", "tolerance", "seconds"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        parity = row["card"]["parity"]
        table.add_row(
            row["model"],
            f"{row['size_bytes'] / 1e6:.1f}",
            str(row["card"]["opset"]),
            str(len(parity["shapes"])),
            f"{parity['max_abs_diff']:.1e}",
            f"{parity['tolerance']:.1e}",
            str(row["seconds"]) if row["exported"] else "was there",
        )
    return table
