"""A model repository with stand-ins for models, in which what belongs together carries the same mark."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import onnx
from click.testing import CliRunner
from onnx import TensorProto, helper

from export.card import ModelCard, Parity, Source, read_card
from export.configuration.model_config import parse_config
from export.models_cli import models
from export.repository.previous_files import PreviousFiles
from export.repository.repository import KEPT_VERSIONS, Repository

NAME: Final = "digits"
# Of the model: its graph, whose configuration it has, whose labels.
Served = tuple[str, str, str]
OLD: Final[Served] = ("old 3", "old", "old")


@dataclass(frozen=True)
class Place:
    """A repository and two built folders; its model serves OLD, its other model itself."""

    folder: Path
    repository: Repository = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "repository", Repository(self.folder / "repository"))

    def fill(self) -> None:
        """Publish what is there before."""
        for number in range(KEPT_VERSIONS):
            self.publish("old", graph=f"old {number}")
        # That it was published with; those of the model are others.
        (self.repository.version_folder(NAME, 2) / "y_labels.txt").write_text("older")
        self.publish("old", graph="old", name="other")
        build(self.folder / NAME, "new", "new", NAME)
        build(self.folder / "another", "new", "new", "another")

    def publish(self, of: str, *, graph: str, name: str = NAME) -> None:
        """Build a model and publish it."""
        build(self.folder / name, of, graph, name)
        self.publish_built(name)

    def publish_built(self, name: str, *, configure: bool = False) -> str:
        """Publish a built folder."""
        built = self.folder / name
        self.repository.publish(read_card(built), built / "fp32.onnx", built, configure=configure)
        return ""

    def configure(self) -> str:
        """Replace the configuration and the labels alone."""
        self.repository.configure(read_card(self.folder / NAME), self.folder / NAME)
        return ""

    def withdraw(self) -> str:
        """As for a version that a server refused."""
        self.repository.withdraw(NAME, KEPT_VERSIONS, self.repository.previous_files(NAME))
        return ""

    def withdraw_configured(self) -> str:
        """As for one that came with another configuration."""
        with self.repository.changing(NAME):
            # Else a crash was after the step, and whoever looked at the model since has finished it.
            if KEPT_VERSIONS in self.repository.versions(NAME):
                self.repository.withdraw(NAME, KEPT_VERSIONS, self._before())
        return ""

    def put_back(self) -> str:
        """As for a configuration that a server refused."""
        self.repository.put_back(NAME, self._before())
        return ""

    def _before(self) -> PreviousFiles:
        names = ("config.pbtxt", "y_labels.txt")
        return PreviousFiles({name: (self.folder / NAME / name).read_bytes() for name in names})

    def tune(self) -> str:
        """As `fairlane tune` writes what it found."""
        self.repository.rewrite_config(NAME, lambda text: text.replace("count: 1", "count: 2"))
        return ""

    def models(self, *args: str) -> str:
        """`fairlane models ARGS`; gives back its error."""
        result = CliRunner().invoke(models, [*args, "--model-repository", str(self.repository.folder)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return "" if result.exit_code == 0 else result.stderr

    def served(self) -> dict[str, Served]:
        """What Triton takes from the repository, by model: graph, whose configuration, whose labels.

        It takes every folder for a model, and each has to be whole.
        """
        found = {}
        for model in filter(Path.is_dir, self.repository.folder.iterdir()):
            config = parse_config((model / "config.pbtxt").read_text(encoding="utf-8"), model)
            versions = sorted(int(path.name) for path in model.iterdir() if path.name.isdecimal())
            assert versions, f"{model.name} has no version"
            for version in versions:
                folder = model / str(version)
                assert {path.name for path in folder.iterdir()} >= {"model.onnx", "model_card.json", "samples.npz"}
                assert (folder / "samples.npz").read_text() == graph_of(folder)
                assert read_card(folder).name == model.name == config.name
            serving = list(config.version_policy.specific.versions) or versions[-1:]
            assert len(serving) == 1
            labels = (model / config.output[0].label_filename).read_text()
            instances = f" x {config.instance_group[0].count}" if config.instance_group[0].count > 1 else ""
            found[model.name] = (
                graph_of(model / str(serving[0])),
                config.parameters["of"].string_value + instances,
                labels,
            )
        return found

    def residue(self) -> list[str]:
        """Files and folders that are nobody's."""
        return sorted(path.name for path in self.repository.folder.rglob(".*"))


def graph_of(version: Path) -> str:
    """The mark of a version's graph."""
    return str(onnx.load(version / "model.onnx").producer_name)


def build(built: Path, of: str, graph: str, name: str) -> None:
    """Write a built folder: graph and asset with the mark `graph`, configuration and labels with the mark `of`."""
    built.mkdir(parents=True, exist_ok=True)
    x, y = (helper.make_tensor_value_info(each, TensorProto.FLOAT, ["batch", 3]) for each in "xy")
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    # Larger than one write of a file's buffer.
    parts = helper.make_graph(nodes, "graph", [x], [y], doc_string=" " * 20_000)
    onnx.save(helper.make_model(parts, producer_name=graph), built / "fp32.onnx")
    (built / "samples.npz").write_text(graph)
    (built / "y_labels.txt").write_text(of)
    (built / "config.pbtxt").write_text(
        f'name: "{name}" backend: "onnxruntime" max_batch_size: 8 instance_group {{ count: 1 }}\n'
        'input { name: "x" data_type: TYPE_FP32 dims: 3 }\n'
        'output { name: "y" data_type: TYPE_FP32 dims: 3 label_filename: "y_labels.txt" }\n'
        f'parameters {{ key: "of" value {{ string_value: "{of}" }} }}\n'
    )
    source = Source(package="p", version="1", file="f", sha256="0" * 64, licence="none")
    parity = Parity(max_abs_diff=0.0, tolerance=1.0, shapes=("x[1]",))
    ModelCard(name=name, source=source, opset=20, tools={}, fp32_sha256=graph, parity=parity).write(built)
