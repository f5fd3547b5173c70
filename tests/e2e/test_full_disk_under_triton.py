"""The disk of the embedded Triton is full: its log loses lines and it serves on; a start without room says so."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput

from scheduler.triton.launcher import TritonStartError
from tests.real_triton import ModelRepository, TritonFactory
from tests.small_disk import mounted


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 64 KiB."""
    with mounted(tmp_path / "disk", 64) as disk:
        yield disk


def fill(disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        (disk / "rest").write_bytes(os.urandom(1 << 20))


def test_full_disk_under_the_log_loses_lines_and_no_answer(
    small_disk: Path, models: ModelRepository, start_triton: TritonFactory
) -> None:
    models.add_identity("identity", "INT64")
    running = start_triton(models, log_path=small_disk / "triton.log")
    fill(small_disk)
    tensor = InferInput("IN", [1, 2], "INT64").set_data_from_numpy(np.array([[1, 2]]))
    with InferenceServerClient(running.address.grpc) as client:
        for _ in range(3):
            client.unload_model("identity")  # each makes lines of the log
            client.load_model("identity")
            assert client.infer("identity", [tensor]).as_numpy("OUT").tolist() == [[1, 2]]


def test_full_disk_under_the_scratch_folder_fails_the_start_in_words(
    small_disk: Path, models: ModelRepository, start_triton: TritonFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(small_disk)
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(TritonStartError, match="No space left on device"):
        start_triton(models)
