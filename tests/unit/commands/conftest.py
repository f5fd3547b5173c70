"""A model repository with a tokenizer and digit samples small enough to write down."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.client.fake_kserve import FakeKServe

VOCABULARY = {"[PAD]": 0, "[UNK]": 1, "a": 2, "cat": 3, "kitten": 4, "sleeps": 5}


@pytest.fixture
def server():
    with FakeKServe() as fake:
        yield fake


@pytest.fixture
def repository(tmp_path):
    words = tmp_path / "minilm" / "1"
    words.mkdir(parents=True)
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(words / "tokenizer.json"))
    for version, labels in ((2, [4]), (10, [7, 1, 3])):
        digits = tmp_path / "digits" / str(version)
        digits.mkdir(parents=True)
        images = np.arange(len(labels) * 64, dtype=np.float32).reshape(-1, 1, 8, 8)
        np.savez(digits / "samples.npz", image=images, label=np.array(labels, np.int64))
    return tmp_path
