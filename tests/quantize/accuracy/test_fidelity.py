"""Outputs of INT8 held to FP32's, slice by slice: what must be refused by name, and what must not."""

from typing import Any

import numpy as np
import pytest

from quantize.accuracy.fidelity import Fidelity, compare


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def refused(fp32: Any, int8: Any, **kinds: Any) -> tuple[str, ...]:
    return found(fp32, int8, **kinds).refusals


def found(fp32: Any, int8: Any, **kinds: Any) -> Fidelity:
    return compare([({"out": fp32}, {"out": int8})], **{kind: {"out"} for kind in kinds})


def on_grid(values: Any, step: float) -> Any:
    return (np.round(values / step) * step).astype(np.float32)


def boxes_and_scores(axis: int) -> Any:
    """4 boxes that reach 640 and 8 scores that reach 1, at 100 places."""
    rng = np.random.default_rng(1)
    places = [rng.uniform(0, 640, (6, 100, 4)), rng.uniform(0, 1, (6, 100, 8))]
    return np.moveaxis(np.concatenate(places, 2).astype(np.float32), 2, axis)


@pytest.mark.parametrize(("axis", "named"), [(1, "out[:, 4:12, :]"), (2, "out[:, :, 4:12]")])
def test_scores_that_are_all_zero_beside_boxes_are_refused_by_name(axis: int, named: str) -> None:
    fp32 = boxes_and_scores(axis)
    (line, *others) = refused(fp32, on_grid(fp32, 640 / 255))
    assert line.startswith(f"{named}: constant, where FP32's varies by 0.2")
    assert not others


def test_one_step_for_each_of_both_is_let_through() -> None:
    fp32 = boxes_and_scores(1)
    int8 = np.concatenate([on_grid(fp32[:, :4], 640 / 255), on_grid(fp32[:, 4:], 1 / 255)], 1)
    errors, refusals = found(fp32, int8)
    assert refusals == ()
    # A step d is an error of d / sqrt(12) of numbers that are spread evenly, and vary by their range / sqrt(12).
    assert errors["out"] == pytest.approx(1 / 255, rel=0.1)


def test_channel_of_few_values_is_refused_by_their_number() -> None:
    fp32 = boxes_and_scores(1)
    int8 = fp32.copy()
    int8[:, 7] = on_grid(fp32[:, 7], 1 / 8)
    assert refused(fp32, int8) == ("out[:, 7, :]: most distinct values are lost: 9 of 600",)


def test_second_output_is_judged_as_the_first() -> None:
    head, other = normal(20, 3), normal(20, 5, seed=1)
    pair = {"head": head, "other": other}, {"head": head, "other": np.zeros_like(other)}
    assert compare([pair]).refusals == ("other: constant, where FP32's varies by 0.852",)


@pytest.mark.parametrize("still", [0.0, 1e-7, 1e-6])
def test_channel_without_a_spread_is_nobodys_evidence(still: float) -> None:
    fp32 = normal(30, 4, 10)
    fp32[:, 2] = 5 + still * fp32[:, 2]
    int8 = fp32.copy()
    int8[:, 2] = 5
    assert refused(fp32, int8) == ()
    fp32[:, 2] = still
    int8[:, 2] = 0
    assert refused(fp32, int8) == ()


def test_error_is_told_against_the_channels_own_spread() -> None:
    fp32, noise = normal(5000, 3), normal(5000, seed=1)
    fp32[:, 1] *= 1e5
    int8 = fp32.copy()
    int8[:, 0] += 0.8 * noise
    errors, (line,) = found(fp32, int8)
    assert errors["out"] == pytest.approx(0.8, rel=0.03)
    assert line.startswith("out[:, 0]: further from FP32's than 0.5 of what it varies by: 0.")


def test_class_of_a_pixel_counts_where_all_classes_share_what_is_large() -> None:
    fp32 = normal(4, 5, 8, 8)
    lift = 300 * normal(4, 1, 8, 8, seed=1)
    (line, *_) = refused(fp32 + lift, on_grid(fp32 + lift, 8))
    assert line.startswith("out[:, :, :, :]: INT8 has another index for the largest of axis 1: choosing by it loses ")
    assert refused(fp32 + lift, on_grid(fp32 + lift, 0.05)) == ()


