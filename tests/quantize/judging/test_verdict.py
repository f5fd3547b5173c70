import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.card import CardError, read_card
from export.checksum import sha256_of
from export.configuration.warm_up import WarmUpError
from export.definition.tensor import FloatArray
from export.graph.onnx_graph import GraphError, write_graph
from export.repository.repository import Repository
from quantize.judging.verdict import quantize_model
from quantize.kept_result import Published, keeping, publish
from quantize.quantizing.quantizer import check_quantized
from quantize.recipe import Dynamic, Recipe, Static


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def quantized(task: Any, build: Path, repository: Repository, recipe: Recipe | None = None) -> Published:
    """Quantize the tiny model and publish what came of it."""
    built = build / "models" / "digits"
    with keeping(build, "digits") as kept:
        quantize_model("digits", task, recipe or task.recipe, built, kept, lambda _: None)
        return publish(kept, built, repository)


def test_model_that_passes_is_served_as_int8(lenient: Any, build: Path, repository: Repository) -> None:
    card = quantized(lenient, build, repository).card
    version = repository.version_folder("digits")
    assert card.quantization is not None
    assert card.quantization.passed
    assert sha256_of(version / "model.onnx") != card.fp32_sha256
    assert (version / "model.onnx").stat().st_size == card.quantization.int8.size_bytes
    assert (version / "asset.txt").read_text() == "asset"


def test_model_that_fails_the_gate_is_served_as_fp32(strict: Any, build: Path, repository: Repository) -> None:
    card = quantized(strict, build, repository).card
    assert card.quantization is not None
    assert not card.quantization.passed
    assert sha256_of(repository.version_folder("digits") / "model.onnx") == card.fp32_sha256


def test_refusal_is_recorded_with_its_numbers_in_the_card_of_the_version_and_the_exports_stays(
    strict: Any, build: Path, repository: Repository
) -> None:
    before = read_card(build / "models" / "digits")
    card = quantized(strict, build, repository).card
    assert card == repository.card("digits")
    assert card.as_exported() == before == read_card(build / "models" / "digits")
    assert card.quantization is not None
    (refusal,) = card.quantization.refusals
    assert refusal.startswith("closeness: expected at least 1.5000, got 0.99")
    assert "short by 0.50" in refusal


def test_refusal_replaces_an_int8_model_of_before(
    lenient: Any, strict: Any, build: Path, repository: Repository
) -> None:
    quantized(lenient, build, repository)
    card = quantized(strict, build, repository).card
    assert sha256_of(repository.version_folder("digits") / "model.onnx") == card.fp32_sha256


def test_error_while_quantizing_leaves_what_is_served(
    lenient: Any, build: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = quantized(lenient, build, repository).card

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(lenient, "outcomes", fail)
    with pytest.raises(RuntimeError):
        quantized(lenient, build, repository)
    assert repository.card("digits") == before


def test_version_is_new_where_it_was_made_for_this_and_not_where_it_was_there(
    lenient: Any, build: Path, repository: Repository
) -> None:
    first, again = (quantized(lenient, build, repository) for _ in range(2))
    assert (first.version, first.new) == (1, True)
    assert (again.version, again.new) == (1, False)


def test_model_without_an_export_says_what_to_run(lenient: Any, tmp_path: Path, repository: Repository) -> None:
    with pytest.raises(CardError, match="run `fairlane export digits` first"):
        quantized(lenient, tmp_path / "empty", repository)


def test_both_latencies_and_sizes_are_measured(lenient: Any, build: Path, repository: Repository) -> None:
    card = quantized(lenient, build, repository).card
    assert card.quantization is not None
    for measure in (card.quantization.fp32, card.quantization.int8):
        assert set(measure.latency_ms) == {"1", "8"}
        assert all(latency_ms > 0 for latency_ms in measure.latency_ms.values())
        assert measure.size_bytes > 0


def test_card_says_whether_requests_may_be_merged(lenient: Any, build: Path, repository: Repository) -> None:
    card = quantized(lenient, build, repository).card
    assert card.batch_invariant is True
    assert card.batch_cosine_min is not None
    assert card.batch_cosine_min >= 0.9999


def test_model_that_company_changes_is_refused_and_fp32_may_be_merged(
    lenient: Any, build: Path, repository: Repository
) -> None:
    card = quantized(lenient, build, repository, Dynamic()).card
    assert card.quantization is not None
    (refusal,) = card.quantization.refusals
    assert refusal.startswith("batch_cosine_min: expected at least 0.9999")
    assert card.batch_invariant is True
    assert sha256_of(repository.version_folder("digits") / "model.onnx") == card.fp32_sha256


def test_scores_have_intervals_and_so_has_what_was_lost(lenient: Any, build: Path, repository: Repository) -> None:
    verdict = quantized(lenient, build, repository).card.quantization
    assert verdict is not None
    low, high = verdict.int8.intervals["closeness"]
    assert low < verdict.int8.scores["closeness"] < high
    low, high = verdict.falls["closeness"]
    assert 0 < low < 1 - verdict.int8.scores["closeness"] < high


def test_score_that_is_no_number_is_refused_and_in_the_card(
    lenient: Any, build: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: Any) -> dict[str, FloatArray]:
        return {"closeness": np.full(4, np.nan, np.float32)}

    monkeypatch.setattr(lenient, "outcomes", nothing)
    verdict = quantized(lenient, build, repository).card.quantization
    assert verdict is not None
    assert not verdict.passed
    served = repository.card("digits")
    assert served is not None
    assert served.quantization is not None
    assert math.isnan(served.quantization.int8.scores["closeness"])


def test_recipe_that_finds_nothing_to_quantize_publishes_nothing(
    lenient: Any, build: Path, repository: Repository
) -> None:
    told = "digits: static .*: expected weights to quantize, got none. The graph has MatMul, Relu. The recipe"
    with pytest.raises(GraphError, match=told):
        quantized(lenient, build, repository, Static(operators=("Conv",)))
    assert not repository.serves("digits")


def test_half_precision_is_named_where_there_is_nothing_to_quantize(lenient: Any, build: Path) -> None:
    path = build / "models" / "digits" / "fp32.onnx"
    model = onnx.load(path)
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    for constant in model.graph.initializer:
        values = numpy_helper.to_array(constant).astype(np.float16)
        constant.CopyFrom(numpy_helper.from_array(values, constant.name))
    write_graph(model, path)
    with pytest.raises(GraphError, match="expected FP32 weights to quantize, got FLOAT16: export the model in FP32"):
        check_quantized("digits", lenient.recipe, path, path)


def test_int8_form_that_does_not_run_on_the_warm_up_publishes_nothing(
    lenient: Any, build: Path, repository: Repository
) -> None:
    config = build / "models" / "digits" / "config.pbtxt"
    warm_up = 'model_warmup { name: "w" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: 3 '
    config.write_text(f"{config.read_text()}{warm_up}zero_data: true }} }} }}")
    with pytest.raises(WarmUpError, match=r"digits: serving.warm_up: .* got x\[1,3\]: model.onnx on x\[1,3\]: ONNX"):
        quantized(lenient, build, repository)
    assert not repository.serves("digits")
