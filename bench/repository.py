"""Temporary Triton model repositories that hold the benchmark's one model, as it is or with Triton's own priorities."""

import shutil
from pathlib import Path
from typing import Final

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

PRIORITY_LEVELS: Final = 2  # 1 = interactive, 2 = background and whatever says nothing


def copy_model(source: Path, model: str, destination: Path) -> Path:
    """Copy one model out of a repository, so that every target serves exactly this and nothing else.

    Args:
        source: Triton model repository.
        model: name of the model.
        destination: folder of the new repository.

    Returns:
        The new repository.

    Raises:
        FileNotFoundError: the model has no config or no version with a file in it.
    """
    if not (source / model / "config.pbtxt").is_file() or not any(source.glob(f"{model}/[0-9]*/*")):
        raise FileNotFoundError(f"{source / model} holds no built model: run `make models` first")
    shutil.copytree(source / model, destination / model)
    return destination


def add_priority_levels(repository: Path, model: str) -> None:
    """Give the model's dynamic batcher two priority levels; requests without one get the lower."""
    path = repository / model / "config.pbtxt"
    config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    config.dynamic_batching.priority_levels = PRIORITY_LEVELS
    config.dynamic_batching.default_priority_level = PRIORITY_LEVELS
    path.write_text(text_format.MessageToString(config))
