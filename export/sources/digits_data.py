"""The handwritten digits of scikit-learn, split once and for all into training and held-out images.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998: 1,797 images of 8x8 pixels with values 0 to 16.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from export.definition.tensor import FloatArray

SAMPLES_FILE: Final = "samples.npz"
HELD_OUT: Final = 540  # 30%: half a point of accuracy is then 2.7 images, not less than one
SPLIT_SEED: Final = 20
PIXEL_MAX: Final = 16.0


@dataclass(frozen=True)
class Digits:
    """Images FP32 [n, 1, 8, 8] with values 0 to 1, and what they show, INT64 [n]."""

    image: FloatArray
    label: npt.NDArray[np.int64]

    def write(self, folder: Path) -> None:
        """Write `samples.npz` with the arrays `image` and `label`."""
        np.savez(folder / SAMPLES_FILE, image=self.image, label=self.label)


def read_samples(folder: Path) -> Digits:
    """The digits in `folder/samples.npz`."""
    with np.load(folder / SAMPLES_FILE) as samples:
        return Digits(samples["image"], samples["label"])


def load_split() -> tuple[Digits, Digits]:
    """Training and held-out digits; the same on every machine and in every run."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  (scikit-learn takes a second to import)

    data = load_digits()
    image = (data.images / PIXEL_MAX).astype(np.float32)[:, np.newaxis]
    label = data.target.astype(np.int64)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(label))
    held_out, training = order[:HELD_OUT], order[HELD_OUT:]
    return Digits(image[training], label[training]), Digits(image[held_out], label[held_out])
