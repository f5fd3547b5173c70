from pathlib import Path

import numpy as np
import pytest

from export.card import read_card
from export.checksum import ChecksumError
from export.models import minilm
from export.sources.tokenizer import MAX_TOKENS, Encoder

BUILT = Path(__file__).parents[3] / "build" / "models" / "minilm"


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.open(BUILT)


def test_weights_other_than_the_pinned_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / minilm.WEIGHTS).write_bytes(b"other weights")
    monkeypatch.setattr(minilm, "model_folder", lambda: tmp_path)
    with pytest.raises(ChecksumError, match=rf"{minilm.WEIGHTS}: expected sha256 53aa5117\w+, got \w{{64}}"):
        minilm.DEFINITION.source()


def test_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", "no-such-package")
    with pytest.raises(ChecksumError, match="package no-such-package is not installed: `make setup`"):
        minilm.model_folder()


def test_card_of_the_export_records_source_and_parity() -> None:
    card = read_card(BUILT)
    assert card.source.sha256 == minilm.WEIGHTS_SHA256
    assert card.parity.max_abs_diff <= minilm.DEFINITION.tolerance
    assert "input_ids[1,256] attention_mask[1,256]" in card.parity.shapes


def test_serving_tokenizer_pads_only_to_the_longest(encoder: Encoder) -> None:
    feed = encoder.feed(["Hello", "Where is my parcel today?"])
    assert feed["input_ids"].shape == feed["attention_mask"].shape == (2, 8)
    assert feed["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1] * 8]
    assert feed["input_ids"].dtype == np.int64


def test_serving_tokenizer_cuts_at_its_limit_and_not_at_128(encoder: Encoder) -> None:
    assert encoder.feed(["word " * 150])["input_ids"].shape == (1, 152)
    assert encoder.feed(["word " * 1000])["input_ids"].shape == (1, MAX_TOKENS)
