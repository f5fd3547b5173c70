import pytest
from pydantic import ValidationError

from bench.load.request_mix import DRAWN, Mix, Request

USUAL = Request(rows=2, seq=40, deadline_ms=100.0)


def test_rows_lengths_and_deadlines_are_evenly_drawn_between_their_bounds():
    drawn = Mix(rows=(1, 4), seq=(16, 64), deadline_ms=(5, 50)).draw(USUAL, 1, "s")
    assert len(drawn) == DRAWN
    assert {each.rows for each in drawn} == {1, 4}
    assert {each.seq for each in drawn} == set(range(16, 65))
    assert all(5 <= each.deadline_ms <= 50 for each in drawn)
    # Means of 4,096 even draws: within five standard deviations.
    assert sum(each.seq for each in drawn) / DRAWN == pytest.approx(40, abs=1.2)
    assert sum(each.deadline_ms for each in drawn) / DRAWN == pytest.approx(27.5, abs=1.1)
    assert sum(each.rows == 1 for each in drawn) / DRAWN == pytest.approx(0.5, abs=0.04)


def test_what_is_not_set_is_as_the_stream_says():
    assert set(Mix().draw(USUAL, 1, "s")) == {USUAL}
    assert {each.deadline_ms for each in Mix(rows=(1,)).draw(USUAL._replace(deadline_ms=None), 1, "s")} == {None}


def test_a_seed_and_a_stream_give_the_same_requests_again():
    mix = Mix(seq=(1, 1000))
    assert mix.draw(USUAL, 1, "s") == mix.draw(USUAL, 1, "s")
    assert mix.draw(USUAL, 1, "s") != mix.draw(USUAL, 2, "s") != mix.draw(USUAL, 2, "t")


@pytest.mark.parametrize("wrong", [{"rows": [0]}, {"seq": [64, 16]}, {"seq": [0, 4]}, {"deadline_ms": [5, 1]}])
def test_bounds_out_of_order_are_refused(wrong):
    with pytest.raises(ValidationError, match="expected"):
        Mix.model_validate(wrong)
