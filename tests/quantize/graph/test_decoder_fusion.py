"""Fusing a decoder: the same answers, with a cache and padding, in few nodes; and what cannot be fused says so."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

pytest.importorskip("gguf", reason="an optional package: requirements/weights-large.txt")

from export.definition import Definition, Feed, Tensor
from export.definition.tensor import BATCH, FloatArray
from export.exporting.exporter import trace
from export.graph.onnx_graph import write_graph
from export.inference.session import open_session
from export.models.smollm2 import WithCache
from export.repository.version_content import FP32_FILE
from export.sources.llama import Llama, Shape
from quantize.graph.decoder_fusion import FusionError, fuse
from quantize.graph.layers import layers
from quantize.quantizing.quantizer import prepared_graph, quantize_graph
from quantize.recipe import WeightOnly
from quantize.searching.sensitivity import sensitivities
from quantize.tasks.task import Runner, Split
from tests.quantize.conftest import TinyTask, tiny_graph

SHAPE = Shape(blocks=2, heads=6, kv_heads=2, head_size=32, rope_base=1e4, norm_epsilon=1e-5)
WIDTH, GATED, WORDS = SHAPE.heads * SHAPE.head_size, 320, 50
CACHES = [f"{kind}_{layer}" for layer in range(SHAPE.blocks) for kind in ("key", "value")]


class RandomWeights:
    """Takes the place of a GGUF file."""

    def shape(self) -> Shape:
        return SHAPE

    def tensor(self, name: str) -> torch.Tensor:
        kv_width = SHAPE.kv_heads * SHAPE.head_size
        sizes = {
            "token_embd": (WORDS, WIDTH),
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (kv_width, WIDTH),
            "attn_v": (kv_width, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (GATED, WIDTH),
            "ffn_up": (GATED, WIDTH),
            "ffn_down": (WIDTH, GATED),
        }
        kind = name.removesuffix(".weight").split(".")[-1]
        generator = torch.Generator().manual_seed(sum(map(ord, name)))
        drawn = torch.randn(sizes.get(kind, (WIDTH,)), generator=generator)
        return drawn / WIDTH**0.5 if kind in sizes else 1 + drawn / 10


def feed(rows: int, new: int, past: int, padding: int = 0) -> Feed:
    """Tokens behind a cache, whose first row is padded on the left."""
    generator = np.random.default_rng(rows + new + past)
    mask = np.ones((rows, past + new), np.int64)
    mask[0, :padding] = 0
    position = np.maximum(mask.cumsum(axis=1) - 1, 0)[:, past:]
    cache = (rows, SHAPE.kv_heads, past, SHAPE.head_size)
    caches = {f"past_{name}": generator.standard_normal(cache, np.float32) for name in CACHES}
    ids = generator.integers(0, WORDS, (rows, new))
    return {"input_ids": ids, "attention_mask": mask, "position_ids": position, **caches}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    module = WithCache(Llama(RandomWeights())).eval()  # type: ignore[arg-type]
    cache = (BATCH, SHAPE.kv_heads, "past", SHAPE.head_size)
    longer = (BATCH, SHAPE.kv_heads, "past+sequence", SHAPE.head_size)
    definition = Definition(
        name="small",
        inputs=(
            Tensor("input_ids", "INT64", (BATCH, "sequence")),
            Tensor("attention_mask", "INT64", (BATCH, "past+sequence")),
            Tensor("position_ids", "INT64", (BATCH, "sequence")),
            *(Tensor(f"past_{name}", "FP32", cache) for name in CACHES),
        ),
        outputs=(
            Tensor("logits", "FP32", (BATCH, "sequence", WORDS)),
            *(Tensor(f"present_{name}", "FP32", longer) for name in CACHES),
        ),
        source=lambda: pytest.fail("not asked for"),
        module=lambda: module,
        samples=lambda: [feed(2, 3, 5)],
    )
    path = tmp_path_factory.mktemp("small") / "fp32.onnx"
    write_graph(trace(definition, module), path)
    return path


@pytest.mark.parametrize("request_", [feed(1, 1, 7), feed(1, 6, 0), feed(3, 2, 5, padding=4), feed(2, 4, 0, padding=2)])
def test_fused_graph_gives_every_output_of_the_plain_one(exported: Path, tmp_path: Path, request_: Feed) -> None:
    path = tmp_path / "fused.onnx"
    write_graph(fuse(onnx.load(exported)), path)
    plain, fused = open_session(exported).predict(request_), open_session(path).predict(request_)
    assert list(plain) == list(fused)
    # What a padded place holds is nobody's answer.
    seen = request_["attention_mask"][:, -request_["input_ids"].shape[1] :].astype(bool)
    assert np.abs(plain["logits"][seen] - fused["logits"][seen]).max() < 1e-4
    for name in CACHES:
        held = request_["attention_mask"].astype(bool)[:, np.newaxis].repeat(SHAPE.kv_heads, axis=1)
        assert np.abs(plain[f"present_{name}"][held] - fused[f"present_{name}"][held]).max() < 1e-4


def test_a_layer_is_four_products_one_attention_and_two_norms(exported: Path) -> None:
    nodes = Counter(node.op_type for node in fuse(onnx.load(exported)).graph.node)
    assert nodes["MatMul"] == 4 * SHAPE.blocks + 1
    assert nodes["MultiHeadAttention"] == nodes["RotaryEmbedding"] == nodes["QuickGelu"] == SHAPE.blocks
    # The first norm has no sum before it.
    assert nodes["SkipSimplifiedLayerNormalization"] == 2 * SHAPE.blocks
    assert nodes["Softmax"] == 0
    # What layers share is there once.
    assert nodes["Cos"] == nodes["Sin"] == nodes["Expand"] == 1


def test_new_products_go_by_the_names_of_their_weights(exported: Path) -> None:
    names = [layer.name for layer in layers(fuse(onnx.load(exported)).graph)]
    assert "llama.blocks.1.ffn_gate+llama.blocks.1.ffn_up" in names
    assert len(set(names)) == len(names)


def test_recipe_that_fuses_is_close_to_fp32_and_batch_invariant(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    quantize_graph(WeightOnly(bits=8, fuse=True), lambda: (), exported, path)
    session, together = open_session(path), feed(3, 1, 5)
    before, after = open_session(exported).run(together), session.run(together)
    assert np.abs(before - after).max() < 0.05 * np.abs(before).max()
    for row in range(3):
        alone = session.run({name: value[row : row + 1] for name, value in together.items()})
        assert np.abs(alone[0] - after[row]).max() < 1e-4


def test_layer_of_the_fused_graph_is_left_out_by_name(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    quantize_graph(WeightOnly(bits=8, fuse=True, exclude=("*by_group",)), lambda: (), exported, path)
    kept = [node.input[1] for node in onnx.load(path).graph.node if node.op_type == "MatMul"]
    assert kept == [f"llama.blocks.{block}.attn_output/by_group" for block in range(SHAPE.blocks)]


def test_layers_of_the_fused_graph_are_tried_alone(exported: Path, tmp_path: Path) -> None:
    (tmp_path / FP32_FILE).write_bytes(exported.read_bytes())
    recipe, steps = WeightOnly(fuse=True), list[str]()
    found = sensitivities(DecoderTask(), recipe, tmp_path, steps.append, 3)
    fused = {layer.name for layer in layers(prepared_graph(recipe, exported).graph)}
    assert {one.layer for one in found} == set(steps) <= fused
    assert len(found) == 3
    assert all(0 < one.loss < 1e-3 for one in found)
    assert [one.loss for one in found] == sorted((one.loss for one in found), reverse=True)


class DecoderTask(TinyTask):
    """Compares the logits of a few tokens behind a cache."""

    def __init__(self) -> None:
        super().__init__(at_least=0)

    def calibration(self, built: Path) -> Iterator[Feed]:
        del built
        return iter(())

    def answers(self, model: Runner, built: Path, split: Split) -> FloatArray:
        del built, split
        return model.run(feed(3, 5, 4))


def test_graph_without_such_a_layer_is_refused() -> None:
    with pytest.raises(FusionError, match="found none"):
        fuse(tiny_graph())
