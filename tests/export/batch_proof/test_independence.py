"""Trials of a model that is a function: what they say, what they forgive, and when they end."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import export.batch_proof.independence
from export.batch_proof.independence import Finding, Kind, Rounding, difference, examine
from export.inference.session import RunError

FINE = Rounding(2e-3, 2e-3)


def kind(name: str = "numbers", *, tame: bool = True) -> Kind:
    def draw(count: int, chance: np.random.Generator) -> dict[str, Any]:
        return {"x": chance.normal(0, 1, (count, 4))}

    return Kind(name, draw, (lambda batch, chance: draw(len(batch["x"]), chance),), tame=tame)


def found(answer: Callable[[Any], Any], most: int = 8, *, tame: bool = True) -> Finding:
    return examine(lambda feed: {"y": answer(feed["x"])}, [kind(tame=tame)], most, FINE)


def test_rows_for_themselves_are_proved_in_every_size() -> None:
    finding = found(lambda x: x * 2)
    assert finding == Finding(sizes=(2, 3, 4, 5, 6, 7, 8))
    assert finding.proved


def test_largest_batch_of_two_is_tried_with_two() -> None:
    assert found(lambda x: x * 2, most=2).sizes == (2,)
    assert "answer changes" in found(lambda x: x - x.mean(axis=0), most=2).mixed


def test_rounding_is_forgiven_between_sizes_and_not_between_values() -> None:
    assert found(lambda x: x * (1 + 1e-4 * len(x))).proved
    assert found(lambda x: x + 1e-3 * x.mean(axis=0)).mixed


def test_order_is_not_tried_with_values_that_rounding_grows_with() -> None:
    assert "answer changes with its place" in found(lambda x: x + np.arange(len(x))[:, None]).mixed
    assert found(lambda x: x + np.arange(len(x))[:, None], tame=False).proved


def test_values_that_the_model_does_not_take_are_passed_over_unless_they_are_the_usual_ones() -> None:
    def picky(x: Any) -> Any:
        if len(x) > 4:
            raise RunError("no more than 4 rows")
        return x

    assert found(picky).unproved.startswith("it does not run with 8 rows of numbers: no more than 4 rows")
    assert found(picky, tame=False).proved


def test_time_ends_trials_but_for_those_of_a_few_rows_and_of_the_largest_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.batch_proof.independence, "SECONDS", -1.0)
    assert found(lambda x: x * 2).sizes == (3, 8)


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ([1.0, 2.0], [1.0, 2.001], ""),
        ([1.0, 2.0], [1.0, 2.1], "by 0.1 where the answers reach 2"),
        # What is masked hides nothing, and the same infinity or NaN is the same answer.
        ([-1e9, 2.0, 1.0, 1.0], [-1e9, 2.1, 1.0, 1.0], "by 0.1 where the answers reach 1e+09"),
        ([np.nan, np.inf, 1.0], [np.nan, np.inf, 1.0], ""),
        ([np.nan, 1.0], [1.0, 1.0], "by inf where the answers reach 1"),
        ([np.inf, 1.0], [-np.inf, 1.0], "by inf where the answers reach 1"),
        ([0.0, 0.0], [0.0, 1e-9], "by 1e-09 where the answers reach 0"),
        ([1, 2, 3], [1, 2, 4], "in 1 of 3 values"),
        (["a", "b"], ["a", "b"], ""),
    ],
)
def test_difference_is_told_with_figures(one: Any, other: Any, told: str) -> None:
    assert difference(np.array([one]), np.array([other]), FINE) == told


def test_difference_in_shape_is_told() -> None:
    assert difference(np.ones((2, 3)), np.ones((2, 4)), FINE) == "in shape: [3] or [4]"
    assert difference(np.zeros(1), np.full(1, 1e-9), FINE._replace(absolute=1e-8)) == ""
