"""The tokenizer that is served with a text model, and the feeds it makes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from tokenizers import Tokenizer

from export.definition.tensor import Feed

TOKENIZER_FILE: Final = "tokenizer.json"

# What sentence-transformers serves this model with; it was trained on no more than 128 tokens,
# and its position table ends at 512.
MAX_TOKENS: Final = 256


def serving_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in `folder`, changed to what a server needs.

    The shipped file pads every text to 128 tokens and cuts it there: padding is left to whoever makes the
    batch, and the cut is moved to MAX_TOKENS.
    """
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


class Encoder:
    """Texts to feeds with the inputs `input_ids` and `attention_mask`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def open(cls, folder: Path) -> "Encoder":
        """The encoder of the `tokenizer.json` in `folder`, as it is."""
        return cls(Tokenizer.from_file(str(folder / TOKENIZER_FILE)))

    def feed(self, texts: Sequence[str]) -> Feed:
        """Tokenize, and pad to the longest.

        Returns:
            `input_ids` and `attention_mask`, each INT64 [len(texts), longest]; padding is id 0, mask 0.
        """
        encoded = self._tokenizer.encode_batch(list(texts))
        longest = max(len(one.ids) for one in encoded)
        ids = np.zeros((len(encoded), longest), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, one in enumerate(encoded):
            ids[row, : len(one.ids)] = one.ids
            mask[row, : len(one.ids)] = 1
        return {"input_ids": ids, "attention_mask": mask}
