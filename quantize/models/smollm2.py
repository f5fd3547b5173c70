"""smollm2: the matrices in the bits that the source has, 4, and 8 of the last; FP32 between, in fused kernels.

Decoding one token reads every weight once for few sums, so that its time is the weights' size, and the calls of some
two thousand small nodes. The kernel quantizes activations itself, a block of one token's numbers at a time: a row's
answer does not depend on its company.

Compared and judged on text to be predicted, each passage alone: to choose on, docstrings of Python's standard library;
to judge on, paragraphs of its language reference. The model has surely read both, what is asked is what
quantization changes. Nothing is calibrated.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from export.batch_proof.batch_composition import BatchComposition
from export.definition.gate import KL, LOG_LIKELIHOOD
from export.definition.tensor import Array, Feed, FloatArray
from export.inference.session import open_session
from export.models.smollm2 import HEAD_SIZE, KV_HEADS, cache_names, continued, prompt_feed, tokenizer
from export.repository.version_content import FP32_FILE
from quantize.accuracy.accuracy_gate import AtMost, Limit, MayFall
from quantize.accuracy.fidelity import ERROR_MOST
from quantize.datasets.docstrings import docstring_pairs
from quantize.datasets.paragraphs import reference_paragraphs
from quantize.recipe import Dynamic, Recipe, WeightOnly
from quantize.tasks.task import Outcomes, Peer, Runner, Split, Task

TOKENS: Final = 64  # of a passage, whose logits are 12.6 MB
PASSAGES: Final[Mapping[Split, int]] = {"choose": 24, "judge": 64}
PASSAGES_COMPARED: Final = 6
PAST: Final = 128
DECODE_ROWS: Final = (1, 8)
# Tokens of the rows that are decoded alone and together: the cache of the shorter ones is padded.
LENGTHS: Final = (1, 7, 33, 64)

# In nats a token: perplexity grows by at most 3 %.
LIKELIHOOD_FALL: Final = math.log(1.03)
# In nats a token. Seen: .005 with 8 bits; .46 with 4, where perplexity grows by 29 %.
DIVERGENCE: Final = 0.03


class SmolLM2Task:
    """The task of smollm2. See `quantize.tasks.task.Task`."""

    recipe: Recipe = WeightOnly(bits=8, keep_grid=True, fuse=True)
    candidates: Mapping[str, Recipe] = {
        # What the fused kernels alone gain.
        "FP32, fused": WeightOnly(fuse=True, exclude=("*",)),
        # The fastest, and refused: the kernel for one row and that for several round differently, by too much.
        "fused, 8 bits, blocks of 128": WeightOnly(bits=8, block=128, fuse=True),
        "fused, bits as in the source": WeightOnly(bits=8, keep_grid=True, fuse=True),
        "weights, 8 bits": WeightOnly(bits=8),
        "weights, bits as in the source": WeightOnly(bits=8, keep_grid=True),
        "weights, 4 bits": WeightOnly(bits=4),
        "dynamic": Dynamic(),
    }
    error_most = ERROR_MOST
    limits: Sequence[Limit] = (MayFall(LOG_LIKELIHOOD, LIKELIHOOD_FALL), AtMost(KL, DIVERGENCE))

    def calibration(self, built: Path) -> Iterator[Feed]:
        """None: weights alone have no ranges to be found."""
        del built
        yield from ()

    def answers(self, model: Runner, built: Path, split: Split) -> FloatArray:
        """Logits FP32 [passages, 64, 49152]."""
        del built
        return np.concatenate([model.run(prompt_feed([passage])) for passage in passages(split)])

    def outcomes(self, answers: FloatArray, fp32: FloatArray, built: Path, split: Split) -> Outcomes:
        """For each passage, as means over its tokens: log-likelihood of the next one, KL(FP32 || model), agreement."""
        del built
        samples = zip(answers, fp32, passages(split), strict=True)
        every = [_outcome(logits, reference, np.array(tokens)) for logits, reference, tokens in samples]
        return {name: np.array([one[name] for one in every], np.float32) for name in every[0]}

    def figures(self, model: Runner) -> Mapping[str, float]:
        """None."""
        del model
        return {}

    def feeds(self, built: Path) -> Iterator[Feed]:
        """Some passages to judge on; the caches are outputs, too."""
        del built
        for passage in passages("judge")[:PASSAGES_COMPARED]:
            yield prompt_feed([passage])

    def compared(self, model: Runner, feed: Feed) -> Sequence[Array]:
        """The logits: caches are padded in company."""
        return [model.run(feed)]

    def batch_compositions(self, built: Path) -> Iterable[BatchComposition]:
        """One token behind texts of different lengths, with caches of FP32's."""
        rows = [_cached(built, tuple(passages("choose")[row][:length])) for row, length in enumerate(LENGTHS)]
        yield rows, _together(rows)

    def latency_feeds(self, built: Path) -> Mapping[str, Feed]:
        """Decoding a token behind 128 others, for one row and for several; and the prefill of a prompt."""
        del built
        prompt = tuple(passages("choose")[0])
        return {
            **{f"decode, {rows} x 1 behind {PAST}": _decode(rows) for rows in DECODE_ROWS},
            f"prefill, 1 x {TOKENS}": prompt_feed([list(prompt)]),
        }

    def peers(self) -> Mapping[str, Peer]:
        """None that is installed."""
        return {}


