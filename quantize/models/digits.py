"""digits: static INT8 of the whole network, calibrated on training images and judged on held-out ones."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from export.definition import Feed
from export.digits_data import Digits, load_split, read_samples
from export.session import Session
from quantize.gate import Limit, MayFall
from quantize.recipe import Recipe, Scores

CALIBRATION_IMAGES: Final = 256
CALIBRATION_ROWS: Final = 32
# Half a point is two of the 540 held-out images: what changes by chance when a border case tips over.
ACCURACY_FALL: Final = 0.005


class DigitsRecipe:
    """The recipe of digits. See `quantize.recipe.Recipe`."""

    summary = "static QDQ, u8 activations, s8 weights per channel, MinMax; every node"
    limits: Sequence[Limit] = (MayFall("accuracy", ACCURACY_FALL),)

    def nodes(self, graph: onnx.GraphProto) -> Sequence[str]:
        """All of them."""
        return [node.name for node in graph.node]

    def calibration(self, built: Path) -> Iterator[Feed]:
        """Training images."""
        del built
        training, _ = load_split()
        for start in range(0, CALIBRATION_IMAGES, CALIBRATION_ROWS):
            yield {"image": training.image[start : start + CALIBRATION_ROWS]}

    def scores(self, fp32: Session, int8: Session, built: Path) -> tuple[Scores, Scores]:
        """Accuracy on the held-out images."""
        held_out = read_samples(built)
        return {"accuracy": accuracy(fp32, held_out)}, {"accuracy": accuracy(int8, held_out)}

    def latency_feed(self, rows: int, built: Path) -> Feed:
        """Held-out images."""
        return {"image": read_samples(built).image[:rows]}


def accuracy(session: Session, digits: Digits) -> float:
    """Share of images whose largest logit is the label's."""
    logits = session.run({"image": digits.image})
    return float(np.mean(np.argmax(logits, axis=1) == digits.label))


RECIPE: Recipe = DigitsRecipe()
