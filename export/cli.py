"""The command `fairlane export`."""

import json
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Console
from rich.table import Table

from export.card import ModelCard, read_card
from export.catalog.catalog import check_name, chosen, is_path, load_definition, named_in
from export.catalog.template import write_template
from export.command_failure import told
from export.configuration.model_config import CONFIG_FILE, TARGETS, ConfigError, Target, has_config
from export.filesystem.folder_lock import waiting_on
from export.graph.external_data import graph_bytes
from export.inference.session import DEVICES, Device
from export.repository.build_folder import DEFAULT_BUILD, built_folder, is_built
from export.repository.previous_files import PreviousFiles, labels_in
from export.repository.refused_version import clear, note, refusal
from export.repository.repository import DEFAULT_REPOSITORY, Repository
from export.repository.server_load import WithdrawnError, bring_into_service
from export.repository.unpublished_export import UnpublishedError, command, staying, stays
from export.repository.version_content import FP32_FILE, MODEL_FILE


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME | FILE.py | FILE.onnx]... | new NAME")
@click.option("--missing", is_flag=True, help="Skip models whose export is already there.")
@click.option(
    "--model-repository",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_REPOSITORY,
    show_default=True,
    help="Where a model that is not served as INT8 is published as FP32.",
)
@click.option(
    "--build-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_BUILD,
    show_default=True,
    help="Where the export goes: models/NAME/fp32.onnx, config.pbtxt, model_card.json and assets.",
)
@click.option(
    "--target", type=click.Choice(TARGETS), default="cpu", show_default=True, help="What Triton runs the model on."
)
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="cpu",
    show_default=True,
    help="Where the export is compared with PyTorch.",
)
@click.option("--overwrite-config", is_flag=True, help="Replace a config.pbtxt that is not the one made here.")
@click.option("--server", metavar="HOST:PORT", help="A running Triton on this repository: load the version there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
def export(names: tuple[str, ...], missing: bool, as_json: bool, **options: Any) -> None:
    """Export PyTorch models to ONNX, checked against PyTorch.

    NAME is one of the catalog; without any: the default ones. FILE.py is a model definition of yours;
    `fairlane export new NAME` writes NAME.py to start from. FILE.onnx is taken as it is. An export that does not
    agree with PyTorch is not written. A quantized model that is being served stays until `fairlane quantize`
    replaces it.
    """
    console = Console(stderr=True)
    with told(names):
        if names[:1] == ("new",):
            click.echo(write_template(names[1:], Path()))
            return
        run = _Export(**options)
        todo = [name for name in names if is_path(name)]
        todo += chosen([name for name in names if not is_path(name)]) if len(todo) < len(names) or not names else ()
        rows = [run.one(name, missing, console) for name in todo]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif any(row["exported"] for row in rows):
        Console().print(_table(rows))


class _Published(NamedTuple):
    """The version that is served, whether it is new, and what lay beside the graphs before."""

    version: int
    new: bool
    before: PreviousFiles


@dataclass(frozen=True)
class _Export:
    """One call of the command: where things go, and what they are for. Fields are named like the options."""

    model_repository: Path
    build_dir: Path
    target: Target
    device: Device
    overwrite_config: bool
    server: str | None

    @cached_property
    def _repository(self) -> Repository:
        return Repository(self.model_repository, waiting_on(Console(stderr=True)))

    def one(self, typed: str, missing: bool, console: Console) -> dict[str, Any]:
        """Export one model where it must be, and see that it is served."""
        # A name of the catalog is a model's name, so `--missing` needs no definition and with it no torch.
        name = self._named(typed) if is_path(typed) else typed
        folder = built_folder(self.build_dir, name)
        skip = missing and is_built(self.build_dir, name)
        started = time.monotonic()
        with named_in(typed):
            if skip:
                # As it was exported, whatever an earlier Fairlane noted there when it quantized it.
                card = read_card(folder).as_exported()
                if not self._is_refused(typed, name, folder, console):
                    self._serve(typed, folder, self._publish(card, folder, console))
            else:
                card = self._export(typed, folder, console)
                with staying(folder, self._again(typed, self.server), waiting_on(console)):
                    published = self._publish(card, folder, console)
                self._serve(typed, folder, published)
        return {
            "model": name,
            "exported": not skip,
            "path": str(folder / FP32_FILE),
            "size_bytes": graph_bytes(folder / FP32_FILE),
            "seconds": round(time.monotonic() - started, 1),
            "card": card.model_dump(mode="json"),
        }

    @staticmethod
    def _named(typed: str) -> str:
        definition = load_definition(typed)
        check_name(definition, typed)
        return definition.name

    def _export(self, typed: str, folder: Path, console: Console) -> ModelCard:
        with console.status(f"{typed}: importing PyTorch") as status:
            # Imported late: torch takes seconds, and `--missing` mostly has nothing to do.
            from export.catalog.onnx_source import sizes_told  # noqa: PLC0415  (as above)
            from export.exporting.exporter import export_model  # noqa: PLC0415

            definition = load_definition(typed)
            with sizes_told(typed):
                card = export_model(
                    definition,
                    folder,
                    lambda step: status.update(f"{definition.name}: {step}"),
                    target=self.target,
                    device=self.device,
                )
        compared = f"max abs difference to PyTorch {card.parity.max_abs_diff:.1e}"
        checked = compared if definition.module else f"runs at {len(card.parity.shapes)} shapes"
        console.print(f"{card.name}: {checked}", soft_wrap=True)
        for line in card.notes:
            console.print(f"{card.name}: {line}", highlight=False, markup=False, soft_wrap=True)
        return card

    def _is_refused(self, typed: str, name: str, folder: Path, console: Console) -> bool:
        """Whether a server refused this export, and none is there to try it again; says so."""
        if self.server is not None or not self._repository.serves(name) or (why := refusal(folder)) is None:
            return False
        console.print(
            f"{name}: {folder}: a server could not load it, so it is not published where none judges it: {why}; "
            f"`{self._again(typed, 'HOST:PORT')}` tries it again",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        return True

    def _serve(self, typed: str, folder: Path, published: "_Published") -> None:
        """Have a server load what was published."""
        version, new, before = published
        try:
            bring_into_service(self._repository, self.server, folder.name, version, new=new, before=before)
        except WithdrawnError as error:
            note(folder, str(error))
            raise UnpublishedError(f"{error}; {stays(folder, self._again(typed, self.server))}") from error
        clear(folder)

    def _again(self, typed: str, server: str | None) -> str:
        words = ("export", typed, "--missing", *(["--overwrite-config"] if self.overwrite_config else []))
        return command(words, self.model_repository, self.build_dir, server)

    def _publish(self, card: ModelCard, folder: Path, console: Console) -> "_Published":
        """Publish an export where it must be."""
        # What is decided and what is published are of one moment: that after another process was waited for.
        with self._repository.changing(card.name):
            before, beside = self._repository.versions(card.name), self._repository.previous_files(card.name)
            configure = self._configures(card, folder, console)
            version = before[-1] if before and self._stays(card, folder, console, configure=configure) else None
            if version is None:
                if not configure:
                    self._check_fit(card, folder)
                published = self._repository.publish(card, folder / FP32_FILE, folder, configure=configure)
                version = int(published.name)
            elif configure:
                self._repository.configure(card, folder)
            elif self._is_whole(card):
                # What merged rows that belong together merges them no longer.
                self._check_fit(card, folder)
        return _Published(version, version not in before, beside)

    def _configures(self, card: ModelCard, folder: Path, console: Console) -> bool:
        """Whether the configuration that is there is to be replaced; says so where another one stays."""
        try:
            differing = self._repository.differing(card.name, folder)
        except ConfigError as error:
            if self.overwrite_config:
                return True
            raise ConfigError(f"{error}; --overwrite-config replaces it") from error
        if not self.overwrite_config:
            for file in differing:
                console.print(
                    f"{card.name}: its {file} is not the one made here and stays; --overwrite-config replaces it",
                    soft_wrap=True,
                )
        return bool(differing) and self.overwrite_config

    def _is_whole(self, card: ModelCard) -> bool:
        """Whether this export is what is served, and must be served whole."""
        served = self._repository.card(card.name)
        return card.batch is not None and card.batch.whole and served is not None and served.is_of_export(card)

    def _check_fit(self, card: ModelCard, folder: Path) -> None:
        # Imported late: onnx takes a second.
        from export.repository.config_compatibility import check_fit  # noqa: PLC0415

        try:
            check_fit(self._repository, card.name, folder / FP32_FILE)
        except ConfigError as error:
            raise ConfigError(f"{error}; --overwrite-config replaces it") from error

    def _stays(self, card: ModelCard, folder: Path, console: Console, *, configure: bool) -> bool:
        """Whether what is served stays: somebody else's, the same export, or the INT8 form of an earlier one."""
        served = self._repository.card(card.name)
        if served is None:
            return True
        if served.is_of_export(card):
            # Of the same graph, another card may tell other scores.
            return served.quantization is not None or served == card
        if served.quantization is None or not served.quantization.passed:
            return False
        if configure and (served.target != card.target or not self._fits(card, folder)):
            console.print(
                f"{card.name}: the INT8 form of an earlier export does not go with the new config.pbtxt or labels; "
                f"FP32 is served until `fairlane quantize {card.name}`",
                soft_wrap=True,
            )
            return False
        console.print(
            f"{card.name}: an earlier export is being served as INT8; run `fairlane quantize {card.name}`",
            soft_wrap=True,
        )
        return True

    def _fits(self, card: ModelCard, folder: Path) -> bool:
        """Whether the graph that is served goes with the export's configuration and labels."""
        # Imported late: onnx takes a second.
        from export.repository.config_compatibility import misfits  # noqa: PLC0415

        version = self._repository.version_folder(card.name)
        labels = labels_in(version) or labels_in(version.parent)
        if not labels_in(folder).items() <= labels.items():
            return False
        return not has_config(folder) or not misfits(folder / CONFIG_FILE, version / MODEL_FILE)


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="ONNX exports, checked")
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
