"""What is in model_repository/ after `make test` built it: the models that Triton serves."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.batch_proof.invariance import batch_cosine_min
from export.inference.cosine import cosine
from export.inference.session import Session, open_session
from export.repository.repository import DEFAULT_REPOSITORY, Repository
from export.sources.digits_data import read_samples
from export.sources.tokenizer import Encoder
from quantize.accuracy.accuracy_gate import BATCH_LIMIT
from quantize.models.digits import ACCURACY_FALL
from quantize.models.minilm import COSINE_MEAN, COSINE_MIN, RECALL_FALL

ROOT = Path(__file__).parents[2]
REPOSITORY = Repository(ROOT / DEFAULT_REPOSITORY)


@pytest.fixture(scope="module")
def minilm() -> Session:
    return open_session(REPOSITORY.version_folder("minilm") / "model.onnx")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.open(REPOSITORY.version_folder("minilm"))


@pytest.mark.parametrize("name", ["minilm", "digits"])
def test_published_model_is_int8_and_smaller(name: str) -> None:
    card = REPOSITORY.card(name)
    assert card is not None
    assert card.quantization is not None
    assert card.quantization.passed
    model = REPOSITORY.version_folder(name) / "model.onnx"
    assert model.stat().st_size == card.quantization.int8.size_bytes < card.quantization.fp32.size_bytes / 2


def test_minilm_puts_like_things_near_each_other(minilm: Session, encoder: Encoder) -> None:
    texts = [
        "A cat sleeps on the sofa.",
        "The kitten is napping on the couch.",
        "Quarterly revenue rose by eight percent.",
    ]
    cat, kitten, revenue = minilm.run(encoder.feed(texts))
    assert cat @ kitten > 0.6
    assert abs(cat @ revenue) < 0.2
    assert abs(kitten @ revenue) < 0.2


def test_minilm_embeddings_have_length_one(minilm: Session, encoder: Encoder) -> None:
    embeddings = minilm.run(encoder.feed(["short", "a text of some more words than the other one"]))
    assert embeddings.shape == (2, 384)
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1, abs=1e-5)


words = st.sampled_from(["parcel", "Paket", "ШУМ", "$$$", "42", "a", "the harbour", "zzzz", "!", "BUY NOW"])
texts = st.lists(words, max_size=60).map(" ".join)


@settings(max_examples=40, deadline=None)
@given(mine=texts, before=st.lists(texts, max_size=5), after=st.lists(texts, max_size=5))
def test_minilm_gives_a_text_the_same_embedding_in_any_batch(
    minilm: Session, encoder: Encoder, mine: str, before: list[str], after: list[str]
) -> None:
    company = [*before, mine, *after]
    alone = [encoder.feed([text]) for text in company]
    assert batch_cosine_min(lambda feed: [minilm.run(feed)], [(alone, encoder.feed(company))]) >= BATCH_LIMIT.bound


def test_minilm_keeps_what_was_asked_of_int8() -> None:
    card = REPOSITORY.card("minilm")
    assert card is not None
    assert card.quantization is not None
    before, after = card.quantization.fp32, card.quantization.int8
    assert after.size_bytes <= 30e6
    assert after.scores["cosine"] >= 0.99
    assert before.scores["recall_at_1"] - after.scores["recall_at_1"] <= RECALL_FALL
    assert card.batch_invariant


def test_minilm_has_no_range_taken_from_the_batch() -> None:
    model = onnx.load(REPOSITORY.version_folder("minilm") / "model.onnx")
    operators = {node.op_type for node in model.graph.node}
    assert "DynamicQuantizeLinear" not in operators
    products = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    # Query, key, value, attention's output, and up and down in each of six layers.
    assert len(products) == 36


def test_minilm_survives_the_warm_up_of_its_config(minilm: Session) -> None:
    zeros = np.zeros((1, 16), dtype=np.int64)
    assert np.isfinite(minilm.run({"input_ids": zeros, "attention_mask": zeros})).all()


def test_minilm_stays_close_to_fp32_on_text_unlike_the_calibration(minilm: Session, encoder: Encoder) -> None:
    licence = (ROOT / "LICENSE").read_text().split("\n\n")
    texts = [" ".join(paragraph.split()) for paragraph in licence if len(paragraph) > 200][:12]
    fp32 = open_session(ROOT / "build/models/minilm/fp32.onnx")
    closeness = cosine(fp32.run(encoder.feed(texts)), minilm.run(encoder.feed(texts)))
    assert closeness.mean() >= COSINE_MEAN
    assert closeness.min() >= COSINE_MIN


def test_digits_reads_held_out_images_as_well_as_fp32() -> None:
    folder = REPOSITORY.version_folder("digits")
    samples = read_samples(folder)
    before, after = (
        np.mean(open_session(path).run({"image": samples.image}).argmax(axis=1) == samples.label)
        for path in (ROOT / "build/models/digits/fp32.onnx", folder / "model.onnx")
    )
    assert before > 0.98
    assert before - after <= ACCURACY_FALL


def test_digits_reads_an_image_the_same_in_any_batch() -> None:
    folder = REPOSITORY.version_folder("digits")
    session, image = open_session(folder / "model.onnx"), read_samples(folder).image
    alone = np.concatenate([session.run({"image": image[row : row + 1]}) for row in range(64)])
    assert np.array_equal(alone, session.run({"image": image[:64]}))
