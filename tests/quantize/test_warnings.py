"""What speaks against an INT8 form that is served all the same: said in the output and in the card."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner, Result

import quantize.judging.verdict
import quantize.tasks.task_loading
from export.card import Measure, ModelCard, Remainder, read_card
from export.definition.tensor import Feed
from export.graph.container_support import too_new
from export.graph.onnx_graph import write_graph
from export.repository.repository import Repository
from quantize.cli import quantize as command
from quantize.judging.latency import gainless, slower
from quantize.quantizing.quantizer import quantize_graph
from quantize.recipe import Dynamic, PerToken, Recipe, Static, WeightOnly
from quantize.reporting.report import section
from quantize.tasks.task import Runner
from tests.quantize.conftest import two_layers

Run = Callable[..., Result]
BLOCKS = WeightOnly(bits=8, block=16)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture
def run(build: Path, repository: Repository, lenient: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `fairlane quantize` on the tiny model with a recipe, where INT8 takes so many times as long as FP32."""

    def invoke(longer: float = 0.5, recipe: Recipe = lenient.recipe) -> Result:
        def medians_ms(models: list[Runner], feed: Feed) -> list[float]:
            del models
            return [2.0, 2.0 * longer * (2 if len(feed["x"]) > 1 else 0.5)]

        monkeypatch.setattr(quantize.judging.verdict, "medians_ms", medians_ms)
        monkeypatch.setattr(quantize.tasks.task_loading, "load_task", lambda *_: lenient)
        monkeypatch.setattr(lenient, "recipe", recipe)
        places = ["--build-dir", str(build), "--model-repository", str(repository.folder)]
        return CliRunner().invoke(command, [*places, "digits"])

    return invoke


def card(repository: Repository) -> ModelCard:
    found = repository.card("digits")
    assert found is not None
    return found


def warnings(repository: Repository) -> tuple[str, ...]:
    verdict = card(repository).quantization
    assert verdict is not None
    assert verdict.passed
    return verdict.warnings


def test_int8_that_is_slower_is_served_and_says_by_how_much(run: Run, repository: Repository) -> None:
    result = run(longer=1.5)
    assert result.exit_code == 0, result.output
    told = (
        "INT8 takes 1.50 times as long as FP32 on this processor (1: 0.75, 8: 3.00); it is served all the same, with "
    )
    assert f"digits: {told}" in result.stderr
    (warning,) = warnings(repository)
    assert warning.startswith(told)
    verdict = card(repository).quantization
    assert verdict is not None
    assert f'<p class="refused">{warning}</p>' in section(card(repository), verdict, {})


def test_int8_that_is_faster_has_no_warning(run: Run, repository: Repository) -> None:
    assert "times as long" not in run(longer=0.9).stderr
    assert warnings(repository) == ()


def test_int8_that_is_slower_and_larger_is_refused(run: Run, build: Path, repository: Repository) -> None:
    write_graph(two_layers(), build / "models" / "digits" / "fp32.onnx")
    assert run(longer=0.9).exit_code == 0
    result = run(longer=1.5)
    assert result.exit_code == 1
    verdict = card(repository).quantization
    assert verdict is not None
    (refusal,) = verdict.refusals
    assert re.fullmatch(
        r"INT8 takes 1\.50 times as long as FP32 on this processor, with [1-9]\.\d\d of the size", refusal
    )
    assert f"digits: INT8 refused, FP32 is served instead\n  {refusal}\n" in result.stderr


@pytest.mark.parametrize(
    ("longer", "size_bytes", "refused"),
    [(1.06, 100, True), (1.06, 98, False), (1.0, 100, True), (0.96, 110, True), (0.5, 200, False)],
)
def test_int8_must_be_smaller_or_faster(longer: float, size_bytes: int, refused: bool) -> None:
    fp32 = Measure(size_bytes=100, latency_ms={"1": 1.0, "2": 1.0}, scores={})
    int8 = Measure(size_bytes=size_bytes, latency_ms={"1": longer, "2": longer}, scores={})
    assert (gainless(fp32, int8) is not None) == refused


@pytest.mark.parametrize(("longer", "told"), [(1.04, False), (1.06, True)])
def test_what_two_measurements_differ_by_is_not_slower(longer: float, told: bool) -> None:
    fp32, int8 = (Measure(size_bytes=1, latency_ms={"1": ms, "2": ms}, scores={}) for ms in (1.0, longer))
    assert (slower(fp32, int8) is not None) == told


def test_latency_on_this_processor_says_nothing_of_another_target(
    run: Run, build: Path, repository: Repository
) -> None:
    built = build / "models" / "digits"
    read_card(built).model_copy(update={"target": "tensorrt"}).write(built)
    for width in (4, 256):
        write_graph(two_layers(width), built / "fp32.onnx")
        assert "times as long" not in run(longer=1.5).stderr
        assert warnings(repository) == ()


def test_int8_that_the_container_does_not_load_says_so(run: Run, repository: Repository) -> None:
    result = run(recipe=BLOCKS)
    assert result.exit_code == 0, result.output
    told = "the embedded Triton loads it, Triton 24.10's container does not: its ONNX Runtime 1.19.2 has no 8 bits"
    assert f"digits: {told}" in result.stderr
    (warning,) = warnings(repository)
    assert told in warning
    assert "as in product, last; for the container, leave such layers in FP32 (--exclude)" in warning
    assert not card(repository).loads_in_container


def test_refused_int8_has_no_warning_and_fp32_loads_everywhere(
    run: Run, repository: Repository, lenient: Any, strict: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lenient, "limits", strict.limits)
    assert run(longer=1.5, recipe=BLOCKS).exit_code == 1
    verdict = card(repository).quantization
    assert verdict is not None
    assert verdict.warnings == ()
    assert card(repository).loads_in_container


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        (BLOCKS, ("product", "last")),
        (WeightOnly(bits=8, block=16, exclude=("product", "last")), ()),
        (WeightOnly(bits=4, block=16), ()),
        (Static(), ()),
        (Dynamic(), ()),
        (PerToken(), ()),
    ],
)
def test_container_does_not_load_eight_bits_in_blocks(
    build: Path, tmp_path: Path, lenient: Any, recipe: Recipe, names: tuple[str, ...]
) -> None:
    # Each of these was tried in ONNX Runtime 1.19.2 itself.
    built = build / "models" / "digits"
    quantize_graph(recipe, lambda: lenient.calibration(built), built / "fp32.onnx", tmp_path / "int8.onnx")
    assert too_new(onnx.load(tmp_path / "int8.onnx")) == names


def test_worst_channel_and_what_stays_fp32_are_in_the_report(run: Run, repository: Repository) -> None:
    run()
    verdict = card(repository).quantization
    assert verdict is not None
    error = verdict.errors["y"]
    assert 0 < error < 0.5
    left = Remainder(what="LSTM", size_bytes=13_100_000, time_share=0.876)
    larger = verdict.int8.model_copy(update={"size_bytes": 14_400_000})
    told = verdict.model_copy(update={"stays_fp32": (left,), "int8": larger})
    page = section(card(repository), told, {})
    assert f"<td>error of y, worst channel</td><td>0</td><td>{error:.4f}</td>" in page
    assert "<p>13.1 of 14.4 MB stay FP32: LSTM (88 % of the time)</p>" in page
    assert verdict.left is None
