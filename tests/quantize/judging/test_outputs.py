"""Graphs whose outputs hide something from one range, or from one cosine: INT8 that keeps it, or a refusal by name."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

import quantize.judging.verdict
from export.card import Quantization
from export.cli import export
from export.graph.onnx_graph import IR_VERSION, OPSET
from export.repository.repository import Repository
from quantize.cli import quantize as command
from quantize.judging.excluded_layers import ExcludedLayers

FILE = """
from pathlib import Path
from export.definition import Definition, Serving, Tensor
from export.card import Source
import numpy as np

def pictures(count, seed):
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.uniform(-3, 3, (count, 3, 4, 4)), np.ones((4, 4)))
    return {"x": (coarse + rng.normal(0, .3, coarse.shape)).astype(np.float32)}

DEFINITION = Definition(
    name="mine",
    source=lambda: Source(package="", version="", file="", sha256="0" * 64, licence=""),
    onnx_file=Path(__file__).with_suffix(".onnx"),
    samples=lambda: (pictures(2, 1), pictures(6, 2)),
    calibration=lambda: (pictures(8, seed) for seed in range(3, 7)),
    serving=Serving(max_batch_size=8),
    inputs=(Tensor("x", "FP32", ("batch", 3, 16, 16)),),
    outputs=OUTPUTS,
    RECIPE
)
"""
Node = onnx.NodeProto
node = helper.make_node


def weights(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 0.6 / np.sqrt(np.prod(shape[1:])) * 2, shape).astype(np.float32)


def graph(nodes: list[Node], outputs: dict[str, tuple[int, list[Any]]], **constants: Any) -> onnx.ModelProto:
    """Some nodes behind `h`, what two convolutions make of `x`, FP32 [batch, 16, 8, 8]."""
    body = [
        node("Conv", ["x", "w1"], ["c1"], "first", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2"], ["c2"], "second", pads=[1, 1, 1, 1]),
        node("Relu", ["c2"], ["h"]),
    ]
    named = {"w1": weights(32, 3, 3, 3), "w2": weights(16, 32, 3, 3, seed=1), **constants}
    made = helper.make_graph(
        [*body, *nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info(name, kind, ["batch", *dims]) for name, (kind, dims) in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in named.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


HEADS = [
    node("Conv", ["h", "wb"], ["b"], "box"),
    node("Sigmoid", ["b"], ["bs"]),
    node("Mul", ["bs", "size"], ["boxes"], "scaled"),
    node("Conv", ["h", "ws"], ["s"], "score"),
    node("Sigmoid", ["s"], ["scores"], "sure"),
]
HEAD_WEIGHTS = {"wb": weights(4, 16, 1, 1, seed=2), "ws": weights(8, 16, 1, 1, seed=3), "size": np.float32(640)}
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
DETECTIONS = {"out": (FLOAT, [12, 64])}


def detector(*end: Node, outputs: dict[str, tuple[int, list[Any]]] = DETECTIONS, **constants: Any) -> onnx.ModelProto:
    return graph([*HEADS, *end], outputs, **HEAD_WEIGHTS, **constants)


def joined() -> onnx.ModelProto:
    return detector(
        node("Concat", ["boxes", "scores"], ["all"], "join", axis=1),
        node("Reshape", ["all", "flat"], ["out"]),
        flat=np.array([0, 12, 64]),
    )


def joined_last() -> onnx.ModelProto:
    """[batch, places, channels]: each head is moved before they are joined."""
    return detector(
        node("Transpose", ["boxes"], ["bt"], perm=[0, 2, 3, 1]),
        node("Transpose", ["scores"], ["st"], perm=[0, 2, 3, 1]),
        node("Concat", ["bt", "st"], ["all"], "join", axis=3),
        node("Reshape", ["all", "flat"], ["out"]),
        outputs={"out": (FLOAT, [64, 12])},
        flat=np.array([0, 64, 12]),
    )


def split_again() -> onnx.ModelProto:
    return detector(
        node("Concat", ["boxes", "scores"], ["all"], "join", axis=1),
        node("Split", ["all", "sizes"], ["first", "then"], axis=1),
        outputs={"first": (FLOAT, [4, 8, 8]), "then": (FLOAT, [8, 8, 8])},
        sizes=np.array([4, 8]),
    )


def padded_and_added() -> onnx.ModelProto:
    return detector(
        node("Pad", ["boxes", "below"], ["bp"]),
        node("Pad", ["scores", "above"], ["sp"]),
        node("Add", ["bp", "sp"], ["out"], "sum"),
        outputs={"out": (FLOAT, [12, 8, 8])},
        below=np.array([0, 0, 0, 0, 0, 8, 0, 0]),
        above=np.array([0, 4, 0, 0, 0, 0, 0, 0]),
    )


def stacked() -> onnx.ModelProto:
    return detector(
        node("ReduceMean", ["boxes", "area"], ["bm"], keepdims=0),
        node("ReduceMean", ["scores", "area"], ["sm"], keepdims=0),
        node("Slice", ["sm", "from", "to", "channels"], ["sf"]),
        node("Unsqueeze", ["bm", "one"], ["bu"]),
        node("Unsqueeze", ["sf", "one"], ["su"]),
        node("Concat", ["bu", "su"], ["out"], "stack", axis=1),
        outputs={"out": (FLOAT, [2, 4])},
        area=np.array([2, 3]),
        one=np.array([1]),
        **{"from": np.array([0]), "to": np.array([4]), "channels": np.array([1])},
    )


def of_one_convolution() -> onnx.ModelProto:
    """What one convolution puts out reaches 1e5 times as far in some channels as in others."""
    head = weights(12, 16, 1, 1, seed=4)
    head[:4] *= 1e5
    return graph([node("Conv", ["h", "wh"], ["out"], "head")], {"out": (FLOAT, [12, 8, 8])}, wh=head)


def of_one_product() -> onnx.ModelProto:
    head = weights(16, 6, seed=4)
    head[:, :2] *= 1e5
    nodes = [node("ReduceMean", ["h", "area"], ["m"], keepdims=0), node("Gemm", ["m", "wh", "bias"], ["out"], "head")]
    bias = np.array([1e5, 0, 0, 5, 0, 0], np.float32)
    return graph(nodes, {"out": (FLOAT, [6])}, wh=head, bias=bias, area=np.array([2, 3]))


def scaled_by_channel() -> onnx.ModelProto:
    scale = np.array([640, 640, 1, 1e-3], np.float32).reshape(4, 1, 1)
    nodes = [node("Conv", ["h", "wb"], ["b"], "head"), node("Mul", ["b", "scale"], ["out"], "scaled")]
    return graph(nodes, {"out": (FLOAT, [4, 8, 8])}, wb=HEAD_WEIGHTS["wb"], scale=scale)


def segmenter() -> onnx.ModelProto:
    """A class and how sure it is for each pixel of a larger picture, beside a heat map."""
    nodes = [
        node("Conv", ["h", "ws"], ["s"], "head"),
        node("Resize", ["s", "", "larger"], ["logits"], mode="linear"),
        node("ArgMax", ["logits"], ["label"], "best", axis=1, keepdims=0),
        node("Conv", ["h", "wb"], ["b"], "peaks"),
        node("Sigmoid", ["b"], ["heat"]),
    ]
    outputs = {"label": (INT64, [16, 16]), "logits": (FLOAT, [8, 16, 16]), "heat": (FLOAT, [4, 8, 8])}
    larger = np.array([1, 1, 2, 2], np.float32)
    return graph(nodes, outputs, ws=HEAD_WEIGHTS["ws"], wb=HEAD_WEIGHTS["wb"], larger=larger)


def best_first() -> onnx.ModelProto:
    """The ten best places of a picture, with their boxes: near ones change places."""
    return detector(
        node("ReduceMax", ["scores", "channels"], ["sure"], keepdims=0),
        node("Reshape", ["sure", "row"], ["list"]),
        node("TopK", ["list", "ten"], ["score", "place"], "best"),
        node("Reshape", ["boxes", "flat"], ["b3"]),
        node("Unsqueeze", ["place", "channels"], ["pu"]),
        node("Expand", ["pu", "four"], ["places"]),
        node("GatherElements", ["b3", "places"], ["box"], axis=2),
        outputs={"box": (FLOAT, [4, 10]), "score": (FLOAT, [10]), "place": (INT64, [10])},
        channels=np.array([1]),
        row=np.array([0, 64]),
        ten=np.array([10]),
        flat=np.array([0, 4, 64]),
        four=np.array([1, 4, 1]),
    )


def still_channels() -> onnx.ModelProto:
    """Channels that do not vary, or hardly: what INT8 makes of that is nothing to judge by."""
    head, bias = weights(6, 16, 1, 1, seed=4), np.zeros(6, np.float32)
    head[0] = 0
    head[1] *= 1e-7
    bias[:3] = 1, 5, -200
    nodes = [node("Conv", ["h", "wh", "bias"], ["c"], "head"), node("Relu", ["c"], ["out"])]
    return graph(nodes, {"out": (FLOAT, [6, 8, 8])}, wh=head, bias=bias)


def joined_in_the_middle() -> onnx.ModelProto:
    """Layers read a mix: some outputs are made of what reaches 1,000, and some of what reaches 1."""
    head = weights(6, 12, 1, 1, seed=4)
    head[:3, 4:] = 0
    head[3:, :4] = 0
    nodes = [*HEADS, node("Concat", ["boxes", "scores"], ["all"], "join", axis=1)]
    nodes.append(node("Conv", ["all", "wh"], ["out"], "head"))
    return graph(nodes, {"out": (FLOAT, [6, 8, 8])}, **HEAD_WEIGHTS, wh=head)


def given_and_read_on() -> onnx.ModelProto:
    """What is joined in the middle is an output, too, and so is what a convolution of unlike channels gives."""
    middle = weights(12, 16, 1, 1, seed=4)
    middle[:4] *= 1e5
    after = weights(6, 12, 1, 1, seed=5)
    after[:, :4] /= 1e5
    nodes = [
        *HEADS,
        node("Concat", ["boxes", "scores"], ["all"], "join", axis=1),
        node("Conv", ["all", "w3"], ["out"], "behind"),
        node("Conv", ["h", "wm"], ["middle"], "middle"),
        node("Conv", ["middle", "wa"], ["other"], "after"),
    ]
    outputs = {"out": (FLOAT, [6, 8, 8]), "all": (FLOAT, [12, 8, 8])}
    outputs |= {"middle": (FLOAT, [12, 8, 8]), "other": (FLOAT, [6, 8, 8])}
    return graph(nodes, outputs, **HEAD_WEIGHTS, w3=weights(6, 12, 1, 1, seed=6), wm=middle, wa=after)


def columns_of_unlike_size() -> onnx.ModelProto:
    """As of a table: one column reaches 1e5 and another a hundredth, and each counts as much as the others."""
    size = np.logspace(5, -2, 16).astype(np.float32)
    first = weights(16, 32, seed=4) * 4
    nodes = [
        node("ReduceMean", ["h", "area"], ["m"], keepdims=0),
        node("Mul", ["m", "size"], ["columns"]),
        node("Gemm", ["columns", "w3", "bias"], ["p"], "third"),
        node("Relu", ["p"], ["r"]),
        node("Gemm", ["r", "w4"], ["out"], "fourth"),
    ]
    more = {"area": np.array([2, 3]), "size": size, "w3": first / size[:, np.newaxis], "bias": np.zeros(32, np.float32)}
    return graph(nodes, {"out": (FLOAT, [3])}, w4=weights(32, 3, seed=5), **more)


def classes_that_share_what_is_large() -> onnx.ModelProto:
    """The class of a pixel is in differences, which a step of one range for all is larger than."""
    head = weights(5, 16, 1, 1, seed=4) + 200 * weights(1, 16, 1, 1, seed=5)
    return graph([node("Conv", ["h", "wh"], ["out"], "head")], {"out": (FLOAT, [5, 8, 8])}, wh=head)


@pytest.fixture
def quantized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Result, Quantization]]:
    """Export and quantize a graph, by default without any gate; the second command's result and its card."""
    # So small a graph may well be slower in INT8, which is not what is asked here.
    monkeypatch.setattr(quantize.judging.verdict, "medians_ms", lambda *_: [1.0, 0.5])

    def run(model: onnx.ModelProto, recipe: str = "") -> tuple[Result, Quantization]:
        onnx.save(model, tmp_path / "mine.onnx")
        kinds = {FLOAT: "FP32", INT64: "INT64"}
        outputs = "".join(
            f"Tensor({one.name!r}, {kinds[one.type.tensor_type.elem_type]!r}, "
            f"('batch', {''.join(f'{size.dim_value}, ' for size in one.type.tensor_type.shape.dim[1:])})), "
            for one in model.graph.output
        )
        (tmp_path / "mine.py").write_text(FILE.replace("OUTPUTS", f"({outputs})").replace("RECIPE", recipe))
        places = ["--build-dir", str(tmp_path / "build"), "--model-repository", str(tmp_path / "repository")]
        exported = CliRunner().invoke(export, [*places, str(tmp_path / "mine.py")])
        assert exported.exit_code == 0, exported.output
        result = CliRunner().invoke(command, [*places, str(tmp_path / "mine.py")])
        card = Repository(tmp_path / "repository").card("mine")
        assert card is not None, result.output
        assert card.quantization is not None, result.output
        return result, card.quantization

    return run


