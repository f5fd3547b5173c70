"""The command `fairlane models`: the versions in a model repository, and which of them is served."""

import contextlib
import importlib.util
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from export.card import CardError
from export.configuration.model_config import CONFIG_FILE, ConfigError, read_config
from export.errors import ExportError
from export.filesystem.folder_lock import waiting_on
from export.graph.external_data import graph_bytes
from export.repository.repository import DEFAULT_REPOSITORY, Repository
from export.repository.server_load import bring_into_service
from export.repository.version_content import MODEL_FILE

REPOSITORY: Final = click.option(
    "--model-repository",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_REPOSITORY,
    show_default=True,
    help="The Triton model repository.",
)
SERVER: Final = click.option(
    "--server", metavar="HOST:PORT", help="A running Triton on this repository: load the version there."
)


@click.group()
def models() -> None:
    """Versions of the models in a repository: list, promote, roll back, remove."""


@models.command("list")
@click.argument("name", required=False)
@REPOSITORY
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
def list_(name: str | None, model_repository: Path, as_json: bool) -> None:
    """List the versions of NAME, or of every model, and which one is served."""
    repository = _there(model_repository)
    names = repository.names() if name is None else (name,)
    rows = [row for one in names for row in _rows(repository, one)]
    if name is not None and not rows:
        raise click.ClickException(
            f"{name}: no version in {model_repository}; known: {', '.join(repository.names()) or 'none'}"
        )
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        Console().print(_table(rows))
    faults = [fault for one in names for fault in _faults(repository, one)]
    for fault in faults:
        click.echo(f"Error: {fault}", err=True)
    if faults:
        raise click.exceptions.Exit(1)


@models.command()
@click.argument("name")
@click.argument("version", type=int)
@REPOSITORY
@SERVER
def promote(name: str, version: int, model_repository: Path, server: str | None) -> None:
    """Serve the content of an older VERSION of NAME again, as a new version."""
    _promote(name, model_repository, server, lambda repository: version)


@models.command()
@click.argument("name")
@REPOSITORY
@SERVER
def rollback(name: str, model_repository: Path, server: str | None) -> None:
    """Serve what was served before the present content of NAME. Repeated, it goes further back."""
    _promote(name, model_repository, server, lambda repository: repository.earlier(name))


@models.command()
@click.argument("name")
@click.argument("version", type=int)
@REPOSITORY
def remove(name: str, version: int, model_repository: Path) -> None:
    """Delete a VERSION of NAME that is not served."""
    try:
        _there(model_repository).remove(name, version)
    except (ExportError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{name}: version {version} removed")


def _there(folder: Path) -> Repository:
    if not folder.is_dir():
        raise click.ClickException(f"{folder}: expected a model repository, got no such folder")
    return Repository(folder)


def _promote(name: str, folder: Path, server: str | None, which: Callable[[Repository], int]) -> None:
    repository = _there(folder)
    try:
        # What is looked at and what is done are of one moment.
        with repository.changing(name):
            before, older, beside = repository.versions(name), which(repository), repository.previous_files(name)
            repository.expect(name, older)
            _check_fit(repository, name, repository.version_folder(name, older) / MODEL_FILE)
            version = repository.promote(name, older)
        # A version that the server refuses is withdrawn, also where somebody else is at the model just then.
        patient = Repository(folder, waiting_on(Console(stderr=True)))
        bring_into_service(patient, server, name, version, new=version not in before, before=beside)
    except (ExportError, OSError) as error:
        raise click.ClickException(str(error)) from error
    where = "by the next server that starts, or loads it" if server is None else f"by {server}"
    click.echo(f"{name}: version {version} is served {where}")


def _check_fit(repository: Repository, name: str, graph: Path) -> None:
    # A machine that only serves has no onnx: going back must work there too, and Triton finds out by itself.
    if importlib.util.find_spec("onnx") is None:
        return
    # Imported late: onnx takes a second.
    from export.repository.config_compatibility import check_fit  # noqa: PLC0415

    check_fit(repository, name, graph)


def _rows(repository: Repository, name: str) -> list[dict[str, Any]]:
    repository.settle(name)
    versions = repository.versions(name)
    rows = []
    for version in versions:
        # Another process may have removed it since.
        with contextlib.suppress(FileNotFoundError):
            rows.append(_row(repository, name, version, served=version == versions[-1]))
    return rows


def _faults(repository: Repository, name: str) -> Iterator[str]:
    """What cannot be read of a model: its configuration, and the cards of versions."""
    versions = repository.versions(name)
    try:
        if versions:
            read_config(repository.folder / name / CONFIG_FILE)
    except ConfigError as error:
        yield str(error)
    for version in versions:
        try:
            repository.card(name, version)
        except CardError as error:
            if repository.version_folder(name, version).is_dir():
                yield str(error)


def _row(repository: Repository, name: str, version: int, *, served: bool) -> dict[str, Any]:
    graph = repository.version_folder(name, version) / MODEL_FILE
    try:
        card = repository.card(name, version)
    except CardError:
        card = None
    quantized = card is not None and card.quantization is not None and card.quantization.passed
    return {
        "model": name,
        "version": version,
        "served": served,
        "precision": ("INT8" if quantized else "FP32") if card else "",
        "size_bytes": graph_bytes(graph),
        "published": datetime.fromtimestamp(graph.stat().st_mtime, UTC).isoformat(timespec="seconds"),
        "source": f"{card.source.package} {card.source.version} {card.source.file}".strip() if card else "",
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Versions in the model repository")
    for column in ("model", "version", "served", "precision", "size MB", "written", "source"):
        table.add_column(column, justify="right" if column in ("version", "size MB") else "left")
    for row in rows:
        table.add_row(
            row["model"],
            str(row["version"]),
            "yes" if row["served"] else "",
            row["precision"],
            f"{row['size_bytes'] / 1e6:.1f}",
            row["published"],
            row["source"],
        )
    return table
