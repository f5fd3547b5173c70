from pathlib import Path
from typing import Any

import pytest

from quantize.searching.search import FP32, NothingToChooseError, Trial, choose, front, search


def trial(name: str, score: float, speed_up: float, size_bytes: int = 1, *refusals: str, peer: bool = False) -> Trial:
    return Trial(
        name=name,
        summary=name,
        publishable=not peer,
        size_bytes=size_bytes,
        latency_ms={},
        speed_up=speed_up,
        scores={"closeness": score},
        intervals={},
        refusals=refusals,
    )


def test_front_holds_what_nothing_beats_in_accuracy_speed_and_size() -> None:
    trials = [
        trial("accurate", 0.99, 1.0, 90),
        trial("fast", 0.95, 3.0, 30),
        trial("small", 0.90, 2.0, 10),
        trial("beaten by fast", 0.95, 2.9, 30),
        trial("beaten by all", 0.80, 0.5, 99),
    ]
    assert front(trials, "closeness") == ("accurate", "fast", "small")


def test_equal_trials_do_not_push_each_other_off_the_front() -> None:
    assert front([trial("a", 0.9, 2.0), trial("b", 0.9, 2.0)], "closeness") == ("a", "b")


def test_choice_is_the_fastest_that_passes_and_says_why(lenient: Any) -> None:
    trials = [
        trial(FP32, 1.0, 1.0, peer=True),
        trial("slow", 0.99, 1.5),
        trial("good", 0.98, 2.5),
        trial("a hair faster", 0.96, 2.55),
        trial("spoilt", 0.5, 9.0, 1, "closeness: short by 0.4"),
        trial("peer", 0.99, 8.0, peer=True),
    ]
    best, why = choose(lenient, trials)
    assert best.name == "good"
    assert why == (
        "good: of 3 recipes that pass the gate, of 4 tried, the one with the best closeness within 5% of the fastest: "
        "2.50 times as fast as FP32 (a hair faster 2.55; slow 1.50)"
    )


def test_choice_is_the_most_accurate_where_none_passes(lenient: Any) -> None:
    trials = [trial("a", 0.5, 3.0, 1, "no"), trial("b", 0.6, 1.0, 1, "no")]
    best, why = choose(lenient, trials)
    assert best.name == "b"
    assert "no recipe passes the gate" in why


def test_nothing_to_choose_from_is_an_error(lenient: Any) -> None:
    with pytest.raises(NothingToChooseError):
        choose(lenient, [trial("peer", 1.0, 2.0, peer=True)])


def test_every_candidate_is_tried_beside_fp32_and_each_step_is_told(lenient: Any, build: Path) -> None:
    steps: list[str] = []
    trials = search(lenient, build / "models" / "digits", steps.append)
    assert [one.name for one in trials] == [FP32, "static", "per-token"]
    assert len(steps) == 2 + 2 + 3
    fp32, *others = trials
    assert (fp32.speed_up, fp32.scores["closeness"], fp32.publishable) == (1, 1, False)
    assert all(one.publishable and not one.refusals and one.scores["closeness"] < 1 for one in others)
    assert all(one.size_bytes != fp32.size_bytes for one in others)