Run = Callable[..., tuple[Result, Quantization]]


@pytest.mark.parametrize(
    "made",
    [
        joined,
        joined_last,
        split_again,
        padded_and_added,
        stacked,
        of_one_convolution,
        of_one_product,
        scaled_by_channel,
        segmenter,
        best_first,
        still_channels,
        joined_in_the_middle,
        columns_of_unlike_size,
        given_and_read_on,
    ],
)
def test_int8_keeps_every_channel(quantized: Run, made: Callable[[], onnx.ModelProto]) -> None:
    result, verdict = quantized(made())
    assert result.exit_code == 0, result.output
    assert verdict.passed
    assert 0 < max(verdict.errors.values()) < 0.15


def test_what_is_joined_at_the_end_stays_fp32_and_is_told(quantized: Run) -> None:
    result, verdict = quantized(joined())
    assert [(one.what, one.size_bytes) for one in verdict.stays_fp32] == [("Mul, Sigmoid behind the last layers", 0)]
    said = "mine: FP32: Mul, Sigmoid behind the last layers: no range is shared by what is joined there"
    assert said in result.stderr
    assert "every node" not in result.output + verdict.recipe


def test_convolution_of_unlike_channels_stays_fp32_and_is_told_with_its_bytes(quantized: Run) -> None:
    result, verdict = quantized(of_one_convolution())
    (left,) = verdict.stays_fp32
    assert (left.what, left.size_bytes) == ("Conv", 12 * 16 * 4)
    assert re.search(r"0\.8 of [\d.]+ kB stay FP32: Conv \(\d+ % of the time\)", result.stderr)
    assert re.search(r"FP32: Conv: head: one range for all channels has steps of .*, and one varies by", result.stderr)


