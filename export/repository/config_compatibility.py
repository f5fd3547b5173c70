"""Whether a new graph fits the config.pbtxt that stays. A misfit is found here, before Triton refuses to load it."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2

from export.card import CardError, read_card
from export.configuration.model_config import CONFIG_FILE, ConfigError, has_config, read_config
from export.definition.tensor import Tensor
from export.graph.onnx_graph import declared_tensors, read_graph
from export.repository.repository import Repository


def check_fit(repository: Repository, name: str, graph: Path) -> None:
    """Refuse a graph that a server could not load with the model's configuration. Without one, anything fits.

    Raises:
        ConfigError: naming the configuration, the tensor, what it says of it and what the graph has.
        GraphError: the graph is not one, or cut off.
    """
    path = repository.folder / name / CONFIG_FILE
    if not has_config(path.parent):
        return
    if (named := read_config(path).name) not in ("", name):
        raise ConfigError(f"{path}: name: expected {name!r}, as its folder, got {named!r}")
    if faults := misfits(path, graph):
        raise ConfigError(f"{path} does not fit {graph}: {'; '.join(faults)}")


def misfits(path: Path, graph: Path) -> list[str]:
    """In what a graph differs from the tensors of a configuration, and its card from the batches there.

    Raises:
        ConfigError: the configuration cannot be read.
        GraphError: as `check_fit`.
    """
    config = read_config(path)
    batched = config.max_batch_size > 0
    inputs, outputs = declared_tensors(read_graph(graph, weights=False))
    faults = []
    if batched and _is_whole(graph):
        faults.append(f"max_batch_size: it says {config.max_batch_size}, and the first axis of {graph} is no batch")
    missing = sorted({one.name for one in inputs} - {slot.name for slot in config.input})
    faults += [f"input {one!r} of {graph} is not in it" for one in missing]
    faults += [fault for slot in config.input if (fault := _fault("input", slot, inputs, batched=batched))]
    faults += [fault for slot in config.output if (fault := _fault("output", slot, outputs, batched=batched))]
    return faults


def _is_whole(graph: Path) -> bool:
    """Whether the card beside a graph says so; one that cannot be read says nothing."""
    with contextlib.suppress(CardError):
        batch = read_card(graph.parent).batch
        return batch is not None and batch.whole
    return False


def _fault(kind: str, slot: Any, tensors: Sequence[Tensor], *, batched: bool) -> str | None:
    tensor = next((one for one in tensors if one.name == slot.name), None)
    if tensor is None:
        return f"{kind} {slot.name!r} is not in the graph, which has {[one.name for one in tensors]}"
    said = model_config_pb2.DataType.Name(slot.data_type).removeprefix("TYPE_")
    if said != tensor.datatype:
        return f"{kind} {slot.name!r}: it says {said}, the graph has {tensor.datatype}"
    if batched and isinstance(tensor.dims[0], int):
        return f"{kind} {slot.name!r}: max_batch_size needs a free first axis, the graph fixes it to {tensor.dims[0]}"
    dims = list(slot.reshape.shape if slot.HasField("reshape") else slot.dims)
    have = [size if isinstance(size, int) else -1 for size in tensor.dims[1 if batched else 0 :]]
    fits = len(dims) == len(have) and all(-1 in pair or pair[0] == pair[1] for pair in zip(dims, have, strict=True))
    return None if fits else f"{kind} {slot.name!r}: it says dims {dims}, the graph has {have}"
