"""What Triton says of a model, as far as requests are checked and batched by it."""

import struct
from dataclasses import dataclass, field
from typing import Any, Final

from tritonclient.grpc import model_config_pb2

from scheduler.core.backends.backend import ModelCapacity
from scheduler.triton.queue_policy import NO_POLICIES, QueuePolicies, hindrances, queue_policies

# Bytes of one element by KServe datatype; BYTES elements carry their own length.
ELEMENT_BYTES: Final[dict[str, int]] = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "BF16": 2,
    "FP32": 4,
    "FP64": 8,
}
# KServe datatype by the number that a model's config has for it; 0 is TYPE_INVALID.
DATATYPES: Final[dict[int, str]] = {
    number: "BYTES" if name == "TYPE_STRING" else name.removeprefix("TYPE_")
    for name, number in model_config_pb2.DataType.items()
    if number
}
# Parameter of config.pbtxt by which a model says that its answers do not depend on what else is in the batch.
BATCH_INVARIANT: Final = "batch_invariant"
# What Triton takes where sequence_batching.max_sequence_idle_microseconds is not set.
SEQUENCE_IDLE_US: Final = 1_000_000
# Strings of a request that are looked at one by one here: about 2 ms of the event loop. A request with more of them
# rides alone, so that only its sender has to do with what Triton makes of it.
MAX_STRINGS: Final = 16_384
_LENGTH: Final = struct.Struct("<I")


