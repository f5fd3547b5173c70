from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from export.batch_proof.invariance import InvarianceError, batch_cosine_min, check_invariant
from export.card import Source
from export.definition import Definition, Serving, Tensor
from export.definition.gate import BATCH_LEAST


def model(*answers: Any) -> Any:
    """Gives each of its outputs by a function of the whole batch."""
    return lambda feed: [answer(feed["x"]) for answer in answers]


def company(batch: Any) -> Any:
    return [([{"x": batch[row : row + 1]} for row in range(len(batch))], {"x": batch})]


BATCH = np.random.default_rng(0).normal(0, 1, (6, 8)).astype(np.float32)


def test_model_that_looks_at_rows_alone_is_invariant() -> None:
    assert batch_cosine_min(model(lambda x: x * 2), company(BATCH)) == pytest.approx(1)


def test_model_with_one_range_for_the_batch_is_caught() -> None:
    loud = BATCH * np.array([[1], [1], [1], [1], [1], [50]], np.float32)

    def dynamic(x: Any) -> Any:
        step = np.abs(x).max() / 127
        return np.round(x / step) * step

    assert batch_cosine_min(model(dynamic), company(loud)) < BATCH_LEAST


def test_answer_that_is_no_number_is_not_invariant() -> None:
    for bad in (np.nan, np.inf):
        for wide in (8, 1):
            rows = model(lambda x, bad=bad, wide=wide: np.full((len(x), wide), bad))
            assert np.isnan(batch_cosine_min(rows, company(BATCH)))


@pytest.mark.parametrize("offset", [0, 300])
def test_single_number_that_leans_on_the_others_is_caught(offset: float) -> None:
    answer = model(lambda x: (x[:, :1] - x[:, :1].mean()) * 50 + offset)
    assert batch_cosine_min(answer, company(BATCH)) < BATCH_LEAST


def test_single_number_near_zero_may_be_rounded() -> None:
    near_zero = model(lambda x: np.where(np.arange(len(x))[:, None] == 1, 1e-7 * len(x), x[:, :1]))
    assert batch_cosine_min(near_zero, company(np.array([[3.0], [1e-7], [-2.0]]))) == pytest.approx(1)


def test_answer_that_grows_in_company_is_caught_though_its_direction_stays() -> None:
    assert batch_cosine_min(model(lambda x: x * len(x)), company(BATCH)) == -1


def test_every_output_counts() -> None:
    answer = model(lambda x: x * 2, lambda x: x - x.mean(axis=0))
    assert batch_cosine_min(answer, company(BATCH)) < BATCH_LEAST


@pytest.mark.parametrize("dtype", [np.int64, np.object_, np.bool_])
def test_labels_and_words_are_the_same_or_not(dtype: Any) -> None:
    own = model(lambda x: (x[:, :1] > 0).astype(dtype))
    assert batch_cosine_min(own, company(BATCH)) == 1
    leaning = model(lambda x: (x[:, :1] >= x[:, :1].max()).astype(dtype))
    assert batch_cosine_min(leaning, company(BATCH)) == -1


def test_answer_of_another_shape_in_company_is_another_answer() -> None:
    assert batch_cosine_min(model(lambda x: np.ones((len(x), len(x)))), company(BATCH)) == -1


def test_zeros_alone_and_in_company_agree() -> None:
    assert batch_cosine_min(model(lambda x: x * 0), company(BATCH)) == 1
    assert batch_cosine_min(model(lambda x: x * 0 + (len(x) > 1)), company(BATCH)) == -1


def test_single_number_that_is_zero_in_company_alone_is_another_answer() -> None:
    assert batch_cosine_min(model(lambda x: x[:, :1] * 0), company(BATCH)) == 1
    assert batch_cosine_min(model(lambda x: x[:, :1] * (len(x) == 1)), company(BATCH)) == -1


@pytest.mark.parametrize(("longer", "same"), [(1.04, True), (1.06, False)])
def test_rows_may_be_a_little_longer_in_a_batch(longer: float, same: bool) -> None:
    score = batch_cosine_min(model(lambda x: x * (longer if len(x) > 1 else 1)), company(BATCH))
    assert (score >= BATCH_LEAST) is same


def test_what_masks_hides_no_difference() -> None:
    def masked(x: Any) -> Any:
        step = np.abs(x).max() / 127
        return np.where(x > 1, -1e9, np.round(x / step) * step)

    loud = BATCH * np.array([[1], [1], [1], [1], [1], [50]], np.float32)
    assert batch_cosine_min(model(lambda x: np.where(x > 1, -1e9, x)), company(loud)) == pytest.approx(1)
    assert batch_cosine_min(model(masked), company(loud)) < BATCH_LEAST


def test_rows_of_integers_are_the_same_or_not() -> None:
    keys = model(lambda x: np.arange(1000, 1008)[None] + np.arange(len(x))[:, None] * 0)
    assert batch_cosine_min(keys, company(BATCH)) == 1
    leaning = model(lambda x: np.arange(1000, 1008)[None] + np.full((len(x), 1), len(x)))
    assert batch_cosine_min(leaning, company(BATCH)) == -1


def declared(**changes: Any) -> Definition:
    return Definition(
        name="tiny",
        inputs=(Tensor("x", "FP32", ("batch", 8)),),
        outputs=(Tensor("y", "FP32", ("batch", 8)),),
        source=lambda: Source(package="", version="", file="", sha256="0" * 64, licence=""),
        onnx_file=Path("not read"),
        samples=lambda: [{"x": BATCH}],
        **changes,
    )


class Predicts:
    """A session that answers by a function."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def predict(self, feed: Any) -> Any:
        return {"y": self._answer(feed["x"])}


def test_definition_that_says_wrongly_that_rows_are_independent_is_refused() -> None:
    leaning: Any = Predicts(lambda x: x - x.mean(axis=0))
    with pytest.raises(InvarianceError, match=r"tiny: serving.batch_invariant: expected .* got -?\d"):
        check_invariant(declared(serving=Serving(batch_invariant=True)), leaning)
    check_invariant(declared(), leaning)
    check_invariant(declared(serving=Serving(batch_invariant=True)), cast("Any", Predicts(lambda x: x * 2)))