def recurrent(operator: str, gates: int) -> onnx.ModelProto:
    """Rows of the picture in turn through an LSTM or a GRU, with most of the weights, and a product."""
    wide = 96
    nodes = [
        node("Transpose", ["h"], ["t"], perm=[2, 0, 1, 3]),
        node("Reshape", ["t", "rows"], ["steps"]),
        node(operator, ["steps", "w", "r"], ["", "last"], "memory", hidden_size=wide),
        node("Reshape", ["last", "flat"], ["f"]),
        node("Gemm", ["f", "wh"], ["out"], "head"),
    ]
    return graph(
        nodes,
        {"out": (FLOAT, [6])},
        rows=np.array([8, -1, 128]),
        flat=np.array([-1, wide]),
        w=weights(1, gates * wide, 128, seed=5) * 3,
        r=weights(1, gates * wide, wide, seed=6) * 3,
        wh=weights(wide, 6, seed=7),
    )


@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3)])
@pytest.mark.parametrize("recipe", ["", 'recipe={"method": "dynamic"}'])
def test_recurrent_layers_that_stay_fp32_are_told_with_bytes_and_time(
    quantized: Run, operator: str, gates: int, recipe: str
) -> None:
    result, verdict = quantized(recurrent(operator, gates), recipe)
    held = {one.what: one.size_bytes for one in verdict.stays_fp32}
    assert held[operator] == gates * 96 * (128 + 96) * 4
    share = next(one.time_share for one in verdict.stays_fp32 if one.what == operator)
    assert 0 < share < 1
    said = re.search(r"mine: ([\d.]+) of ([\d.]+) MB stay FP32: (.*)", result.stderr)
    assert said, result.stderr
    assert operator in said[3]
    assert float(said[1]) == pytest.approx(sum(held.values()) / 1e6, abs=0.05)
    assert float(said[2]) == pytest.approx(verdict.int8.size_bytes / 1e6, abs=0.05)
    assert "every node" not in result.output + verdict.recipe