@cache
def passages(split: Split) -> list[list[int]]:
    """The first tokens of texts that have enough of them, evenly picked."""
    texts = [rest for _, rest in docstring_pairs()] if split == "choose" else reference_paragraphs()
    long = [ids[:TOKENS] for ids in (tokenizer().encode(text).ids for text in texts) if len(ids) >= TOKENS]
    count = PASSAGES[split]
    return [long[place * len(long) // count] for place in range(count)]


def _outcome(logits: FloatArray, reference: FloatArray, tokens: Array) -> dict[str, float]:
    mine, theirs = _log_softmax(logits), _log_softmax(reference)
    return {
        LOG_LIKELIHOOD: float(mine[np.arange(TOKENS - 1), tokens[1:]].mean()),
        KL: float((np.exp(theirs) * (theirs - mine)).sum(axis=1).mean()),
        "agreement": float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean()),
    }


def _log_softmax(logits: FloatArray) -> Array:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _decode(rows: int) -> Feed:
    """What is in the cache does not change how long it takes."""
    past = np.random.default_rng(1).standard_normal((rows, KV_HEADS, PAST, HEAD_SIZE), np.float32)
    return {
        "input_ids": np.full((rows, 1), 260, np.int64),
        "attention_mask": np.ones((rows, PAST + 1), np.int64),
        "position_ids": np.full((rows, 1), PAST, np.int64),
        **dict.fromkeys(cache_names("past"), past),
    }


@cache
def _cached(built: Path, tokens: tuple[int, ...]) -> Feed:
    """The decoding of a text's last token behind the others, for one row."""
    before = prompt_feed([list(tokens)])
    return continued(before, open_session(built / FP32_FILE).predict(before), [[tokens[-1]]])


def _together(rows: Sequence[Feed]) -> Feed:
    """Feeds of one row each as one: what is shorter is padded on the left, the cache with zeros, and masked."""
    longest = max(row["attention_mask"].shape[1] for row in rows)

    def padded(name: str, row: Feed) -> Array:
        short = longest - row["attention_mask"].shape[1]
        widths = {2: ((0, 0), (short, 0)), 4: ((0, 0), (0, 0), (short, 0), (0, 0))}
        varies = name not in ("input_ids", "position_ids")
        return np.pad(row[name], widths[row[name].ndim]) if varies else row[name]

    return {name: np.concatenate([padded(name, row) for row in rows]) for name in rows[0]}


TASK: Task = SmolLM2Task()
