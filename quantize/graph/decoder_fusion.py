"""Decoder fusion: a few of ONNX Runtime's own kernels replace some sixty nodes in each layer of a decoder.

One token through a small decoder is little arithmetic: most of its nodes take longer to be called than to compute.
Three patterns are rewritten, as `export.sources.llama` exports them, with what they share between layers computed once:

- The sum and the RMS norm behind it: SkipSimplifiedLayerNormalization.
- Attention: one product for query, key and value, RotaryEmbedding, and MultiHeadAttention, which adds to the cache too.
- The gated feed-forward: one product for gate and up, and QuickGelu, which with alpha 1 is SiLU.

Grouped queries (Ainslie et al., "GQA", 2023) need no kernel of their own. Those that share a key head become so many
rows of it: the columns of the query's matrix are put in the order [group, key head], so that [b, s, group * width]
*is* [b, s * group, width], and the rows of the output's matrix likewise. GroupQueryAttention would do that itself, and
in ONNX Runtime 1.19 has no mask: a cache that is padded on the left is none that it can read.

Rotation by an angle that comes with the token: RotaryEmbedding looks angles up by position, so each token of the batch
gets a line of its own in the table.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass
from onnxscript.rewriter.pattern import MatchResult, RewriteRuleClassBase, RewriteRuleSet, Var

from export.definition.tensor import FloatArray
from export.errors import ExportError
from quantize.graph.node_replacement import CONTRIB

# Heads and tokens change places.
SWAPPED: Final = [0, 2, 1, 3]


class FusionError(ExportError):
    """A graph has nothing of what a recipe fuses."""


def fuse(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, up to rounding, with the decoder's layers in fused kernels.

    Args:
        model: an FP32 graph; its inputs and outputs stay.

    Raises:
        FusionError: no attention layer of the known form is in it.
    """
    graph = ir.from_proto(model)
    if not _applied(graph, _Attention):
        raise FusionError(
            "fuse: expected attention as export.sources.llama writes it (grouped, rotary, cached), found none"
        )
    _applied(graph, _SkipNorm, _Gated)
    # What the layers share was written for each of them.
    CommonSubexpressionEliminationPass()(graph)
    RemoveUnusedNodesPass()(graph)
    fused = ir.to_proto(graph)
    known = {one.name for one in model.graph.initializer}
    for node in fused.graph.node:
        if node.op_type == "MatMul" and node.input[1] not in known:
            # A new product goes by its weights: what leaves layers out and what reports on them names it.
            node.name = node.input[1]
    return fused


def _applied(graph: ir.Model, *rules: Any) -> int:
    """How often the rules were applied."""
    return RewriteRuleSet([rule.rule() for rule in rules]).apply_to_model(graph)


class _Attention(RewriteRuleClassBase):
    """From the norm before it to the sum behind it: the output and the longer cache."""

    def pattern(self, op: Any, x: Any, mask: Any, past_key: Any, past_value: Any) -> Any:
        """As `export.sources.llama.Block` is exported."""
        queries = _rotated(op, _heads(op, x, "query"))
        keys = op.Concat(past_key, _rotated(op, _heads(op, x, "key")), axis=2)
        values = op.Concat(past_value, _heads(op, x, "value"), axis=2)
        grouped = op.Mul(_reshaped(op, queries, "grouped"), Var("scale"))
        scores = op.MatMul(grouped, op.Transpose(op.Unsqueeze(keys, [2]), perm=[0, 1, 2, 4, 3]))
        seen = op.MatMul(op.Softmax(op.Add(scores, mask), axis=-1), op.Unsqueeze(values, [2]))
        flat = _reshaped(op, op.Transpose(_reshaped(op, seen, "rows"), perm=SWAPPED), "flat")
        return op.MatMul(flat, Var("output")), keys, values

    def check(self, op: Any, **of: Any) -> MatchResult:
        """Whether all is constant that must be, the angles are rotary ones, and the mask is the same for all heads."""
        del op
        constant = _constant(of, "query", "key", "value", "output", "scale")
        known = None not in (of["mask"].shape, of["past_key"].shape) and list(of["mask"].shape[1:3]) == [1, 1]
        angles = _angles(of["cosine"], "Cos")
        return _matched(constant and known and angles is not None and _angles(of["sine"], "Sin") is angles)

    def rewrite(self, op: Any, x: Any, mask: Any, cosine: Any, past_key: Any, past_value: Any, **of: Any) -> Any:
        """The same in five kernels and what lies between them."""
        query, key, value, output = (of[name].const_value.numpy() for name in ("query", "key", "value", "output"))
        width, kv_width, head = query.shape[1], key.shape[1], int(past_key.shape[3])
        kv_heads, groups = kv_width // head, width // kv_width
        names = [of[name].name for name in ("query", "key", "value")]
        joined = np.concatenate([_by_group(query.T, kv_heads, head).T, key, value], axis=1)
        product = op.MatMul(x, op.initializer(ir.tensor(joined), "+".join(names)))
        turned, values = op.Split(product, _sizes(op, width + kv_width, kv_width), axis=-1, _outputs=2)
        turned = op.RotaryEmbedding(turned, *_lines(op, _angles(cosine, "Cos"), head), _domain=CONTRIB)
        queries, keys = op.Split(turned, _sizes(op, width, kv_width), axis=-1, _outputs=2)
        seen, present_key, present_value = op.MultiHeadAttention(
            op.Reshape(queries, _sizes(op, 0, -1, kv_width)),
            keys,
            values,
            None,
            None,
            _for_rows(op, mask, kv_heads, groups),
            past_key,
            past_value,
            num_heads=kv_heads,
            scale=float(of["scale"].const_value.numpy()),
            _domain=CONTRIB,
            _outputs=3,
        )
        by_group = op.initializer(ir.tensor(_by_group(output, kv_heads, head)), f"{of['output'].name}/by_group")
        return op.MatMul(op.Reshape(seen, _sizes(op, 0, -1, width)), by_group), present_key, present_value


