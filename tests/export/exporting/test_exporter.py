import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from export.card import Source, read_card
from export.catalog.catalog import load_definition
from export.checksum import ChecksumError, sha256_of
from export.definition import Definition, Gate, Tensor
from export.errors import ExportError
from export.exporting.exporter import export_model
from export.graph.onnx_graph import GraphError, write_graph
from export.inference.parity import ParityError, run_module
from export.inference.session import open_session
from export.repository.version_content import FP32_FILE

ROOT = Path(__file__).parents[3]


def test_export_is_a_folder_with_graph_card_and_assets(tiny: Definition, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "tiny"
    card = export_model(tiny, folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "asset.txt",
        "config.pbtxt",
        "fp32.onnx",
        "model_card.json",
    ]
    assert read_card(folder) == card
    assert card.fp32_sha256 == sha256_of(folder / FP32_FILE)
    assert card.tools["torch"] == torch.__version__


def test_batch_is_dynamic_in_the_exported_graph(tiny: Definition, tmp_path: Path) -> None:
    export_model(tiny, tmp_path / "tiny")
    session = open_session(tmp_path / "tiny" / FP32_FILE)
    assert [session.run(feed).shape for feed in tiny.samples()] == [(1, 3), (2, 3), (7, 3)]


def test_parity_failure_leaves_nothing_at_the_final_path(tiny: Definition, tmp_path: Path) -> None:
    strict = replace(tiny, tolerance=-1.0)  # even no difference at all is too much
    with pytest.raises(ParityError):
        export_model(strict, tmp_path / "models" / "tiny")
    assert list((tmp_path / "models").iterdir()) == []


def test_parity_failure_keeps_the_export_that_was_there(tiny: Definition, tmp_path: Path) -> None:
    card = export_model(tiny, tmp_path / "tiny")
    with pytest.raises(ParityError):
        export_model(replace(tiny, tolerance=-1.0), tmp_path / "tiny")
    assert read_card(tmp_path / "tiny") == card


def test_refused_source_is_never_loaded(tiny: Definition, tmp_path: Path) -> None:
    def refuse() -> Source:
        raise ChecksumError("not the one")

    def load() -> nn.Module:
        pytest.fail("loaded before it was verified")

    with pytest.raises(ChecksumError):
        export_model(replace(tiny, source=refuse, module=load), tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


def test_same_definition_gives_the_same_bytes(tiny: Definition, tmp_path: Path) -> None:
    first, second = (export_model(tiny, tmp_path / name) for name in ("first", "second"))
    assert first == second
    for file in ("fp32.onnx", "config.pbtxt", "model_card.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_another_process_gives_the_same_export(tmp_path: Path) -> None:
    # Training included.
    script = (
        "import sys; from pathlib import Path; from export.catalog.catalog import load_definition; "
        "from export.exporting.exporter import export_model; "
        "print(export_model(load_definition('digits'), Path(sys.argv[1])).fp32_sha256)"
    )
    other = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "other")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert export_model(load_definition("digits"), tmp_path / "mine").fp32_sha256 == other.stdout.strip()


def test_file_carries_where_it_comes_from_also_through_a_second_writing(tiny: Definition, tmp_path: Path) -> None:
    card = export_model(tiny, tmp_path / "tiny")
    model = onnx.load(tmp_path / "tiny" / FP32_FILE)
    write_graph(model, tmp_path / "again.onnx")
    recorded = {one.key: one.value for one in onnx.load(tmp_path / "again.onnx").metadata_props}
    assert recorded["fairlane.source.sha256"] == card.source.sha256
    assert recorded["fairlane.source.licence"] == "none"
    assert recorded["fairlane.tool.torch"] == torch.__version__


def test_scores_of_the_task_are_on_the_card(tiny: Definition, tmp_path: Path) -> None:
    judged = replace(tiny, evaluate=lambda predict: {"rows": float(len(predict(next(iter(tiny.samples())))["y"]))})
    assert export_model(judged, tmp_path / "tiny").scores == {"rows": 1.0}


def test_target_tensorrt_is_marked_for_the_quantizer(tiny: Definition, tmp_path: Path) -> None:
    assert export_model(tiny, tmp_path / "gpu", target="tensorrt").symmetric
    assert not export_model(tiny, tmp_path / "cpu").symmetric


class Two(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + 1, (x > 0).to(torch.int64)


def test_several_outputs_are_exported_and_compared(tiny: Definition, tmp_path: Path) -> None:
    outputs = (Tensor("y", "FP32", ("batch", 3)), Tensor("above", "INT64", ("batch", 3)))
    two = replace(tiny, module=lambda: Two().eval(), outputs=outputs)
    export_model(two, tmp_path / "two")
    given = open_session(tmp_path / "two" / FP32_FILE).predict(next(iter(tiny.samples())))
    assert {name: value.dtype.name for name, value in given.items()} == {"y": "float32", "above": "int64"}
    with pytest.raises(ParityError, match=r"expected outputs \['y'\], got 2 outputs"):
        run_module(tiny, Two(), next(iter(tiny.samples())))


def test_graph_that_is_not_what_was_declared_is_refused(tiny: Definition, tmp_path: Path) -> None:
    wrong = replace(tiny, outputs=(Tensor("y", "FP32", ("batch", 4)),))
    with pytest.raises(GraphError, match=r"'y': the definition says FP32 \['batch', 4\], the graph has FP32 .*3"):
        export_model(wrong, tmp_path / "tiny")


def test_onnx_file_is_taken_as_a_source_and_served_alike(tiny: Definition, tmp_path: Path) -> None:
    export_model(tiny, tmp_path / "tiny")
    (tmp_path / "tiny" / FP32_FILE).rename(tmp_path / "mine.onnx")
    definition = load_definition(str(tmp_path / "mine.onnx"))
    assert (definition.name, definition.max_batch_size) == ("mine", 32)
    assert definition.inputs == tiny.inputs
    card = export_model(definition, tmp_path / "mine")
    assert card.source.file == "mine.onnx"
    feed = next(iter(tiny.samples()))
    np.testing.assert_array_equal(open_session(tmp_path / "mine" / FP32_FILE).run(feed), 2 * feed["x"] + 1)


@pytest.mark.parametrize("kept", [0, 10, 200])
def test_truncated_onnx_file_is_refused_by_name(tiny: Definition, tmp_path: Path, kept: int) -> None:
    export_model(tiny, tmp_path / "tiny")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes((tmp_path / "tiny" / FP32_FILE).read_bytes()[:kept])
    with pytest.raises(GraphError, match=r"cut.onnx: not an ONNX file"):
        load_definition(str(cut))


def test_model_in_training_mode_is_refused(tiny: Definition, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"digits: module\(\): expected a model in eval mode"):
        export_model(replace(tiny, module=Two), tmp_path / "tiny")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module": lambda: None}, r"digits: module\(\): expected a torch.nn.Module, got NoneType"),
        ({"source": lambda: None}, r"digits: source\(\): expected a Source, got NoneType"),
        ({"samples": lambda: None}, "digits: samples: expected feeds, got NoneType"),
        ({"samples": lambda: [1]}, "digits: samples 0: expected arrays by input name, got int"),
        ({"evaluate": lambda _: None}, "digits: evaluate: expected scores by name, got NoneType"),
        ({"gates": (Gate("nope", at_least=1),)}, "digits: gates: expected one of the scores cosine; got 'nope'"),
        (
            {"assets": lambda folder: (folder / "model.onnx").touch()},
            r"assets\(\): expected files .*; got 'model.onnx'",
        ),
        ({"assets": lambda folder: (folder / "more").mkdir()}, r"assets\(\): expected files .*; got a folder, 'more'"),
        ({"outputs": (Tensor("z", "FP32", ("batch", 3)), Tensor("y", "FP32", ("batch", 3)))}, "the definition says"),
        (
            {"inputs": (Tensor("x", "FP32", ("batch", "n")),)},
            r"'y': the definition says FP32 \['batch', 3\], the graph has FP32 \['batch', 'n'\]",
        ),
    ],
)
def test_what_a_definition_gives_is_held_to_its_declaration(
    tiny: Definition, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        export_model(replace(tiny, **change), tmp_path / "tiny")  # type: ignore[arg-type]
    assert not (tmp_path / "tiny").exists()


class Raising(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such\n  thing")


def test_forward_that_fails_is_told_by_its_own_error(tiny: Definition, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"^digits: PyTorch cannot export it: RuntimeError: no such thing") as told:
        export_model(replace(tiny, module=lambda: Raising().eval()), tmp_path / "tiny")
    assert "stack trace" not in str(told.value)


def test_onnx_file_whose_output_has_no_batch_takes_one_request_at_a_time(tmp_path: Path) -> None:
    value = [helper.make_tensor_value_info(name, 1, dims) for name, dims in (("x", ["batch", 3]), ("y", [3]))]
    node = helper.make_node("ReduceSum", ["x", "axis"], ["y"], keepdims=0)
    axis = helper.make_tensor("axis", onnx.TensorProto.INT64, [1], [0])
    graph = helper.make_graph([node], "sum", value[:1], value[1:], [axis])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "sum.onnx"
    )
    definition = load_definition(str(tmp_path / "sum.onnx"))
    assert definition.max_batch_size == 0
    export_model(definition, tmp_path / "sum")


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.lstm(x)[0]
        return states


def tagger(tiny: Definition, *lengths: int) -> Definition:
    shape = ("batch", "length")
    return replace(
        tiny,
        inputs=(Tensor("x", "FP32", (*shape, 3)),),
        outputs=(Tensor("y", "FP32", (*shape, 5)),),
        module=lambda: Tagger().eval(),
        samples=lambda: [{"x": np.ones((2, length, 3), np.float32)} for length in lengths],
    )


def test_lstm_is_exported_with_an_open_length_also_by_the_second_export_of_a_process(
    tiny: Definition, tmp_path: Path
) -> None:
    for _ in range(2):
        export_model(tagger(tiny, 4, 6), tmp_path / "tagger")
        session = open_session(tmp_path / "tagger" / FP32_FILE)
        assert session.run({"x": np.ones((3, 9, 3), np.float32)}).shape == (3, 9, 5)


def test_length_that_no_sample_proves_to_be_open_is_not_taken_for_it(tiny: Definition, tmp_path: Path) -> None:
    with pytest.raises(
        GraphError, match=r"'y': the definition says FP32 \['batch', 'length', 5\], the graph has .* 4, 5"
    ):
        export_model(tagger(tiny, 4), tmp_path / "tagger")


class Anchors(nn.Module):
    """Gives a weight as it is; as a compiled module it has a length and cannot say which."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors = nn.Parameter(torch.ones(1, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.anchors.expand(x.shape[0], -1)

    def __len__(self) -> int:
        raise TypeError("no length")


def test_output_that_is_a_weight_is_exported(tiny: Definition, tmp_path: Path) -> None:
    card = export_model(replace(tiny, module=lambda: Anchors().eval()), tmp_path / "anchors")
    assert card.parity.max_abs_diff == 0
