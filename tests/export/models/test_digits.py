from pathlib import Path

import numpy as np
import torch

from export.models.digits import train
from export.sources.digits_data import HELD_OUT, load_split, read_samples

BUILT = Path(__file__).parents[3] / "build" / "models" / "digits"


def test_split_is_the_same_every_time_and_shares_no_image() -> None:
    (training, held_out), (_, again) = load_split(), load_split()
    assert np.array_equal(held_out.image, again.image)
    assert held_out.image.shape == (HELD_OUT, 1, 8, 8)
    assert held_out.image.dtype == np.float32
    assert held_out.label.dtype == np.int64
    assert held_out.image.min() == 0
    assert held_out.image.max() == 1
    seen = {image.tobytes() for image in training.image}
    assert not any(image.tobytes() in seen for image in held_out.image)
    assert set(held_out.label) == set(range(10))


def test_training_gives_the_same_weights_twice_whatever_ran_before() -> None:
    training, _ = load_split()
    first = train(training, epochs=1)
    torch.rand(5)  # moves the global generator on
    second = train(training, epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_training_leaves_the_global_generator_alone() -> None:
    training, _ = load_split()
    state = torch.get_rng_state()
    train(training, epochs=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_samples_beside_the_export_are_the_held_out_images() -> None:
    _, held_out = load_split()
    samples = read_samples(BUILT)
    assert np.array_equal(samples.image, held_out.image)
    assert np.array_equal(samples.label, held_out.label)
