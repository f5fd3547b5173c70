"""Graphs whose free first axis is a batch, is none, or may be either: what is found of each.

Written in ONNX's own text form, see `onnx.parser`.
"""

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import export.batch_proof.independence
from export.batch_proof.invariance import InvarianceError
from export.batch_proof.proof import settle_batch
from export.card import BatchProof, Source, read_card
from export.catalog.onnx_source import define_onnx
from export.cli import export as command
from export.configuration.model_config import read_config
from export.definition import Definition, Feed, Serving, Tensor
from export.exporting.exporter import export_model
from export.inference.session import open_session

HEAD = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1, "ai.onnx.ml" : 3]>'


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """All trials are made, however slow the machine is."""
    monkeypatch.setattr(export.batch_proof.independence, "SECONDS", math.inf)


def settled(tmp_path: Path, text: str) -> BatchProof:
    path = tmp_path / "graph.onnx"
    onnx.save(onnx.parser.parse_model(f"{HEAD} {text}"), path)
    definition, proof = settle_batch(define_onnx(path), onnx.load(path), open_session(path))
    assert definition.batched == proof.proved
    return proof


# What is computed of each row alone.
INDEPENDENT = {
    "a layer": "g (float[n,3] x) => (float[n,3] y) { y = Tanh(x) }",
    "softmax over classes": "g (float[n,9] x) => (float[n,9] y) { y = Softmax<axis=1>(x) }",
    "normalized rows": """g (float[n,9] x) => (float[n,9] y) {
        m = ReduceMean<axes=[1], keepdims=1>(x)  y = Sub(x, m) }""",
    "two outputs": """g (float[n,9] x) => (float[n,9] y, int64[n] label) {
        y = Exp(x)  label = ArgMax<axis=1, keepdims=0>(x) }""",
    "a number a row": "g (float[n] x) => (float[n] y) { y = Abs(x) }",
    "only positive": "g (float[n,3] x) => (float[n,3] y) { y = Log(x) }",
    "a table and a mask": """g (int64[n,s] ids, int64[n,s] mask) => (float[n,4] y)
        <float[7,4] table = {0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27}> {
        rows = Gather(table, ids)  m = Cast<to=1>(mask)  axis = Constant<value_ints=[2]>()
        wide = Unsqueeze(m, axis)  product = Mul(rows, wide)  y = ReduceMean<axes=[1], keepdims=0>(product) }""",
    "int32 tokens": """g (int32[n,s] ids) => (float[n,s,2] y)
        <float[5,2] table = {0,1,2,3,4,5,6,7,8,9}> { y = Gather(table, ids) }""",
    "an axis behind the first with the name of a batch": """g (float[steps,batch,3] x) => (float[steps,batch,3] y) {
        y = Tanh(x) }""",
    "flags": "g (bool[n,4] x) => (bool[n,4] y) { y = Not(x) }",
    "words": "g (string[n,2] x) => (string[n,2] y) { y = Identity(x) }",
    "words that are numbers": "g (string[n,2] x) => (float[n,2] y) { y = Cast<to=1>(x) }",
    "attention within a row": """g (float[n,s,4] x) => (float[n,s,4] y) {
        t = Transpose<perm=[0,2,1]>(x)  a = MatMul(x, t)  p = Softmax<axis=-1>(a)  y = MatMul(p, x) }""",
    "axes that the graph names differently": """g (float[a,3] x, float[b,3] z) => (float[c,6] y) {
        y = Concat<axis=1>(x, z) }""",
    "axes without names": "g (float[?,3] x, float[?,3] z) => (float[?,6] y) { y = Concat<axis=1>(x, z) }",
    "masked with a large number": """g (float[n,8] x) => (float[n,8] y) <float low = {-1e9}, float zero = {0}> {
        hidden = Less(x, zero)  y = Where(hidden, low, x) }""",
    "half precision": """g (float[n,64] x) => (float[n,64] y) {
        h = Cast<to=10>(x)  e = Exp(h)  p = Softmax<axis=1>(e)  y = Cast<to=1>(p) }""",
    "a branch of its own for each value": """g (float[n,3] x) => (float[n,3] y) <float zero = {0}> {
        up = Greater(x, zero)  double = Add(x, x)  y = Where(up, double, x) }""",
    "words of a list": """g (string[n,2] x) => (float[n,2,3] y) {
        y = ai.onnx.ml.OneHotEncoder<cats_strings=["red", "green", "blue"], zeros=0>(x) }""",
    "words of a column each": """g (string[?,1] colour, float[?,1] size) => (float[?,2] y) {
        n = ai.onnx.ml.LabelEncoder<keys_strings=["red", "green"], values_floats=[1.0, 2.0]>(colour)
        y = Concat<axis=1>(n, size) }""",
    "rows of one kind in a matrix of their own size": """g (float[n,2] x) => (float[n,2] y) <float[2,2] w = {1,2,3,4}> {
        high = ReduceMax<axes=[1], keepdims=0>(x)  half = Constant<value_float=0.5>()  chosen = Greater(high, half)
        i = NonZero(chosen)  places = Transpose(i)  rows = GatherND(x, places)  m = MatMul(rows, w)
        y = ScatterND(x, places, m) }""",
    "an operator of ONNX Runtime's own": "g (float[n,4] x) => (float[n,4] y) { y = com.microsoft.FastGelu(x) }",
}


