"""The warm-up: zeros of some sizes that Triton runs when it loads a model. Where one fails, Triton loads nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import model_config_pb2

from export.configuration.model_config import CONFIG_FILE, has_config, read_config
from export.definition.tensor import NUMPY_TYPES, Feed, describe
from export.errors import ExportError
from export.inference.session import RunError, Session


class WarmUpError(ExportError):
    """A model does not run on the warm-up of its configuration."""


def check_warm_up(name: str, built: Path, session: Session) -> None:
    """Run a loaded model on every warm-up of the configuration in a built folder; without one, there is none.

    Args:
        name: the model's name.
        built: the folder.
        session: the model.

    Raises:
        WarmUpError: it fails on one; says on which, and why.
    """
    if not has_config(built):
        return
    for feed in warm_up_feeds(read_config(built / CONFIG_FILE)):
        try:
            session.predict(feed)
        except RunError as error:
            raise WarmUpError(
                f"{name}: serving.warm_up: expected sizes at which the model runs on zeros, or None for no warm-up; "
                f"got {describe(feed)}: {error}"
            ) from error


def warm_up_feeds(config: Any) -> Iterator[Feed]:
    """What Triton feeds a model when it loads it, by a ModelConfig message that is made here: zeros."""
    slots = {slot.name: slot for slot in config.input}
    for warm_up in config.model_warmup:
        rows = [warm_up.batch_size] if config.max_batch_size > 0 else []
        # In the order of the inputs: a protobuf map's own is another in each process.
        yield {name: _zeros(rows, slot, warm_up.inputs[name]) for name, slot in slots.items() if name in warm_up.inputs}


def _zeros(rows: list[int], slot: Any, one: Any) -> Any:
    datatype = model_config_pb2.DataType.Name(one.data_type).removeprefix("TYPE_")
    shape = [*rows, *(slot.reshape.shape if slot.HasField("reshape") else one.dims)]
    dtype = np.dtype(NUMPY_TYPES[datatype])
    return np.full(shape, "", dtype) if datatype == "STRING" else np.zeros(shape, dtype)
