"""minilm: every matrix product with constant weights in INT8, and the word table.

Attention's products of two activations stay FP32: they are 4 % of the arithmetic. The input of the six feed-forward
products from 1,536 back to 384 comes out of GELU and gets a scale a token; with one scale for all tokens the mean
cosine falls to .925, and a scale taken from the batch would give a sentence another embedding in other company.
Smoothing what LayerNorm computes makes a quarter of the error of what is left, for one multiplication a layer.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np

from export.batch_proof.batch_composition import BatchComposition
from export.definition.tensor import Array, Feed, FloatArray
from export.inference.cosine import cosine
from export.sources.tokenizer import Encoder
from quantize.accuracy.accuracy_gate import AtLeast, Limit, MayFall
from quantize.accuracy.fidelity import ERROR_MOST
from quantize.datasets.docstrings import docstring_pairs
from quantize.datasets.sentences import calibration_texts, evaluation_pairs
from quantize.models.minilm_peer import installed_peer
from quantize.recipe import Dynamic, PerToken, Recipe, Static, WeightOnly
from quantize.tasks.task import Outcomes, Peer, Runner, Split, Task

COMPANY_ROWS: Final = 16
TEXTS_COMPARED: Final = 128
LATENCY_SHAPES: Final = ((1, 32), (32, 32), (1, 128), (32, 128))
# Neighbours that stretch every range: shouting, digits, another script, no text at all, and 250 tokens of one word.
LOUD: Final = ("BUY NOW!!! $$$", "0 1 2 3 4 5 6 7 8 9", "Wo ist mein Paket?", "ШУМ", "", "x" * 80, "parcel " * 250)

# Seen: .999. Recipes that lost retrieval as well were at .958 and below.
COSINE_MEAN: Final = 0.99
# Seen: .997. A single text further off than this could change places with its neighbours.
COSINE_MIN: Final = 0.97
RECALL_FALL: Final = 0.015

PRODUCTS: Final = ("MatMul", "Gather")
AFTER_GELU: Final = ("after:Gelu",)


class MiniLMTask:
    """The task of minilm. See `quantize.tasks.task.Task`."""

    recipe: Recipe = PerToken(smooth=0.5)
    candidates: Mapping[str, Recipe] = {
        "per-token": PerToken(),
        "per-token, smoothed": PerToken(smooth=0.5),
        "per-token, FFN-down FP32": PerToken(exclude=AFTER_GELU),
        "static, FFN-down FP32": Static(operators=PRODUCTS, exclude=AFTER_GELU),
        "static": Static(operators=PRODUCTS),
        "static, smoothed": Static(operators=PRODUCTS, smooth=0.5),
        "static, entropy": Static(operators=PRODUCTS, exclude=AFTER_GELU, calibrate="entropy"),
        "dynamic": Dynamic(),
        "weights, 8 bits": WeightOnly(bits=8),
        "weights, 4 bits": WeightOnly(bits=4),
    }
    error_most = ERROR_MOST
    limits: Sequence[Limit] = (
        AtLeast("cosine", COSINE_MEAN),
        AtLeast("cosine_min", COSINE_MIN),
        MayFall("recall_at_1", RECALL_FALL),
    )

    def calibration(self, built: Path) -> Iterator[Feed]:
        """Short and long texts, one a feed: padding would add nothing but zeros to the ranges."""
        encoder = Encoder.open(built)
        for text in calibration_texts():
            yield encoder.feed([text])

    def answers(self, model: Runner, built: Path, split: Split) -> FloatArray:
        """Embeddings FP32 [n, 384], each text in a request of its own."""
        encoder = Encoder.open(built)
        return np.concatenate([model.run(encoder.feed([text])) for text in texts(split)])

    def outcomes(self, answers: FloatArray, fp32: FloatArray, built: Path, split: Split) -> Outcomes:
        """Cosine to FP32 of each text, and whether each query finds its own document."""
        del built, split
        closeness = cosine(answers, fp32)
        return {"cosine": closeness, "cosine_min": closeness.min(keepdims=True), "recall_at_1": hits_at_1(answers)}

    def figures(self, model: Runner) -> Mapping[str, float]:
        """None."""
        del model
        return {}

    def feeds(self, built: Path) -> Iterator[Feed]:
        """Texts to judge on, each alone."""
        encoder = Encoder.open(built)
        for text in texts("judge")[:TEXTS_COMPARED]:
            yield encoder.feed([text])

    def compared(self, model: Runner, feed: Feed) -> Sequence[Array]:
        """The embedding."""
        return [model.run(feed)]

    def batch_compositions(self, built: Path) -> Iterable[BatchComposition]:
        """Sentences, sixteen to a batch and so padded, and each among texts that stretch every range."""
        encoder, every = Encoder.open(built), texts("choose")
        batches = [every[start : start + COMPANY_ROWS] for start in range(0, len(every), COMPANY_ROWS)]
        for batch in (*batches, [*every[:4], *LOUD, *every[4:8]]):
            yield [encoder.feed([text]) for text in batch], encoder.feed(batch)

    def latency_feeds(self, built: Path) -> Mapping[str, Feed]:
        """Rows times tokens, without padding."""
        text = " ".join(texts("choose"))
        whole = Encoder.open(built).feed([text])
        return {
            f"{rows}x{tokens}": {name: np.repeat(value[:, :tokens], rows, axis=0) for name, value in whole.items()}
            for rows, tokens in LATENCY_SHAPES
        }

    def peers(self) -> Mapping[str, Peer]:
        """Another INT8 form of this model, where `make quantize-search` has installed it."""
        return installed_peer()


def texts(split: Split) -> list[str]:
    """Queries and their documents in turn: to choose on, sentences and paraphrases; to judge on, docstrings."""
    return list(chain.from_iterable(evaluation_pairs() if split == "choose" else docstring_pairs()))


def hits_at_1(embeddings: FloatArray) -> FloatArray:
    """1 where the nearest of all documents (odd rows) to a query (even rows) is its own, else 0."""
    nearest = np.argmax(embeddings[0::2] @ embeddings[1::2].T, axis=1)
    return np.asarray(nearest == np.arange(len(nearest)), dtype=np.float32)


TASK: Task = MiniLMTask()