def string_end(raw: bytes, begin: int, elements: int) -> int:
    """Where so many BYTES elements end that begin at `begin`: each is its length (uint32, little-endian) and its bytes.

    Raises:
        ValueError: the data end within an element.
    """
    end = begin
    for element in range(elements):
        end += _LENGTH.size
        if end <= len(raw):
            end += _LENGTH.unpack_from(raw, end - _LENGTH.size)[0]
        if end > len(raw):
            raise ValueError(f"the data end within element {element}, after {len(raw)} bytes")
    return end


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input. `dims` leaves out the batch dimension; -1 is any size. `ragged`: each request may have its own."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    optional: bool
    ragged: bool = False


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model of one backend.

    Attributes:
        max_batch_size: rows of one request, at most; 0: no batch dimension.
        instances: execution slots over all instance groups; of an ensemble those of its parts (joining.py).
        inputs: by name.
        mergeable: whether rows of different requests may go as one: the model has a batch dimension,
            keeps no state between requests, gives one response to each, and is not told how long ragged ones are.
        versions: versions that are loaded.
        outputs: datatypes of the outputs, by name.
        output_dims: their dimensions without that of the batch, by name; -1 is any size.
        decoupled: whether a request may have any number of responses.
        sequence_idle_s: seconds without a request after which Triton forgets the state of a sequence; None: the model
            keeps none.
        sequence_slots: sequences whose state Triton keeps at a time; None: it keeps none.
        batch_invariant: whether the model's config says that answers do not depend on what else is in the batch.
        queue: what the model's config says of requests that wait for it.
        hindrances: settings of the config that cost time behind a scheduler, in words.
        joins: whether Triton runs several requests as one by itself (joining.py).
        parts: models that an ensemble runs, in order of its steps.
        queue_delay_s: how long Triton waits for an execution to fill.
        delayed_below: rows below which it does so; 0: it does not.
    """

    name: str
    max_batch_size: int
    instances: int
    inputs: dict[str, TensorSpec]
    mergeable: bool
    versions: tuple[str, ...]
    outputs: dict[str, str] = field(default_factory=dict)
    output_dims: dict[str, tuple[int, ...]] = field(default_factory=dict)
    decoupled: bool = False
    sequence_idle_s: float | None = None
    sequence_slots: int | None = None
    batch_invariant: bool = False
    queue: QueuePolicies = NO_POLICIES
    hindrances: tuple[str, ...] = ()
    joins: bool = False
    parts: tuple[str, ...] = ()
    queue_delay_s: float = 0.0
    delayed_below: int = 0

    @property
    def capacity(self) -> ModelCapacity:
        """What the core needs to know."""
        return ModelCapacity(
            self.instances,
            self.max_batch_size,
            self.sequence_slots,
            self.queue_delay_s,
            self.delayed_below,
            self.decoupled,
        )


def spec_from_config(config: Any, versions: tuple[str, ...]) -> ModelSpec:
    """Read a `inference.ModelConfig` message.

    Raises:
        ValueError: it makes no sense; the message names what was expected and what came.
    """
    if config.max_batch_size < 0:
        raise ValueError(f"max_batch_size: expected 0 or more, got {config.max_batch_size}")
    return ModelSpec(
        name=config.name,
        max_batch_size=config.max_batch_size,
        instances=_instances(config),
        inputs={tensor.name: _tensor(tensor) for tensor in config.input},
        mergeable=_mergeable(config),
        versions=versions,
        outputs={tensor.name: DATATYPES.get(tensor.data_type, "") for tensor in config.output},
        output_dims={tensor.name: tuple(tensor.dims) for tensor in config.output},
        decoupled=config.model_transaction_policy.decoupled,
        sequence_idle_s=_sequence_idle_s(config),
        sequence_slots=_sequence_slots(config),
        batch_invariant=_parameter(config, BATCH_INVARIANT) == "true",
        queue=queue_policies(config),
        hindrances=hindrances(config),
        joins=_joins(config),
        queue_delay_s=config.dynamic_batching.max_queue_delay_microseconds / 1e6,
        delayed_below=_delayed_below(config),
        parts=tuple(step.model_name for step in config.ensemble_scheduling.step),
    )


def _parameter(config: Any, name: str) -> str:
    """A parameter of config.pbtxt, empty where it is not there; reading a protobuf map by key would add it."""
    return str(config.parameters[name].string_value) if name in config.parameters else ""


def _tensor(tensor: Any) -> TensorSpec:
    datatype = DATATYPES.get(tensor.data_type)
    if datatype is None:
        raise ValueError(f"input {tensor.name!r}: expected a data_type of Triton's, got {tensor.data_type}")
    return TensorSpec(tensor.name, datatype, tuple(tensor.dims), tensor.optional, tensor.allow_ragged_batch)


def _sequence_idle_s(config: Any) -> float | None:
    if config.WhichOneof("scheduling_choice") != "sequence_batching":
        return None
    return (config.sequence_batching.max_sequence_idle_microseconds or SEQUENCE_IDLE_US) / 1e6


def _sequence_slots(config: Any) -> int | None:
    """Triton gives each instance as many slots as a batch has rows, or as the oldest strategy has candidates."""
    if config.WhichOneof("scheduling_choice") != "sequence_batching":
        return None
    batcher = config.sequence_batching
    oldest = batcher.WhichOneof("strategy_choice") == "oldest"
    each: int = batcher.oldest.max_candidate_sequences if oldest else config.max_batch_size
    return _instances(config) * max(1, each)


def _instances(config: Any) -> int:
    """A GPU group has `count` instances on each of its GPUs."""
    total: int = sum(group.count * max(1, len(group.gpus)) for group in config.instance_group)
    return max(1, total)


def _joins(config: Any) -> bool:
    return (
        config.max_batch_size > 0
        and config.WhichOneof("scheduling_choice") in {"dynamic_batching", "sequence_batching"}
        and not config.model_transaction_policy.decoupled
    )


def _delayed_below(config: Any) -> int:
    """Triton's batcher waits until a preferred size is reached, or the largest where none is preferred."""
    batcher = config.dynamic_batching
    if not _joins(config) or not batcher.max_queue_delay_microseconds:
        return 0
    return int(min(batcher.preferred_batch_size, default=config.max_batch_size))


def _mergeable(config: Any) -> bool:
    return (
        config.max_batch_size > 0
        and config.WhichOneof("scheduling_choice") in {None, "dynamic_batching"}
        and not config.model_transaction_policy.decoupled
        # Of ragged requests a batch input tells the model how long each is, not each row.
        and not (
            any(tensor.allow_ragged_batch for tensor in config.input) and (config.batch_input or config.batch_output)
        )
    )