@pytest.mark.parametrize(("made", "layer"), [(joined_in_the_middle, "head"), (columns_of_unlike_size, "third")])
def test_layer_that_reads_unlike_magnitudes_stays_fp32_and_is_told(quantized: Run, made: Any, layer: str) -> None:
    result, verdict = quantized(made())
    assert verdict.passed, result.output
    whys = [one.why for one in verdict.stays_fp32 if one.size_bytes]
    assert whys
    assert whys[0].startswith(f"{layer}: with one range for all that it reads, an output would have noise of ")
    assert whys[0] in result.stderr


def test_ruined_output_is_refused_by_name_without_any_gate(quantized: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize.judging.verdict, "excluded_layers", lambda *_: ExcludedLayers(frozenset(), {}))
    result, verdict = quantized(joined_in_the_middle())
    assert result.exit_code == 1
    assert not verdict.passed
    assert "mine: INT8 refused, FP32 is served instead" in result.stderr
    assert re.search(r"^  out\[:, 3:6, :, :\]: ", result.stderr, re.MULTILINE), result.stderr


def test_class_of_a_pixel_is_refused_by_name_where_it_is_another_one(
    quantized: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = classes_that_share_what_is_large()
    _, verdict = quantized(made)
    # The head is to blame, and spared.
    assert verdict.passed
    monkeypatch.setattr(quantize.judging.verdict, "excluded_layers", lambda *_: ExcludedLayers(frozenset(), {}))
    result, verdict = quantized(made)
    assert not verdict.passed
    assert "  out[:, :, :, :]: INT8 has another index for the largest of axis 1: choosing by it" in result.stderr


def test_weights_that_are_constants_of_another_kind_are_quantized(quantized: Run) -> None:
    """As other exporters write them: nodes that give a constant, and one that is transposed when the graph runs."""
    model = joined()
    moved = {one.name: one for one in model.graph.initializer if one.name in ("w1", "w2", "wb", "ws")}
    for name, one in moved.items():
        model.graph.initializer.remove(one)
        value = numpy_helper.from_array(numpy_helper.to_array(one).transpose(1, 0, 2, 3).copy())
        model.graph.node.insert(0, node("Transpose", [f"{name}/const"], [name], perm=[1, 0, 2, 3]))
        model.graph.node.insert(0, node("Constant", [], [f"{name}/const"], value=value))
    _, verdict = quantized(model)
    assert verdict.passed
    assert verdict.int8.size_bytes < 0.6 * verdict.fp32.size_bytes
    assert 0 < verdict.errors["out"] < 0.15