class _SkipNorm(RewriteRuleClassBase):
    """A sum and its RMS norm: the norm, and the sum."""

    def pattern(self, op: Any, x: Any, y: Any, weight: Any, epsilon: Any) -> Any:
        """As `export.sources.llama.rms_norm` is exported."""
        total = op.Add(x, y)
        mean = op.ReduceMean(op.Pow(total, 2.0), [-1], _allow_other_attributes=True)
        return op.Mul(op.Div(total, op.Sqrt(op.Add(mean, epsilon))), weight), total

    def check(self, op: Any, **of: Any) -> MatchResult:
        """Whether both are constants."""
        del op
        return _matched(_constant(of, "weight", "epsilon"))

    def rewrite(self, op: Any, x: Any, y: Any, weight: Any, epsilon: Any) -> Any:
        """One kernel."""
        value = float(epsilon.const_value.numpy())
        normed, _, _, total = op.SkipSimplifiedLayerNormalization(
            x, y, weight, epsilon=value, _domain=CONTRIB, _outputs=4
        )
        return normed, total


class _Gated(RewriteRuleClassBase):
    """SiLU of one product times another of the same."""

    def pattern(self, op: Any, x: Any, gate: Any, up: Any) -> Any:
        """As `torch.nn.functional.silu(x @ gate) * (x @ up)` is exported."""
        gates = op.MatMul(x, gate)
        return op.Mul(op.Mul(gates, op.Sigmoid(gates)), op.MatMul(x, up))

    def check(self, op: Any, **of: Any) -> MatchResult:
        """Whether both are constants of one shape."""
        del op
        return _matched(_constant(of, "gate", "up") and list(of["gate"].shape) == list(of["up"].shape))

    def rewrite(self, op: Any, x: Any, gate: Any, up: Any) -> Any:
        """One product, halved."""
        joined = np.concatenate([gate.const_value.numpy(), up.const_value.numpy()], axis=1)
        product = op.MatMul(x, op.initializer(ir.tensor(joined), f"{gate.name}+{up.name}"))
        gates, ups = op.Split(product, axis=-1, num_outputs=2, _outputs=2)
        return op.Mul(op.QuickGelu(gates, alpha=1.0, _domain=CONTRIB), ups)


def _matched(fits: bool) -> MatchResult:
    result = MatchResult()
    return result if fits else result.fail("not what the kernels compute")


def _constant(values: Mapping[str, Any], *names: str) -> bool:
    return all(values[name].const_value is not None for name in names)


def _heads(op: Any, x: Any, weights: str) -> Any:
    return op.Transpose(_reshaped(op, op.MatMul(x, Var(weights)), f"{weights}_heads"), perm=SWAPPED)


def _reshaped(op: Any, x: Any, shape: str) -> Any:
    return op.Reshape(x, Var(shape), _allow_other_attributes=True)


def _rotated(op: Any, heads: Any) -> Any:
    first, second = op.Split(heads, axis=3, num_outputs=2, _outputs=2)
    turned = op.Concat(op.Neg(second), first, axis=-1)
    return op.Add(op.Mul(heads, Var("cosine")), op.Mul(turned, Var("sine")))


def _angles(value: Any, function: str) -> Any:
    """What a cosine or sine FP32 [b, 1, s, head] is of: angles [b, s, head / 2], twice. None: of something else."""
    for operator in (function, "Unsqueeze", "Concat"):
        node = value.producer()
        if node is None or node.op_type != operator:
            return None
        value = node.inputs[0]
    return value if list(node.inputs) == [value, value] else None


def _lines(op: Any, angles: Any, head: int) -> tuple[Any, Any, Any]:
    """Tables of the cosines and sines of all tokens, FP32 [b * s, head / 2], and each token's line in them [b, s]."""
    tokens = op.Shape(angles, end=2)
    lines = op.Range(_number(op, 0), op.ReduceProd(tokens, keepdims=0), _number(op, 1))
    table = op.Reshape(angles, _sizes(op, -1, head // 2))
    return op.Reshape(lines, tokens), op.Cos(table), op.Sin(table)


def _for_rows(op: Any, mask: Any, kv_heads: int, groups: int) -> Any:
    """A mask FP32 [b, 1, 1, s, t] for the rows of each token, [b, kv_heads, s * groups, t]."""
    each = op.Expand(
        op.Unsqueeze(op.Squeeze(mask, _sizes(op, 1)), _sizes(op, 3)), _sizes(op, 1, kv_heads, 1, groups, 1)
    )
    shape = op.Concat(op.Shape(each, end=2), _sizes(op, -1), op.Shape(each, start=4), axis=0)
    return op.Reshape(each, shape)


def _by_group(matrix: FloatArray, kv_heads: int, head: int) -> FloatArray:
    """Rows of [key head, group, head] in the order [group, key head, head]."""
    rows, columns = matrix.shape
    ordered = matrix.reshape(kv_heads, rows // kv_heads // head, head, columns).swapaxes(0, 1)
    return np.ascontiguousarray(ordered).reshape(rows, columns)


def _sizes(op: Any, *sizes: int) -> Any:
    return op.Constant(value_ints=sizes)


def _number(op: Any, value: int) -> Any:
    return op.Constant(value_int=value)
