import math

import numpy as np
import pytest

from export.definition.gate import LOG_LIKELIHOOD, PERPLEXITY
from quantize.judging.score import KL, ScoreError, check_alike, intervals, losses, scores
from quantize.tasks.task import Figures


def values(*numbers: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array(numbers, np.float32)


def test_score_is_the_mean_over_samples() -> None:
    assert scores({"hits": values(1, 0, 1, 1)}) == {"hits": 0.75}


def test_perplexity_is_e_to_the_mean_negative_log_likelihood() -> None:
    halves = math.log(0.5)
    assert scores({LOG_LIKELIHOOD: values(3 * halves, halves)})[PERPLEXITY] == pytest.approx(4)


def test_interval_of_perplexity_holds_it_and_is_that_of_the_likelihood_turned_over() -> None:
    outcomes = {LOG_LIKELIHOOD: values(-1, -2, -3, -2)}
    low, high = intervals(outcomes)[PERPLEXITY]
    assert low < scores(outcomes)[PERPLEXITY] < high
    assert -math.log(high) == pytest.approx(intervals(outcomes)[LOG_LIKELIHOOD][0])


def test_score_of_one_sample_has_no_interval() -> None:
    assert intervals({"least": values(0.5)}) == {}


def test_what_is_lost_is_counted_up_where_lower_is_better() -> None:
    lost = losses({"hits": values(1, 1), KL: values(0, 0)}, {"hits": values(0.5, 0.5), KL: values(0.1, 0.1)})
    assert lost["hits"] == pytest.approx((0.5, 0.5))
    assert lost[KL] == pytest.approx((0.1, 0.1))


@pytest.mark.parametrize(
    ("int8", "got"),
    [
        ({"hits": values(1, 0, 1)}, "2 samples and 3 samples"),
        ({"hits": 0.5}, "2 samples and a figure"),
        ({}, "2 samples and no such score"),
        ({"hits": values(1, 0), "more": 1.0}, "no such score and a figure"),
    ],
)
def test_scores_of_other_samples_are_not_compared(int8: Figures, got: str) -> None:
    with pytest.raises(ScoreError, match=rf"digits: '\w+': expected the same samples of FP32 and of INT8, got {got}"):
        check_alike("digits", {"hits": values(1, 1)}, int8)


def test_mean_of_fp32_outcomes_is_as_exact_as_the_gate_that_it_is_held_to() -> None:
    assert scores({"accuracy": np.array([1] * 9 + [0], np.float32)}) == {"accuracy": 0.9}