@pytest.mark.parametrize("kind", INDEPENDENT)
def test_rows_that_are_answered_each_for_itself_are_a_batch(tmp_path: Path, kind: str) -> None:
    proof = settled(tmp_path, INDEPENDENT[kind])
    assert proof.proved, proof.reason
    assert proof.sizes == tuple(range(2, 33))


# What is computed of a row with the others, and what is said of it.
TOGETHER = {
    "mean": """g (float[points,3] x) => (float[points,3] y) {
        m = ReduceMean<axes=[0], keepdims=1>(x)  y = Sub(x, m) }""",
    "softmax over rows": "g (float[n,3] x) => (float[n,3] y) { y = Softmax<axis=0>(x) }",
    "running sum": "g (float[n,3] x) => (float[n,3] y) <int64 zero = {0}> { y = CumSum(x, zero) }",
    "attention over rows": """g (float[n,3] x) => (float[n,3] y) {
        t = Transpose(x)  a = MatMul(x, t)  p = Softmax<axis=-1>(a)  y = MatMul(p, x) }""",
    "sorted": """g (float[n,3] x) => (float[n,3] y) {
        s = Shape(x)  zero = Constant<value_ints=[0]>()  n = Gather(s, zero)  y, i = TopK<axis=0>(x, n) }""",
    "loudest of all": """g (float[n,3] x) => (float[n,3] y) {
        a = Abs(x)  m = ReduceMax<keepdims=0>(a)  y = Div(x, m) }""",
    "one range for all, dynamic quantization": """g (float[n,3] x) => (float[n,3] y) {
        q, scale, zero = DynamicQuantizeLinear(x)  y = DequantizeLinear(q, scale, zero) }""",
    "a recurrence over time": """g (float[time,1,2] x) => (float[time,1,1,2] y)
        <float[1,2,2] w = {1,2,3,4}, float[1,2,2] r = {1,0,0,1}> { y = RNN<hidden_size=2>(x, w, r) }""",
    "the row before": """g (float[n,3] x) => (float[n,3] y) {
        pads = Constant<value_ints=[1,0,-1,0]>()  before = Pad(x, pads)  y = Sub(x, before) }""",
    "how many there are": """g (float[n,3] x) => (float[n,3] y) {
        s = Shape(x)  zero = Constant<value_int=0>()  n = Gather(s, zero)  f = Cast<to=1>(n)  y = Mul(x, f) }""",
    "which it is": """g (float[n] x) => (float[n] y) {
        s = Shape(x)  zero = Constant<value_int=0>()  one = Constant<value_int=1>()  n = Gather(s, zero)
        places = Range(zero, n, one)  f = Cast<to=1>(places)  y = Add(x, f) }""",
    "from 20 rows on": """g (float[n,3] x) => (float[n,3] y) <int64 twenty = {20}> {
        s = Shape(x)  zero = Constant<value_int=0>()  n = Gather(s, zero)  many = GreaterOrEqual(n, twenty)
        m = ReduceMean<axes=[0], keepdims=1>(x)  c = Sub(x, m)  y = Where(many, c, x) }""",
    "of 6 rows": """g (float[n,3] x) => (float[n,3] y) <int64 six = {6}> {
        s = Shape(x)  zero = Constant<value_int=0>()  n = Gather(s, zero)  some = Equal(n, six)
        m = ReduceMean<axes=[0], keepdims=1>(x)  c = Sub(x, m)  y = Where(some, c, x) }""",
    "all but the first": """g (float[n,3] x) => (float[n,3] y) <int64[1] first = {0}> {
        f = Gather(x, first)  y = Sub(x, f) }""",
    "where one is loud": """g (float[n,3] x) => (float[n,3] y) <float limit = {50}> {
        high = ReduceMax<keepdims=0>(x)  loud = Greater(high, limit)
        m = ReduceMean<axes=[0], keepdims=1>(x)  c = Sub(x, m)  y = Where(loud, c, x) }""",
    "where none is above zero": """g (float[n,3] x) => (float[n,3] y) <float zero = {0}> {
        high = ReduceMax<keepdims=0>(x)  low = Less(high, zero)
        m = ReduceMean<axes=[0], keepdims=1>(x)  c = Sub(x, m)  y = Where(low, c, x) }""",
    "a little of the others": """g (float[n,3] x) => (float[n,3] y) <float part = {0.01}> {
        m = ReduceMean<axes=[0], keepdims=1>(x)  c = Mul(m, part)  y = Add(x, c) }""",
    "the second output only": """g (float[n,3] x) => (float[n,3] y, float[n,3] z) {
        y = Tanh(x)  m = ReduceMean<axes=[0], keepdims=1>(x)  z = Sub(x, m) }""",
    "the loudest row's flag": """g (float[n] x) => (bool[n] y) { m = ReduceMax<keepdims=1>(x)  y = Equal(x, m) }""",
    "what the others have times zero": """g (float[n,3] x) => (float[n,3] y) <float zero = {0}> {
        m = ReduceMean<axes=[0], keepdims=1>(x)  none = Mul(m, zero)  y = Add(x, none) }""",
    "where one has a special token": """g (int64[n,s] ids) => (float[n,s] y) <int64 special = {7}, int64 zero = {0}> {
        x = Cast<to=1>(ids)  hits = Equal(ids, special)  h = Cast<to=1>(hits)  some = ReduceMax<keepdims=0>(h)
        found = Cast<to=9>(some)  m = ReduceMean<axes=[0], keepdims=1>(x)  c = Sub(x, m)  y = Where(found, c, x) }""",
    "token ids of all": """g (int64[n,s] ids) => (float[n,s,2] y)
        <float[5,2] table = {0,1,2,3,4,5,6,7,8,9}> {
        rows = Gather(table, ids)  m = ReduceMean<axes=[0], keepdims=1>(rows)  y = Sub(rows, m) }""",
    "rows by their number": "g (float[n,3] x, int64[n] i) => (float[n,3] y) { y = Gather(x, i) }",
    "a body over all": """g (float[n,3] x) => (float[n,3] y) {
        yes = Constant<value = bool {1}>()
        y = If(yes) <then_branch = t () => (float[n,3] a) { m = ReduceMean<axes=[0], keepdims=1>(x)  a = Sub(x, m) },
                     else_branch = e () => (float[n,3] b) { b = Identity(x) }> }""",
}


