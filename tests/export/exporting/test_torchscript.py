"""Modules that are TorchScript: traced, scripted, frozen, read from a file, or a part of another."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from export.catalog.catalog import DefinitionFileError, load_definition
from export.cli import export as command
from export.definition import Definition, Tensor
from export.errors import ExportError
from export.exporting.exporter import export_model
from export.inference.session import open_session

# PyTorch says so of torch.jit, which its users still have files of.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


class Head(nn.Module):
    """A branch on a value, which tracing does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.layer(x))
        if self.layer.weight.sum() > 1e9:
            y = y * 2
        return torch.softmax(y, -1)


class Around(nn.Module):
    """A module in Python with a scripted part."""

    def __init__(self) -> None:
        super().__init__()
        self.part = torch.jit.script(Head().eval())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.part(x * 2)
        return out


def traced(_: Path) -> nn.Module:
    with pytest.warns(torch.jit.TracerWarning):
        return torch.jit.trace(Head().eval(), torch.zeros(2, 3))


def loaded(folder: Path) -> nn.Module:
    torch.jit.script(Head().eval()).save(str(folder / "head.pt"))
    return torch.jit.load(str(folder / "head.pt")).eval()


KINDS: dict[str, Callable[[Path], nn.Module]] = {
    "traced": traced,
    "scripted": lambda _: torch.jit.script(Head().eval()),
    "frozen": lambda _: torch.jit.freeze(torch.jit.script(Head().eval())),
    "loaded": loaded,
    "a part": lambda _: Around().eval(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_module_of_torchscript_is_exported(tiny: Definition, tmp_path: Path, kind: str) -> None:
    module = KINDS[kind](tmp_path)
    card = export_model(replace(tiny, module=lambda: module), tmp_path / "built")
    assert card.parity.max_abs_diff < 1e-6
    assert card.batch is not None
    assert card.batch.proved
    feed = np.random.default_rng(0).normal(0, 1, (5, 3)).astype(np.float32)
    got = open_session(tmp_path / "built" / "fp32.onnx").predict({"x": feed})["y"]
    np.testing.assert_allclose(got, module(torch.from_numpy(feed)).detach(), atol=1e-6)


class Keyed(nn.Module):
    """What ONNX has no way to say."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigh(x.T @ x)[1]


def test_torchscript_that_cannot_be_exported_is_one_line_that_says_what_to_do(tiny: Definition, tmp_path: Path) -> None:
    outputs = (Tensor("y", "FP32", (3, 3)),)
    inputs = (Tensor("x", "FP32", ("rows", 3)),)
    definition = replace(tiny, module=lambda: torch.jit.script(Keyed().eval()), inputs=inputs, outputs=outputs)
    with pytest.raises(ExportError, match=r"cannot export this TorchScript: [^\n]*; have module\(\) return the Python"):
        export_model(definition, tmp_path / "built")


@pytest.mark.parametrize("name", ["head.pt", "head.pth", "head.torchscript"])
def test_file_of_pytorchs_is_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(b"")
    with pytest.raises(DefinitionFileError, match=r"head\.\w+: .* module\(\) returns torch\.jit\.load\('head"):
        load_definition(name)
    done = CliRunner().invoke(command, [name])
    assert done.exit_code == 1
    assert len(done.stderr.strip().splitlines()) == 1
