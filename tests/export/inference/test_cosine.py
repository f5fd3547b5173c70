"""Cosines, and numbers that hide all others."""

import numpy as np
import pytest

from export.inference.cosine import cosine

MASKED = np.array([[0.3, -1e9, 2.0, -1e9, -1.5]], np.float32)


def test_cosine_of_rows_of_zeros_is_one_only_with_each_other() -> None:
    rows = np.array([[0, 0], [0, 0], [3, 4], [3, 4]], np.float32)
    others = np.array([[0, 0], [1, 0], [6, 8], [-3, -4]], np.float32)
    assert cosine(rows, others).tolist() == pytest.approx([1, 0, 1, -1])


@pytest.mark.parametrize("mask", [-1e4, -65504.0, -1e9, float(np.finfo(np.float32).min)])
def test_what_masks_some_numbers_hides_nothing_of_the_others(mask: float) -> None:
    reference = np.where(MASKED < -1e3, mask, MASKED).astype(np.float32)
    wrong = np.where(MASKED < -1e3, mask, -MASKED).astype(np.float32)
    assert cosine(wrong, reference).tolist() == pytest.approx([-1])
    assert cosine(reference, reference).tolist() == pytest.approx([1])


def test_most_may_be_masked() -> None:
    reference = np.full((1, 9), -1e9, np.float32)
    reference[0, :2] = (1, 2)
    assert cosine(reference * np.array([1, -1] + [1] * 7, np.float32), reference).tolist() == pytest.approx([-0.6])


def test_large_number_is_compared_as_such() -> None:
    reference = np.array([[0.5, 20, 101325]], np.float32)
    assert cosine(np.array([[20, 0.5, 101325]], np.float32), reference)[0] < 0.1
    # 1 - 0.1^2 / (2 * 1.1)
    assert cosine(np.array([[0.5, 20, 101325 * 1.1]]), reference).tolist() == pytest.approx([1 - 0.01 / 2.2])


def test_probabilities_and_large_numbers_among_themselves_hide_nothing() -> None:
    surely = np.array([[0.999, 1e-9, 1e-3], [3000.0, 2000.0, 400.0]], np.float32)
    assert cosine(surely[:, [0, 2, 1]], surely) == pytest.approx([1, 0.8055], abs=1e-3)


def test_masks_without_an_end_hide_nothing_either() -> None:
    reference = np.where(MASKED < -1e3, -np.inf, MASKED).astype(np.float32)
    assert cosine(reference, reference).tolist() == pytest.approx([1])
    assert cosine(np.where(np.isinf(reference), reference, -reference), reference).tolist() == pytest.approx([-1])
    assert np.isnan(cosine(np.where(np.isinf(reference), -1e9, reference), reference)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_none(bad: float) -> None:
    broken = np.where(MASKED == 2, bad, MASKED).astype(np.float32)
    assert np.isnan(cosine(broken, MASKED)).all()
    assert np.isnan(cosine(MASKED, broken)).all()
