"""What is in model_repository/ after `make test` built it: the models that Triton serves."""

from pathlib import Path

import numpy as np
import pytest

from export.digits_data import read_samples
from export.repository import DEFAULT_REPOSITORY, Repository
from export.session import Session, open_session
from export.tokenizer import Encoder
from quantize.models.digits import ACCURACY_FALL, accuracy
from quantize.models.minilm import BATCH_COSINE_MIN, COSINE_MEAN, COSINE_MIN, cosine

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


def test_minilm_gives_a_sentence_the_same_embedding_in_any_company(minilm: Session, encoder: Encoder) -> None:
    mine = "Where is my parcel?"
    alone = minilm.run(encoder.feed([mine]))
    # Company that stretches every range: shouting, digits, another script, and 250 tokens of one word.
    company = ["BUY NOW!!! $$$", "0 1 2 3 4 5 6 7 8 9", "Wo ist mein Paket?", "x" * 80, "parcel " * 250]
    in_company = minilm.run(encoder.feed([*company, mine]))[-1:]
    assert cosine(alone, in_company).min() >= BATCH_COSINE_MIN


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
    before = accuracy(open_session(ROOT / "build/models/digits/fp32.onnx"), samples)
    after = accuracy(open_session(folder / "model.onnx"), samples)
    assert before > 0.98
    assert before - after <= ACCURACY_FALL


def test_digits_reads_an_image_the_same_in_any_company() -> None:
    folder = REPOSITORY.version_folder("digits")
    session, image = open_session(folder / "model.onnx"), read_samples(folder).image
    alone = np.concatenate([session.run({"image": image[row : row + 1]}) for row in range(64)])
    assert np.array_equal(alone, session.run({"image": image[:64]}))