@pytest.mark.parametrize("kind", TOGETHER)
def test_rows_that_change_each_others_answers_are_no_batch(tmp_path: Path, kind: str) -> None:
    proof = settled(tmp_path, TOGETHER[kind])
    assert "served whole, a request at a time (max_batch_size: 0): its first axis is no batch: output '" in proof.reason
    assert len(proof.reason.splitlines()) == 1


# What cannot be known, or is known from the graph, and why.
OPEN = {
    "g (float[n,3] x) => (float[m,3] y) { y = ReduceMean<axes=[0], keepdims=1>(x) }": "expected as many rows as",
    "g (float[n,3] x) => (float[1,3] y) { y = ReduceMean<axes=[0], keepdims=1>(x) }": "that of 'y' does not",
    "g (float[n,3] x, float[1,3] w) => (float[n,3] y) { y = Mul(x, w) }": "of 'x' varies, and that of 'w' does not",
    "g (float[n,3] x) => (float[n,n] y) { t = Transpose(x)  y = MatMul(x, t) }": "axis 1 of 'y' is of its size (n)",
    "g (float[n,n] x) => (float[n,k] y) { y = MatMul(x, x) }": "axis 1 of 'x' is of its size (n)",
    "g (float[n,3] x) => (float[?,?] y) { t = Transpose(x)  y = MatMul(x, t) }": "output 'y': among 3 rows",
    "g (float[a,3] x, float[b,3] z) => (float[a,3] y, float[b,3] v) { y = Tanh(x)  v = Tanh(z) }": (
        "the first axes of its inputs are not one: 3 rows of 'x' and 5 of 'z' run together"
    ),
    "g (float[a,3] x, float[b,3] z) => (float[c,3] y) { y = Concat<axis=0>(x, z) }": "3 rows of 'x' and 5 of 'z'",
    "g (float[n,3] x) => (float[n,3] y) { a = Abs(x)  b = Neg(a)  one = Sqrt(b)  y = Log(one) }": "has no number (NaN",
    "g (float[n,3] x) => (float[n,3] y) { y = Sub(x, x) }": "its answers are all alike, whatever the input",
    "g (float[n,3] x) => (float[n,3] y) { r = RandomNormalLike(x)  y = Add(x, r) }": "differ from run to run",
    """g (float[n,3] x) => (float[n,3] y) <float[3] one = {1,1,1}, float[3] zero = {0,0,0}> {
        y, mean, spread = BatchNormalization<training_mode=1>(x, one, zero, zero, one) }""": "differ from run to run",
    "g (float[n,3] x) => (float[k,15] y) { to = Constant<value_ints=[-1,15]>()  y = Reshape(x, to) }": (
        "cannot be proved: it does not run on random values"
    ),
    "g (float[n,3] x, int64[n] i) => (float[n,3] y) <float[3,3] t = {1,2,3,4,5,6,7,8,9}, int64 far = {99}> "
    "{ j = Mul(i, far)  e = Gather(t, j)  y = Mul(x, e) }": "input 'i' was the same in every row",
}