def test_place_that_is_chosen_counts_where_few_stand_out() -> None:
    # A heat map: a hundred peaks for a picture, and the highest of them is what is asked for.
    heat = np.zeros((6, 2, 400), np.float32)
    heat[:, :, :100] = np.random.default_rng(0).uniform(0.1, 1, (6, 2, 100))
    cut = heat.copy()
    cut[:, 1] = np.minimum(heat[:, 1], 0.2)
    lines = refused(heat, cut)
    assert lines
    assert all(line.startswith("out[:, 1, :]: ") for line in lines)


def test_choice_between_equals_costs_nothing() -> None:
    fp32 = np.repeat(normal(50, 1), 4, axis=1) + 1e-5 * normal(50, 4, seed=1)
    assert refused(fp32, fp32[:, ::-1].copy()) == ()


def test_numbers_that_mask_do_not_hide_the_others() -> None:
    fp32 = normal(40, 6, 10)
    fp32[:, :, 7:] = -1e9
    assert refused(fp32, fp32.copy()) == ()
    int8 = fp32.copy()
    int8[:, 3, :7] = 0
    (line,) = refused(fp32, int8)
    assert line.startswith("out[:, 3, :]: ")
    endless = np.where(fp32 < -1e8, -np.inf, fp32).astype(np.float32)
    assert refused(endless, endless.copy()) == ()


def test_numbers_that_reach_far_are_no_masks_where_they_differ() -> None:
    # Along the last axis a channel of 1e5 and one of 1 meet.
    fp32 = normal(40, 2, 6) * np.array([[1e5], [1]], np.float32)
    assert refused(fp32, on_grid(fp32[:, :1], 1e3).repeat(2, 1) * [[[1], [0]]] + fp32 * [[[0], [1]]]) == ()


def test_what_is_no_number_any_more_is_refused() -> None:
    fp32 = normal(20, 3)
    int8 = fp32.copy()
    int8[4, 1] = np.nan
    assert refused(fp32, int8)[0].startswith("out[:, 1]: not a number, or without an end, where FP32's is one")


def test_axis_of_a_model_without_a_batch_is_judged_too() -> None:
    fp32 = boxes_and_scores(1)[0]
    assert refused(fp32, on_grid(fp32, 640 / 255), whole=True)[0].startswith("out[4:12, :]: constant")


def test_labels_are_held_to_more_than_chance() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (5, 200))
    assert refused(labels, labels.copy()) == ()
    assert refused(labels, np.zeros_like(labels)) == ("out: constant, where FP32's varies",)
    (line,) = refused(labels, np.roll(labels, 1, axis=1))
    assert "hardly more often than by chance" in line
    words = np.array(["cat", "dog", "fox"], np.object_)[labels[:, :90] % 3]
    assert refused(words, words.copy()) == ()
    assert refused(words, np.full_like(words, "cat")) == ("out: constant, where FP32's varies",)


def test_integers_that_are_quantities_may_be_off_by_little() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32)).astype(np.uint8)
    assert refused(picture, (picture ^ 1).astype(np.uint8)) == ()
    (line,) = refused(picture, np.roll(picture, 1, axis=3))
    assert "hardly more often than by chance" in line


def test_rows_that_are_sorted_may_change_places() -> None:
    fp32 = np.random.default_rng(0).uniform(0, 640, (6, 20, 4)).astype(np.float32)
    assert refused(fp32, fp32[:, ::-1].copy())
    assert refused(fp32, fp32[:, ::-1].copy(), unordered=True) == ()
    flat = fp32.copy()
    flat[..., 2] = 0
    assert refused(fp32, flat, unordered=True) == ("out[..., 2]: constant, where FP32's varies",)


def test_nothing_found_where_fp32_finds_something_is_refused() -> None:
    assert refused(normal(7, 6), normal(0, 6)) == ("out: empty, where FP32's is not",)
    # Another number of rows cannot be compared row by row.
    assert refused(normal(40, 6), normal(38, 6)) == ()


def test_sequences_of_several_lengths_are_compared_along_what_has_one_size() -> None:
    pairs = []
    for length in (3, 9, 5):
        fp32 = normal(4, length, 6, seed=length)
        int8 = fp32.copy()
        int8[:, :, 2] = 0
        pairs.append(({"out": fp32}, {"out": int8}))
    assert compare(pairs).refusals == ("out[:, :, 2]: constant, where FP32's varies by 0.927",)


def test_few_rows_say_nothing_of_a_spread() -> None:
    fp32 = normal(2, 3)
    assert refused(fp32, np.zeros_like(fp32)) == ()
