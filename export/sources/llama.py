"""A Llama-type language model in PyTorch, made for export: the key/value cache goes in and comes out as tensors.

Touvron et al., "LLaMA" (2023): RMSNorm before attention and before a gated feed-forward; rotary positions (Su et al.,
"RoFormer", 2021); grouped-query attention (Ainslie et al., 2023). Weights are kept as the matrix products take them,
[in, out], so that each is a constant of the graph that quantizes. The output product has a copy of the embedding of its
own: one table cannot be looked up in FP32 and multiplied in INT8.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from torch import nn

# Added to the score of a position that must not be seen. Finite: a row that sees nothing is then no NaN.
UNSEEN: Final = -1e9
# GGUF's names of a block's matrices.
MATRICES: Final = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


@dataclass(frozen=True)
class Shape:
    """The sizes of a model."""

    blocks: int
    heads: int
    kv_heads: int
    head_size: int
    rope_base: float
    norm_epsilon: float


class Weights:
    """The tensors of a GGUF file, dequantized, and its key/value pairs."""

    def __init__(self, path: Path) -> None:
        self._reader = GGUFReader(path)
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}

    def value(self, key: str) -> Any:
        """A key's value, such as `llama.block_count`."""
        return self._reader.fields[key].contents()

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor, FP32, as GGUF has it: matrices [out, in]."""
        found = self._tensors[name]
        values = dequantize(found.data, found.tensor_type).astype(np.float32)
        return torch.from_numpy(values.reshape(tuple(int(size) for size in reversed(found.shape))))

    def shape(self) -> Shape:
        """The sizes."""
        heads = int(self.value("llama.attention.head_count"))
        return Shape(
            blocks=int(self.value("llama.block_count")),
            heads=heads,
            kv_heads=int(self.value("llama.attention.head_count_kv")),
            head_size=int(self.value("llama.embedding_length")) // heads,
            rope_base=float(self.value("llama.rope.freq_base")),
            norm_epsilon=float(self.value("llama.attention.layer_norm_rms_epsilon")),
        )


def half_rotation(matrix: torch.Tensor, heads: int) -> torch.Tensor:
    """A query or key matrix [out, in] of GGUF, its rotary pairs moved from side by side to half a head apart."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


class Block(nn.Module):
    """One layer."""

    attn_q: nn.Parameter
    attn_k: nn.Parameter
    attn_v: nn.Parameter
    attn_output: nn.Parameter
    ffn_gate: nn.Parameter
    ffn_up: nn.Parameter
    ffn_down: nn.Parameter

    def __init__(self, shape: Shape, weights: Weights, number: int) -> None:
        super().__init__()
        self.shape = shape
        for name in MATRICES:
            matrix = weights.tensor(f"blk.{number}.{name}.weight")
            if name in ("attn_q", "attn_k"):
                matrix = half_rotation(matrix, shape.heads if name == "attn_q" else shape.kv_heads)
            self.register_parameter(name, _constant(matrix.T))
        self.attn_norm = _constant(weights.tensor(f"blk.{number}.attn_norm.weight"))
        self.ffn_norm = _constant(weights.tensor(f"blk.{number}.ffn_norm.weight"))

    def forward(
        self,
        hidden: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor,
        past: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[b, s, width] with the layer's cache [b, kv_heads, past, head] twice -> the same, the cache longer by s."""
        shape = self.shape
        normed = rms_norm(hidden, self.attn_norm, shape.norm_epsilon)
        query = rotate(_heads(normed @ self.attn_q, shape.heads), rotation)
        key = torch.cat((past[0], rotate(_heads(normed @ self.attn_k, shape.kv_heads), rotation)), dim=2)
        value = torch.cat((past[1], _heads(normed @ self.attn_v, shape.kv_heads)), dim=2)
        # Each key and value head serves a group of query heads; they are not copied, the group has an axis of its own.
        grouped = torch.unflatten(query, 1, (shape.kv_heads, -1)) * shape.head_size**-0.5
        scores = grouped @ key.unsqueeze(2).transpose(-1, -2) + mask
        seen = (torch.softmax(scores, dim=-1) @ value.unsqueeze(2)).flatten(1, 2)
        hidden = hidden + seen.transpose(1, 2).flatten(2) @ self.attn_output
        normed = rms_norm(hidden, self.ffn_norm, shape.norm_epsilon)
        hidden = hidden + (nn.functional.silu(normed @ self.ffn_gate) * (normed @ self.ffn_up)) @ self.ffn_down
        return hidden, key, value


class Llama(nn.Module):
    """The model. One graph does both: prefill is a call with an empty cache, decode one with a single new token."""

    frequencies: torch.Tensor

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        shape = weights.shape()
        self.shape = shape
        embedding = weights.tensor("token_embd.weight")
        self.embedding = _constant(embedding)
        self.lm_head = _constant(embedding.T.clone())
        self.output_norm = _constant(weights.tensor("output_norm.weight"))
        self.blocks = nn.ModuleList(Block(shape, weights, number) for number in range(shape.blocks))
        steps = torch.arange(0, shape.head_size, 2, dtype=torch.float32) / shape.head_size
        self.register_buffer("frequencies", shape.rope_base**-steps)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        past: list[tuple[torch.Tensor, torch.Tensor]],
    ) -> tuple[torch.Tensor, ...]:
        """Logits of the new tokens, and the cache with them in it.

        Args:
            input_ids: INT64 [batch, sequence], the new tokens.
            attention_mask: INT64 [batch, past + sequence], 0 for padding, in the cache too.
            position_ids: INT64 [batch, sequence], each token's place in its text.
            past: for each layer keys and values, FP32 [batch, kv_heads, past, head_size].

        Returns:
            logits FP32 [batch, sequence, vocabulary], then keys and values of each layer, in turn.
        """
        angles = position_ids.unsqueeze(-1).to(torch.float32) * self.frequencies
        angles = torch.cat((angles, angles), dim=-1).unsqueeze(1)
        rotation = angles.cos(), angles.sin()
        before = past[0][0].shape[2]
        new = torch.arange(input_ids.shape[1], device=input_ids.device) + before
        causal = torch.arange(attention_mask.shape[1], device=input_ids.device) <= new.unsqueeze(-1)
        visible = causal & (attention_mask > 0)[:, None, None, None, :]
        mask = torch.where(visible, 0.0, UNSEEN)
        hidden, cache = nn.functional.embedding(input_ids, self.embedding), []
        for block, layer in zip(self.blocks, past, strict=True):
            hidden, key, value = block(hidden, rotation, mask, layer)
            cache += [key, value]
        hidden = rms_norm(hidden, self.output_norm, self.shape.norm_epsilon)
        return (hidden @ self.lm_head, *cache)


def rms_norm(hidden: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019).

    Divided by the root, and not multiplied by what rsqrt gives: ONNX Runtime fuses that to one kernel when it loads it.
    """
    return hidden / torch.sqrt(hidden.pow(2).mean(dim=-1, keepdim=True) + epsilon) * weight


def rotate(heads: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Turn the pairs of [b, heads, s, head_size] by their positions, given as cosine and sine [b, 1, s, head_size]."""
    first, second = heads.chunk(2, dim=-1)
    return heads * rotation[0] + torch.cat((-second, first), dim=-1) * rotation[1]


def _heads(projected: torch.Tensor, heads: int) -> torch.Tensor:
    rows, tokens, width = projected.shape
    return projected.reshape(rows, tokens, heads, width // heads).transpose(1, 2)


def _constant(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values.contiguous(), requires_grad=False)
