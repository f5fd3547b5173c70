"""template_model: what it does, in one line.

Run `fairlane export ./template_model.py` after every change: it exports the model, compares the result with
PyTorch, and puts it where `fairlane serve` finds it.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from export.card import Source
from export.checksum import sha256_of
from export.definition import Definition, Feed, Gate, Predict, Scores, Serving, Tensor

FEATURES, CLASSES = 16, 3


# The PyTorch model. Its forward takes the inputs in the order that they have below.
class Model(nn.Module):
    """Three classes out of sixteen numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, CLASSES))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """FP32 [batch, 16] -> logits FP32 [batch, 3]."""
        logits: torch.Tensor = self.layers(features)
        return logits


def module() -> nn.Module:
    """The model with its weights, in eval mode. Here: made up; yours loads a file with torch.load."""
    torch.manual_seed(0)
    return Model().eval()


def source() -> Source:
    """Where the weights come from. `export.checksum.verify_sha256` refuses a file that is not the one you know."""
    here = Path(__file__)
    return Source(package="", version="", file=here.name, sha256=sha256_of(here), licence="not stated")


def rows(count: int, seed: int) -> Feed:
    """Rows of input. Here: random; yours are real ones."""
    return {"features": np.random.default_rng(seed).standard_normal((count, FEATURES), dtype=np.float32)}


def samples() -> Iterator[Feed]:
    """What the export is compared with PyTorch on: the smallest and the largest requests, and some between."""
    yield rows(2, seed=1)
    yield rows(32, seed=2)


def calibration() -> Iterator[Feed]:
    """What INT8 takes the ranges of activations from: a few hundred rows like those that will come."""
    for seed in range(8):
        yield rows(32, seed=100 + seed)


def evaluate(predict: Predict) -> Scores:
    """Scores on rows that calibration does not use; higher is better. Here: whether it agrees with PyTorch, row by row.

    The mean of one number for each row is the score, with a confidence interval; a single number is taken as it is.
    """
    feed = rows(500, seed=3)
    with torch.inference_mode():
        expected = module()(torch.from_numpy(feed["features"])).argmax(dim=1).numpy()
    return {"agreement": predict(feed)["logits"].argmax(axis=1) == expected}


DEFINITION = Definition(
    name="template_model",
    summary="Sixteen numbers in, three logits out.",
    # Names, types and axes. A number is a fixed size, a name is one that varies; "batch" comes first.
    inputs=(Tensor("features", "FP32", ("batch", FEATURES)),),
    outputs=(Tensor("logits", "FP32", ("batch", CLASSES)),),
    source=source,
    module=module,
    samples=samples,
    tolerance=1e-5,
    # Labels make Triton's classification extension work; leave them out where the output is no class score.
    serving=Serving(max_batch_size=32, instances=1, labels={"logits": ("red", "green", "blue")}),
    calibration=calibration,
    evaluate=evaluate,
    # INT8 is served only if it keeps this; FP32 otherwise.
    gates=(Gate("agreement", at_least=0.97),),
)