@pytest.mark.parametrize(("graph", "why"), OPEN.items())
def test_what_cannot_be_proved_is_said(tmp_path: Path, graph: str, why: str) -> None:
    proof = settled(tmp_path, graph)
    assert not proof.proved
    assert why in proof.reason
    assert len(proof.reason.splitlines()) == 1


def test_fixed_first_axis_needs_no_words(tmp_path: Path) -> None:
    proof = settled(tmp_path, "g (float[1,3] x) => (float[1,3] y) { y = Tanh(x) }")
    assert proof == BatchProof(proved=False, whole=True)


def cloud(tmp_path: Path) -> Path:
    path = tmp_path / "cloud.onnx"
    onnx.save(onnx.parser.parse_model(f"{HEAD} {TOGETHER['mean']}"), path)
    return path


def run(tmp_path: Path, *args: str) -> Result:
    places = ["--build-dir", str(tmp_path / "build"), "--model-repository", str(tmp_path / "repository")]
    return CliRunner().invoke(command, [*places, *args])


def test_file_with_rows_that_belong_together_is_served_whole_and_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, str(cloud(tmp_path)))
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stderr.splitlines() if "served whole" in line]
    assert line.startswith("cloud: served whole, a request at a time (max_batch_size: 0)")
    config = read_config(tmp_path / "repository" / "cloud" / "config.pbtxt")
    assert config.max_batch_size == 0
    assert [list(slot.dims) for slot in (*config.input, *config.output)] == [[-1, 3], [-1, 3]]
    assert read_card(tmp_path / "repository" / "cloud" / "1").batch == read_card(tmp_path / "build/models/cloud").batch


