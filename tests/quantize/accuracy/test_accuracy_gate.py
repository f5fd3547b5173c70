import pytest

from export.card import Measure
from quantize.accuracy.accuracy_gate import AtLeast, AtMost, Limit, MayFall, judge


def measure(score: float) -> Measure:
    return Measure(size_bytes=1, latency_ms={}, scores={"score": score})


@pytest.mark.parametrize("got", [0.985, 0.99, 1.0])
def test_score_at_the_bound_or_above_passes(got: float) -> None:
    assert AtLeast("score", 0.985).refusal(measure(1.0), measure(got)) is None


def test_score_below_the_bound_is_refused_saying_by_how_much() -> None:
    refusal = AtLeast("score", 0.985).refusal(measure(1.0), measure(0.97))
    assert refusal == "score: expected at least 0.9850, got 0.9700, short by 0.0150"


@pytest.mark.parametrize("got", [0.96, 0.951, 0.99])
def test_fall_within_the_allowance_passes(got: float) -> None:
    assert MayFall("score", 0.02).refusal(measure(0.97), measure(got)) is None


def test_fall_beyond_the_allowance_is_refused_saying_by_how_much() -> None:
    refusal = MayFall("score", 0.005).refusal(measure(0.99), measure(0.97))
    assert refusal == "score: fell by 0.0200 from 0.9900 to 0.9700, expected at most 0.0050, over by 0.0150"


def test_score_above_what_is_allowed_is_refused_saying_by_how_much() -> None:
    assert AtMost("score", 0.03).refusal(measure(0.0), measure(0.03)) is None
    refusal = AtMost("score", 0.03).refusal(measure(0.0), measure(0.05))
    assert refusal == "score: expected at most 0.0300, got 0.0500, over by 0.0200"


@pytest.mark.parametrize("limit", [AtLeast("score", 0.5), AtMost("score", 0.5), MayFall("score", 0.5)])
def test_score_that_is_no_number_is_refused(limit: Limit) -> None:
    assert limit.refusal(measure(1.0), measure(float("nan"))) is not None


def test_every_limit_is_judged() -> None:
    limits = (AtLeast("score", 0.9), AtLeast("score", 0.5), MayFall("score", 0.1))
    assert len(judge(limits, measure(1.0), measure(0.6))) == 2
