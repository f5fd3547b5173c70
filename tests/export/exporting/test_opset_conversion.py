"""Graphs of a newer format than Triton's container loads: converted down, or served by the embedded one alone."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

import export.exporting.opset_conversion
from export.card import read_card
from export.cli import export as command
from export.graph.container_support import IR_VERSION, OPSET, newer_format
from export.inference.session import open_session


def save(path: Path, text: str, opset: int, ir_version: int, custom: str = "") -> Path:
    head = f'<ir_version: {ir_version}, opset_import: ["" : {opset}{custom}]>'
    onnx.save(onnx.parser.parse_model(f"{head} {text}"), path)
    return path


def run(tmp_path: Path, path: Path) -> Result:
    places = ["--build-dir", str(tmp_path / "build"), "--model-repository", str(tmp_path / "repository")]
    return CliRunner().invoke(command, [*places, str(path)])


# None of its operators has changed since 21, and all have; the converter has both.
TANH = "g (float[n,3] x) => (float[n,3] y) { y = Erf(x) }"
POOL = "g (float[n,2,8] x) => (float[n,2,4] y) { y = MaxPool<kernel_shape=[2], strides=[2]>(x) }"


@pytest.mark.parametrize(
    ("text", "opset", "ir_version"),
    [(TANH, 23, 10), (TANH, 25, 12), (TANH, 20, 13), (POOL, 22, 11), (POOL, 24, 12), (TANH, 27, 13), (TANH, 23, 14)],
)
def test_newer_format_is_converted_down_and_said(tmp_path: Path, text: str, opset: int, ir_version: int) -> None:
    path = save(tmp_path / "newer.onnx", text, opset, ir_version)
    done = run(tmp_path, path)
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stderr.splitlines() if "converted down" in line]
    assert line.startswith(f"newer: converted down to opset {min(opset, OPSET)} and IR version {IR_VERSION}, with the ")
    served = tmp_path / "repository" / "newer" / "1"
    card = read_card(served)
    assert card.loads_in_container
    assert line.endswith(card.notes[0])
    assert newer_format(onnx.load(served / "model.onnx")) == ""
    shape = (5, 3) if text == TANH else (5, 2, 8)
    feed = {"x": np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)}
    if opset <= 26 and ir_version <= 13:
        want = open_session(path).predict(feed)["y"]
        np.testing.assert_array_equal(open_session(served / "model.onnx").predict(feed)["y"], want)


def test_format_that_cannot_be_converted_is_served_by_the_embedded_triton_alone(tmp_path: Path) -> None:
    text = "g (float[n,8] x) => (float[n,8] y) <float[8] s = {1,2,3,4,5,6,7,8}> { y = RMSNormalization(x, s) }"
    done = run(tmp_path, save(tmp_path / "newer.onnx", text, 23, 11))
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stderr.splitlines() if "container does not" in line]
    assert "newer: the embedded Triton serves it, Triton 24.10's container does not: opset 23 is newer than" in line
    for folder in (tmp_path / "repository" / "newer" / "1", tmp_path / "build" / "models" / "newer"):
        card = read_card(folder)
        assert not card.loads_in_container
        assert not card.as_exported().loads_in_container
        assert line.endswith(card.notes[0])
    # As `make triton-container` looks for it.
    assert '"loads_in_container": false' in (tmp_path / "repository/newer/1/model_card.json").read_text()


def test_conversion_that_changes_answers_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = onnx.load(save(tmp_path / "other.onnx", TANH.replace("Erf", "Neg"), OPSET, IR_VERSION))
    monkeypatch.setattr(export.exporting.opset_conversion, "_converted", lambda _: other)
    done = run(tmp_path, save(tmp_path / "newer.onnx", TANH, 23, 11))
    assert done.exit_code == 0, done.output
    assert "cannot be converted down: output 'y' is another one, by " in done.stderr
    assert not read_card(tmp_path / "repository" / "newer" / "1").loads_in_container


def test_younger_operator_of_onnx_runtimes_own_is_named() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> g (float[n] x) => (float[n] y)'
    model = onnx.parser.parse_model(f"{text} {{ y = com.microsoft.ScaledSiLU(x) }}")
    assert newer_format(model) == "its ONNX Runtime 1.19.2 has no ScaledSiLU"


def test_format_that_no_onnx_runtime_here_loads_is_one_line(tmp_path: Path) -> None:
    text = "g (float[n,8] x) => (float[n,8] y) <float[8] s = {1,2,3,4,5,6,7,8}> { y = RMSNormalization(x, s) }"
    done = run(tmp_path, save(tmp_path / "newer.onnx", text, 28, 14))
    assert done.exit_code == 1
    (line,) = done.stderr.strip().splitlines()
    assert "newer.onnx" in line
    assert "ONNX Runtime refuses it" in line
