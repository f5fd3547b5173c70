"""minilm: static INT8 of every matrix product with constant weights but one kind, and of the embedding tables.

Left in FP32: attention's products of two activations, and the six feed-forward products from 1,536 back to 384.
Their input comes out of GELU, whose tail is so long that one scale for all tokens leaves most values a few steps
(mean cosine .925 with them, .990 without; 10 MB more). Dynamic quantization would take that scale from the batch,
and then the same sentence gets another embedding in other company (cosine down to .983).
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from export.definition import Feed, FloatArray
from export.session import Session
from export.tokenizer import Encoder
from quantize.gate import AtLeast, Limit, MayFall
from quantize.recipe import Recipe, Scores
from quantize.sentences import calibration_texts, evaluation_pairs

FFN_WIDTH: Final = 1536
COMPANY_ROWS: Final = 16
LATENCY_TOKENS: Final = 32

# Seen: .991. Recipes that lost retrieval as well were at .958 and below.
COSINE_MEAN: Final = 0.985
# Seen: .986. A single sentence further off than this could change places with its neighbours.
COSINE_MIN: Final = 0.97
# Two of the eighty pairs; seen: none.
RECALL_FALL: Final = 0.025
# Not exactly 1: sums are made in another order at another batch size. Dynamic quantization has .983.
BATCH_COSINE_MIN: Final = 0.9999


class MiniLMRecipe:
    """The recipe of minilm. See `quantize.recipe.Recipe`."""

    summary = "static QDQ, u8 activations, s8 weights per channel, MinMax; MatMul and Gather, FFN-down in FP32"
    limits: Sequence[Limit] = (
        AtLeast("cosine_mean", COSINE_MEAN),
        AtLeast("cosine_min", COSINE_MIN),
        AtLeast("batch_cosine_min", BATCH_COSINE_MIN),
        MayFall("recall_at_1", RECALL_FALL),
    )

    def nodes(self, graph: onnx.GraphProto) -> Sequence[str]:
        """Matrix products with constant weights, but for FFN-down, and look-ups in constant tables."""
        shapes = {constant.name: tuple(constant.dims) for constant in graph.initializer}
        return [node.name for node in graph.node if _is_product(node, shapes) or _is_lookup(node, shapes)]

    def calibration(self, built: Path) -> Iterator[Feed]:
        """Short and long texts, one a feed: padding would add nothing but zeros to the ranges."""
        encoder = Encoder.open(built)
        for text in calibration_texts():
            yield encoder.feed([text])

    def scores(self, fp32: Session, int8: Session, built: Path) -> tuple[Scores, Scores]:
        """Cosine to FP32, cosine of a sentence alone to itself in a batch, and retrieval of paraphrases."""
        encoder = Encoder.open(built)
        reference = embed_alone(fp32, encoder)
        return _scores(fp32, encoder, reference), _scores(int8, encoder, reference)

    def latency_feed(self, rows: int, built: Path) -> Feed:
        """Rows of 32 tokens, a long sentence."""
        text = " ".join(chain.from_iterable(evaluation_pairs()[:8]))
        feed = Encoder.open(built).feed([text] * rows)
        return {name: value[:, :LATENCY_TOKENS] for name, value in feed.items()}


def _scores(session: Session, encoder: Encoder, reference: FloatArray) -> Scores:
    alone, in_company = embed_alone(session, encoder), embed_in_company(session, encoder)
    to_reference = cosine(alone, reference)
    return {
        "cosine_mean": float(to_reference.mean()),
        "cosine_min": float(to_reference.min()),
        "batch_cosine_min": float(cosine(alone, in_company).min()),
        "recall_at_1": recall_at_1(alone),
    }


def _is_product(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> bool:
    return node.op_type == "MatMul" and node.input[1] in shapes and shapes[node.input[1]][0] != FFN_WIDTH


def _is_lookup(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> bool:
    return node.op_type == "Gather" and len(shapes.get(node.input[0], ())) == 2


def evaluation_sentences() -> list[str]:
    """Both sides of the held-out pairs: a sentence, its paraphrase, the next sentence, and so on."""
    return list(chain.from_iterable(evaluation_pairs()))


def embed_alone(session: Session, encoder: Encoder) -> FloatArray:
    """Embeddings FP32 [n, 384] of the held-out sentences, each in a request of its own."""
    return np.concatenate([session.run(encoder.feed([text])) for text in evaluation_sentences()])


def embed_in_company(session: Session, encoder: Encoder) -> FloatArray:
    """Embeddings FP32 [n, 384] of the held-out sentences, sixteen to a batch and so padded."""
    texts = evaluation_sentences()
    batches = (texts[start : start + COMPANY_ROWS] for start in range(0, len(texts), COMPANY_ROWS))
    return np.concatenate([session.run(encoder.feed(batch)) for batch in batches])


def cosine(first: FloatArray, second: FloatArray) -> FloatArray:
    """Cosine of each row with the row opposite, [n, d] twice -> [n]. Does not rely on rows of length 1."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray((first * second).sum(axis=1) / lengths, dtype=np.float32)


def recall_at_1(embeddings: FloatArray) -> float:
    """Share of sentences (even rows) whose nearest among all paraphrases (odd rows) is their own."""
    nearest = np.argmax(embeddings[0::2] @ embeddings[1::2].T, axis=1)
    return float(np.mean(nearest == np.arange(len(nearest))))


RECIPE: Recipe = MiniLMRecipe()
