"""digits: a small convolutional network that reads 8x8 handwritten digits, trained here in seconds.

Small enough that scheduling, not arithmetic, decides how fast it is served.
"""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

import sklearn.datasets
import torch
from torch import nn

from export.card import Source
from export.checksum import sha256_of
from export.definition import Definition, Feed, Serving, Tensor
from export.definition.tensor import BATCH
from export.sources.digits_data import Digits, load_split

DATA_FILE: Final = "datasets/data/digits.csv.gz"
SEED: Final = 7
EPOCHS: Final = 40
BATCH_ROWS: Final = 64
LEARNING_RATE: Final = 3e-3


def network() -> nn.Sequential:
    """The untrained network: `image` FP32 [batch, 1, 8, 8] -> `logits` FP32 [batch, 10]."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


class Classifier(nn.Module):
    """The network behind an input called `image`."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """FP32 [batch, 1, 8, 8] -> logits FP32 [batch, 10]."""
        logits: torch.Tensor = self.layers(image)
        return logits


def train(data: Digits, epochs: int = EPOCHS) -> Classifier:
    """Train from scratch. The same data and epochs give the same weights, whatever ran before.

    One thread, because the sum of partial gradients depends on how many threads made them.
    """
    image, label = torch.from_numpy(data.image), torch.from_numpy(data.label)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            model = Classifier(network())
            optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
            for _ in range(epochs):
                order = torch.randperm(len(label))
                for start in range(0, len(order), BATCH_ROWS):
                    rows = order[start : start + BATCH_ROWS]
                    optimizer.zero_grad()
                    torch.autograd.backward(nn.functional.cross_entropy(model(image[rows]), label[rows]))
                    optimizer.step()
                schedule.step()
    finally:
        torch.set_num_threads(threads)
    return model.eval()


def _source() -> Source:
    """The data it is trained on; the weights are made here."""
    data = Path(sklearn.datasets.__file__).parents[1] / DATA_FILE
    return Source(
        package="scikit-learn",
        version=version("scikit-learn"),
        file=DATA_FILE,
        sha256=sha256_of(data),
        licence="BSD-3-Clause (package), CC BY 4.0 (data)",
    )


def _module() -> nn.Module:
    training, _ = load_split()
    return train(training)


def _samples() -> Iterator[Feed]:
    """Held-out images in batches of 2 to 64."""
    _, held_out = load_split()
    for rows in (2, 7, 64):
        yield {"image": held_out.image[:rows]}


def _assets(folder: Path) -> None:
    """`samples.npz`: the held-out images and labels."""
    _, held_out = load_split()
    held_out.write(folder)


DEFINITION = Definition(
    name="digits",
    summary="A small convolutional network: an 8x8 image with values 0 to 1 in, ten logits out.",
    inputs=(Tensor("image", "FP32", (BATCH, 1, 8, 8)),),
    outputs=(Tensor("logits", "FP32", (BATCH, 10)),),
    source=_source,
    module=_module,
    samples=_samples,
    # Seen: about 1e-5 on logits up to 30.
    tolerance=1e-4,
    serving=Serving(max_batch_size=64, batch_invariant=True),
    assets=_assets,
)
