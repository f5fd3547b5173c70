"""Photographs in installed packages, and parts of them in the form that an ImageNet classifier takes."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from export.checksum import ChecksumError
from export.definition.tensor import FloatArray

SIDE: Final = 224
# Share of the shorter side that the centre crop keeps, as the weights were evaluated.
KEPT: Final = 224 / (224 + 32)
# Of the shorter side: the smallest part that a random crop shows.
LEAST_SHOWN: Final = 0.4
# Where packages keep them; found without running their code.
FOLDERS: Final = {
    "scikit-learn": ("sklearn", "datasets/images"),
    "matplotlib": ("matplotlib", "mpl-data/sample_data"),
    "scikit-image": ("skimage", "data"),
    "foolbox": ("foolbox", "data"),
}

Box = tuple[int, int, int, int]


def picture(package: str, file: str) -> Image.Image:
    """A photograph of an installed package.

    Raises:
        ChecksumError: the package, or the picture in it, is not there.
    """
    module, folder = FOLDERS[package]
    spec = importlib.util.find_spec(module)
    path = Path(spec.origin).parent / folder / file if spec and spec.origin else Path(folder, file)
    if not path.is_file():
        raise ChecksumError(f"{file} of {package} is not there: requirements/weights-large.txt says what to install")
    return Image.open(path).convert("RGB")


def pixels(shown: Image.Image, box: Box) -> FloatArray:
    """A part of a picture, (left, top, right, bottom), as the network takes it: FP32 [3, 224, 224], (x - 127) / 128."""
    small = shown.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
    return np.ascontiguousarray(((np.asarray(small, dtype=np.float32) - 127) / 128).transpose(2, 0, 1))


def preprocess(shown: Image.Image) -> FloatArray:
    """The centre of a picture of any size: FP32 [3, 224, 224]."""
    side = round(min(shown.size) * KEPT)
    left, top = (shown.width - side) // 2, (shown.height - side) // 2
    return pixels(shown, (left, top, left + side, top + side))


def crops(shown: Image.Image, count: int, seed: int) -> Iterator[FloatArray]:
    """Square parts of random size at random places, every other one mirrored: FP32 [3, 224, 224] each."""
    random = np.random.default_rng(seed)
    for number in range(count):
        side = int(min(shown.size) * random.uniform(LEAST_SHOWN, 1))
        left, top = (int(random.integers(0, size - side + 1)) for size in shown.size)
        made = pixels(shown, (left, top, left + side, top + side))
        yield np.ascontiguousarray(made[..., ::-1]) if number % 2 else made
