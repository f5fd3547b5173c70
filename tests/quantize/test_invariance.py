from typing import Any

import numpy as np
import pytest

from quantize.invariance import BATCH_LIMIT, batch_cosine_min, cosine


class Model:
    """Answers rows by a function of the whole batch."""

    def __init__(self, answer: Any) -> None:
        self.run = lambda feed: answer(feed["x"])


def company(batch: Any) -> Any:
    return [([{"x": batch[row : row + 1]} for row in range(len(batch))], {"x": batch})]


BATCH = np.random.default_rng(0).normal(0, 1, (6, 8)).astype(np.float32)


def test_model_that_looks_at_rows_alone_is_invariant() -> None:
    assert batch_cosine_min(Model(lambda x: x * 2), company(BATCH)) == pytest.approx(1)


def test_model_with_one_range_for_the_batch_is_caught() -> None:
    loud = BATCH * np.array([[1], [1], [1], [1], [1], [50]], np.float32)

    def dynamic(x: Any) -> Any:
        step = np.abs(x).max() / 127
        return np.round(x / step) * step

    assert batch_cosine_min(Model(dynamic), company(loud)) < BATCH_LIMIT.bound


def test_answer_that_is_no_number_is_not_invariant() -> None:
    score = batch_cosine_min(Model(lambda x: x * np.nan), company(BATCH))
    assert np.isnan(score)


def test_cosine_of_rows_of_zeros_is_one_only_with_each_other() -> None:
    rows = np.array([[0, 0], [0, 0], [3, 4], [3, 4]], np.float32)
    others = np.array([[0, 0], [1, 0], [6, 8], [-3, -4]], np.float32)
    assert cosine(rows, others).tolist() == pytest.approx([1, 0, 1, -1])