def test_configuration_that_merges_what_is_served_whole_is_refused(tmp_path: Path) -> None:
    graph = str(cloud(tmp_path))
    assert run(tmp_path, graph).exit_code == 0
    config = tmp_path / "repository" / "cloud" / "config.pbtxt"
    config.write_text(config.read_text().replace("dims: [-1, 3]", "dims: [3]") + "\nmax_batch_size: 32")
    done = run(tmp_path, graph)
    assert done.exit_code == 1
    assert "max_batch_size: it says 32, and the first axis of" in done.stderr
    assert run(tmp_path, graph, "--overwrite-config").exit_code == 0
    assert read_config(config).max_batch_size == 0


def defined(path: Path, samples: list[Feed], first: str = "batch") -> Definition:
    return Definition(
        name="cloud",
        inputs=(Tensor("x", "FP32", (first, 3)),),
        outputs=(Tensor("y", "FP32", (first, 3)),),
        source=lambda: Source(package="", version="", file="", sha256="0" * 64, licence=""),
        samples=lambda: samples,
        onnx_file=path,
    )


CHANCE = np.random.default_rng(0)
SAMPLES = {
    "many rows": [{"x": CHANCE.normal(0, 1, (9, 3)).astype(np.float32)}],
    "one row each": [{"x": CHANCE.normal(0, 1, (1, 3)).astype(np.float32)} for _ in range(3)],
    "one row": [{"x": CHANCE.normal(0, 1, (1, 3)).astype(np.float32)}],
    "zeros": [{"x": np.zeros((4, 3), np.float32)}],
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_definition_that_claims_a_batch_of_rows_that_belong_together_is_refused(tmp_path: Path, kind: str) -> None:
    claim = r"cloud: dims: a first axis 'batch' says .* they do: output 'y': .* rows .* by [\d.e-]+ where .* reach"
    with pytest.raises(InvarianceError, match=claim):
        export_model(defined(cloud(tmp_path), SAMPLES[kind]), tmp_path / "built")
    assert not (tmp_path / "built").exists()


def test_definition_without_a_batch_serves_the_same_whole(tmp_path: Path) -> None:
    batch = export_model(defined(cloud(tmp_path), SAMPLES["many rows"], "points"), tmp_path / "built").batch
    assert batch == BatchProof(proved=False, whole=True)


@pytest.mark.parametrize("kind", SAMPLES)
def test_definition_of_independent_rows_is_proved(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "rows.onnx"
    onnx.save(onnx.parser.parse_model(f"{HEAD} {INDEPENDENT['a layer']}"), path)
    batch = export_model(defined(path, SAMPLES[kind]), tmp_path / "built").batch
    assert batch is not None
    assert batch.proved


def test_claim_that_no_trial_can_contradict_stands_and_the_card_says_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.onnx"
    onnx.save(onnx.parser.parse_model(f"{HEAD} g (float[n,3] x) => (float[n,3] y) {{ y = Sub(x, x) }}"), path)
    card = export_model(defined(path, SAMPLES["many rows"]), tmp_path / "built")
    assert card.notes == (
        "that its first axis is a batch is the definition's word, as no trial can tell: its answers are all alike, "
        "whatever the input",
    )


class Neighbours(nn.Module):
    """Attention that takes the first axis for the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)
        return out


def test_module_whose_first_axis_is_a_sequence_is_no_batch(tmp_path: Path) -> None:
    samples = [{"x": CHANCE.normal(0, 1, (rows, 5, 4)).astype(np.float32)} for rows in (4, 2)]
    ends = ((Tensor(name, "FP32", ("batch", 5, 4)),) for name in "xy")
    definition = Definition(
        name="neighbours",
        inputs=next(ends),
        outputs=next(ends),
        source=lambda: Source(package="", version="", file="", sha256="0" * 64, licence=""),
        samples=lambda: samples,
        module=lambda: Neighbours().eval(),
        serving=Serving(max_batch_size=8),
    )
    with pytest.raises(InvarianceError, match="output 'y': among 3 rows a row's answer changes with the values of"):
        export_model(definition, tmp_path / "built")
