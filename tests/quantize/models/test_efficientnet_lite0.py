"""efficientnet_lite0's pictures: what is calibrated, chosen and judged on has nothing in common."""

from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

# Found, not imported: their code is never run, and wants packages that are not there.
if find_spec("skimage") is None or find_spec("foolbox") is None:
    pytest.skip("optional packages: requirements/weights-large.txt", allow_module_level=True)

from export.sources.pictures import SIDE, crops, picture
from quantize.models.efficientnet_lite0 import CALIBRATION, CALIBRATION_CROPS, PICTURES, TASK


def test_no_picture_is_in_two_sets() -> None:
    every = [*CALIBRATION, *chain.from_iterable(PICTURES.values())]
    assert len(set(every)) == len(every)


def test_at_least_192_crops_are_calibrated_on() -> None:
    assert len(CALIBRATION) * CALIBRATION_CROPS >= 192
    first = next(iter(TASK.calibration(Path())))["image"]
    assert (first.shape[1:], first.dtype) == ((3, SIDE, SIDE), np.float32)
    assert -127 / 128 <= first.min() < first.max() <= 1


def test_crops_are_the_same_every_time_and_differ_from_each_other() -> None:
    shown = picture(*PICTURES["choose"][0])
    first, again = (list(crops(shown, 4, seed=1)) for _ in range(2))
    assert np.array_equal(first, again)
    assert all(not np.array_equal(first[0], other) for other in first[1:])


def test_recipe_is_among_those_that_are_searched() -> None:
    assert TASK.recipe in TASK.candidates.values()


def test_agreement_is_told_apart_where_fp32_is_unsure() -> None:
    sure, unsure = [9, 0, 0], [0.2, 0.1, 0]
    fp32 = np.array([sure, unsure, unsure, sure], np.float32)
    int8 = np.array([sure, unsure, [0, 1, 0], sure], np.float32)
    found = TASK.outcomes(int8, fp32, Path(), "judge")
    assert found["agreement"].tolist() == [1, 1, 0, 1]
    assert found["agreement_unsure"].tolist() == [1, 0]
