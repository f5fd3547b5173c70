import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import tritonclient.grpc as grpcclient
from click.testing import CliRunner, Result
from torch import nn
from tritonclient.utils import InferenceServerException

import export.cli
from export.card import ModelCard, Parity, Source
from export.cli import export as command
from export.definition import Definition, Feed, Tensor
from tests.real_triton import ModelRepository, TritonFactory


class Affine(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor + 1


class Shifted(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 3


def samples() -> Iterator[Feed]:
    for rows in (1, 2, 7):
        yield {"x": np.linspace(-1, 1, rows * 3, dtype=np.float32).reshape(rows, 3)}


def write_asset(folder: Path) -> None:
    (folder / "asset.txt").write_text("asset")


@pytest.fixture(scope="session")
def tiny() -> Definition:
    """A model that exports in a second: y = 2x + 1. Its name is one that the catalog knows."""
    return Definition(
        name="digits",
        inputs=(Tensor("x", "FP32", ("batch", 3)),),
        outputs=(Tensor("y", "FP32", ("batch", 3)),),
        source=lambda: Source(package="none", version="1", file="none", sha256="0" * 64, licence="none"),
        module=lambda: Affine(2.0).eval(),
        samples=samples,
        tolerance=1e-6,
        assets=write_asset,
    )


@pytest.fixture
def card() -> ModelCard:
    source = Source(package="p", version="1", file="f", sha256="0" * 64, licence="none")
    parity = Parity(max_abs_diff=0.0, tolerance=1.0, shapes=("x[1]",))
    return ModelCard(name="digits", source=source, opset=20, tools={}, fp32_sha256="1" * 64, parity=parity)


@pytest.fixture
def built(tmp_path: Path, card: ModelCard) -> Path:
    """A built folder with stand-ins for the files that an export leaves."""
    folder = tmp_path / "build" / "models" / "digits"
    folder.mkdir(parents=True)
    (folder / "fp32.onnx").write_text("graph")
    (folder / "samples.npz").write_text("asset")
    card.write(folder)
    return folder


@dataclass(frozen=True)
class QuietServer:
    """A running server, and its repository, in which tests put models that they have it load."""

    address: str
    folder: Path


@pytest.fixture(scope="session")
def _running(triton_factory: TritonFactory, new_repository: Callable[[], ModelRepository]) -> QuietServer:
    models = new_repository()
    models.add_identity("other", "FP32")
    return QuietServer(triton_factory(models).address.grpc, models.path)


@pytest.fixture
def quiet_server(_running: QuietServer) -> Iterator[QuietServer]:
    """One server for many tests; the model `digits` that a test puts there goes with it."""
    yield _running
    with grpcclient.InferenceServerClient(_running.address) as client, suppress(InferenceServerException):
        client.unload_model("digits")
    shutil.rmtree(_running.folder / "digits", ignore_errors=True)


@pytest.fixture
def poll() -> Callable[[Callable[[], bool]], None]:
    """Wait until a condition holds; fails after half a minute."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    return wait


@pytest.fixture
def definition(tiny: Definition) -> list[Definition]:
    """The definition that the command finds, in a list so that a test can put another in its place."""
    return [tiny]


@pytest.fixture
def run(definition: list[Definition], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `fairlane export` on the tiny model, under the name of one that the catalog knows."""
    monkeypatch.setattr(export.cli, "load_definition", lambda _: definition[0])
    places = ["--build-dir", str(tmp_path / "build"), "--model-repository", str(tmp_path / "repository")]
    return lambda *args: CliRunner().invoke(command, [*places, *args])
