"""digits: static INT8 of the whole network, calibrated on training images and judged on held-out ones."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from export.batch_proof.batch_composition import BatchComposition
from export.definition.tensor import Array, Feed, FloatArray
from export.sources.digits_data import Digits, load_split, read_samples
from quantize.accuracy.accuracy_gate import Limit, MayFall
from quantize.accuracy.fidelity import ERROR_MOST
from quantize.recipe import Recipe, Static
from quantize.tasks.task import Outcomes, Peer, Runner, Split, Task

CALIBRATION_IMAGES: Final = 256
CALIBRATION_ROWS: Final = 32
COMPANY_ROWS: Final = 64
# Half a point is two of the 540 held-out images: what changes by chance when a border case tips over.
ACCURACY_FALL: Final = 0.005


class DigitsTask:
    """The task of digits. See `quantize.tasks.task.Task`."""

    # The first convolution reads one channel: in INT8 it is slower than in FP32.
    recipe: Recipe = Static(exclude=("node_conv2d",))
    candidates: Mapping[str, Recipe] = {
        "static": Static(),
        "static, entropy": Static(calibrate="entropy"),
        "static, first layer FP32": Static(exclude=("node_conv2d",)),
    }
    error_most = ERROR_MOST
    limits: Sequence[Limit] = (MayFall("accuracy", ACCURACY_FALL),)

    def calibration(self, built: Path) -> Iterator[Feed]:
        """Training images."""
        del built
        training, _ = load_split()
        for start in range(0, CALIBRATION_IMAGES, CALIBRATION_ROWS):
            yield {"image": training.image[start : start + CALIBRATION_ROWS]}

    def answers(self, model: Runner, built: Path, split: Split) -> FloatArray:
        """Logits FP32 [n, 10]."""
        return model.run({"image": _images(built, split).image})

    def outcomes(self, answers: FloatArray, fp32: FloatArray, built: Path, split: Split) -> Outcomes:
        """Whether the largest logit is the label's, and whether it is where FP32 has it."""
        chosen = np.argmax(answers, axis=1)
        return {
            "accuracy": _share(chosen == _images(built, split).label),
            "agreement": _share(chosen == np.argmax(fp32, axis=1)),
        }

    def figures(self, model: Runner) -> Mapping[str, float]:
        """None."""
        del model
        return {}

    def feeds(self, built: Path) -> Iterator[Feed]:
        """Held-out images."""
        yield {"image": read_samples(built).image}

    def compared(self, model: Runner, feed: Feed) -> Sequence[Array]:
        """The logits."""
        return [model.run(feed)]

    def batch_compositions(self, built: Path) -> Iterable[BatchComposition]:
        """Held-out images in one batch."""
        image = read_samples(built).image[:COMPANY_ROWS]
        yield [{"image": image[row : row + 1]} for row in range(len(image))], {"image": image}

    def latency_feeds(self, built: Path) -> Mapping[str, Feed]:
        """Held-out images, by how many."""
        image = read_samples(built).image
        return {str(rows): {"image": image[:rows]} for rows in (1, 32)}

    def peers(self) -> Mapping[str, Peer]:
        """None: the model is ours."""
        return {}


def _images(built: Path, split: Split) -> Digits:
    if split == "judge":
        return read_samples(built)
    training, _ = load_split()
    return Digits(training.image[CALIBRATION_IMAGES:], training.label[CALIBRATION_IMAGES:])


def _share(hits: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> FloatArray:
    return hits.astype(np.float32)


TASK: Task = DigitsTask()
