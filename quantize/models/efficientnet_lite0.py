"""efficientnet_lite0: static INT8, calibrated, compared and judged on crops of different pictures.

The pictures are photographs that packages carry. Those of scikit-learn, matplotlib and scikit-image, to calibrate and
to choose on, mostly show what is in no class of ImageNet, where FP32 itself is unsure; those of foolbox, to judge on,
are of classes of ImageNet. What counts is whether INT8 names what FP32 names. Crops of one picture are alike: the
intervals are over crops, and would be wider over pictures.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from export.batch_proof.batch_composition import BatchComposition
from export.definition.tensor import Array, Feed, FloatArray
from export.inference.cosine import cosine
from export.sources.pictures import crops, picture
from quantize.accuracy.accuracy_gate import AtLeast, Limit
from quantize.accuracy.fidelity import ERROR_MOST
from quantize.recipe import Recipe, Static
from quantize.tasks.task import Outcomes, Peer, Runner, Split, Task

# No picture is in two sets.
CALIBRATION: Final = (
    ("scikit-learn", "china.jpg"),
    ("scikit-image", "chelsea.png"),
    ("scikit-image", "motorcycle_left.png"),
    ("scikit-image", "ihc.png"),
    ("scikit-image", "gravel.png"),
    ("scikit-image", "coins.png"),
)
PICTURES: Final[Mapping[Split, tuple[tuple[str, str], ...]]] = {
    "choose": (
        ("matplotlib", "grace_hopper.jpg"),
        ("scikit-image", "hubble_deep_field.jpg"),
        ("scikit-image", "rocket.jpg"),
        ("scikit-image", "brick.png"),
        ("scikit-learn", "flower.jpg"),
        ("scikit-image", "astronaut.png"),
        ("scikit-image", "coffee.png"),
        ("scikit-image", "camera.png"),
        ("scikit-image", "retina.jpg"),
        ("scikit-image", "grass.png"),
    ),
    # The number behind is the class.
    "judge": tuple(
        ("foolbox", f"imagenet_{place:02d}_{label}.jpg")
        for place, label in enumerate(
            (243, 559, 438, 990, 949, 853, 609, 609, 915, 455, 541, 630, 741, 471, 129, 99, 251, 22, 317, 305)
        )
    ),
}
CALIBRATION_CROPS: Final = 40
CROPS: Final[Mapping[Split, int]] = {"choose": 30, "judge": 25}
ROWS: Final = 16
# Of those to judge on, every such one is compared in every class.
CROPS_STRIDE: Final = 4
AGREEMENT: Final = 0.92
# Of FP32's probability: all that INT8 names otherwise is below it, and the sets differ in how much of them is.
UNSURE: Final = 0.5
# The stem, the first depthwise convolution and the one that narrows it: 1,664 weights, and two thirds of the error.
FIRST_BLOCK: Final = ("node_Conv_881", "node_Conv_882", "node_Conv_800")


class EfficientNetTask:
    """The task of efficientnet_lite0. See `quantize.tasks.task.Task`."""

    recipe: Recipe = Static(exclude=FIRST_BLOCK)
    candidates: Mapping[str, Recipe] = {
        "static": Static(),
        "static, entropy": Static(calibrate="entropy"),
        "static, first block FP32": Static(exclude=FIRST_BLOCK),
        "static, entropy, first block FP32": Static(exclude=FIRST_BLOCK, calibrate="entropy"),
    }
    error_most = ERROR_MOST
    limits: Sequence[Limit] = (AtLeast("agreement", AGREEMENT),)

    def calibration(self, built: Path) -> Iterator[Feed]:
        """240 crops, 16 a feed."""
        del built
        images = _images(CALIBRATION, CALIBRATION_CROPS)
        for start in range(0, len(images), ROWS):
            yield {"image": images[start : start + ROWS]}

    def answers(self, model: Runner, built: Path, split: Split) -> FloatArray:
        """Logits FP32 [n, 1000]."""
        del built
        images = _images(PICTURES[split], CROPS[split])
        batches = [images[start : start + ROWS] for start in range(0, len(images), ROWS)]
        return np.concatenate([model.run({"image": batch}) for batch in batches])

    def outcomes(self, answers: FloatArray, fp32: FloatArray, built: Path, split: Split) -> Outcomes:
        """Whether the largest logit is where FP32 has it, of all and where FP32 is unsure; the cosine of the logits."""
        del built, split
        same = (np.argmax(answers, axis=1) == np.argmax(fp32, axis=1)).astype(np.float32)
        return {"agreement": same, "agreement_unsure": same[_sureness(fp32) < UNSURE], "cosine": cosine(answers, fp32)}

    def figures(self, model: Runner) -> Mapping[str, float]:
        """None."""
        del model
        return {}

    def feeds(self, built: Path) -> Iterator[Feed]:
        """Crops of all pictures to judge on, evenly picked."""
        del built
        images = _images(PICTURES["judge"], CROPS["judge"])[::CROPS_STRIDE]
        for start in range(0, len(images), ROWS):
            yield {"image": images[start : start + ROWS]}

    def compared(self, model: Runner, feed: Feed) -> Sequence[Array]:
        """The logits."""
        return [model.run(feed)]

    def batch_compositions(self, built: Path) -> Iterable[BatchComposition]:
        """Crops of several pictures in one batch."""
        del built
        every = _images(PICTURES["choose"], CROPS["choose"])
        image = every[:: len(every) // ROWS][:ROWS]
        yield [{"image": image[row : row + 1]} for row in range(len(image))], {"image": image}

    def latency_feeds(self, built: Path) -> Mapping[str, Feed]:
        """Crops, by how many."""
        del built
        image = _images(PICTURES["choose"], CROPS["choose"])
        return {str(rows): {"image": image[:rows]} for rows in (1, ROWS)}

    def peers(self) -> Mapping[str, Peer]:
        """None that is installed."""
        return {}


def _sureness(logits: FloatArray) -> FloatArray:
    """The probability of the class that is named, FP32 [n]."""
    return np.asarray(1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1), dtype=np.float32)


@cache
def _images(pictures: tuple[tuple[str, str], ...], count: int) -> FloatArray:
    """Crops of each picture in turn, FP32 [n, 3, 224, 224]."""
    return np.stack([crop for seed, one in enumerate(pictures) for crop in crops(picture(*one), count, seed)])


TASK: Task = EfficientNetTask()
