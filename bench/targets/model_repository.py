"""Temporary Triton model repositories that hold a scenario's models, as they are or with Triton's own priorities."""

import shutil
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export.configuration.model_config import has_config


def check_built(repository: Path, model: str) -> None:
    """Refuse a model that cannot be served.

    Raises:
        FileNotFoundError: the model has no config or no version with a file in it.
    """
    if not has_config(repository / model) or not any(repository.glob(f"{model}/[0-9]*/*")):
        raise FileNotFoundError(
            f"{repository / model} holds no built model: run `make models` first, or `fairlane export` your own"
        )


def copy_model(source: Path, model: str, destination: Path) -> Path:
    """Copy one model out of a repository, so that every target serves what is tested and nothing else.

    Args:
        source: Triton model repository.
        model: name of the model.
        destination: folder of the new repository.

    Returns:
        The new repository.

    Raises:
        FileNotFoundError: the model has no config or no version with a file in it.
    """
    check_built(source, model)
    shutil.copytree(source / model, destination / model)
    return destination


def add_priority_levels(repository: Path, model: str, levels: int) -> None:
    """Give the model's dynamic batcher priority levels, 1 the most important; requests without one get the lowest."""
    path = repository / model / "config.pbtxt"
    config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    config.dynamic_batching.priority_levels = levels
    config.dynamic_batching.default_priority_level = levels
    path.write_text(text_format.MessageToString(config))
