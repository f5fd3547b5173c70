"""config.pbtxt: made from a definition, then read back through Triton's own ModelConfig message as a proof."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args
from urllib.parse import quote

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export.definition import Definition
from export.definition.tensor import BATCH, Tensor
from export.errors import ExportError

CONFIG_FILE: Final = "config.pbtxt"
Target = Literal["cpu", "cuda", "tensorrt"]
TARGETS: Final = get_args(Target)

# What is said above a field, where it starts.
COMMENTS: Final[Mapping[str, str]] = {
    "dynamic_batching": (
        "# No priority, timeout or queue limit: any of them switches off Triton's prefetching and stalls its batcher.\n"
        "# No queue delay: it would cost a lone request half its speed. The scheduler holds the queue.\n"
    ),
    "parameters": (
        "# Threads are few: instances are the unit of parallelism that Triton and the scheduler count in.\n"
    ),
    "model_warmup": "# Zeros: the smallest and the largest batch have run before the first request comes.\n",
    "version_policy": "# The newest version is served; a rollback is a newer version with older content.\n",
}


class ConfigError(ExportError):
    """A config.pbtxt is not what Triton would read."""


def config_text(definition: Definition, target: Target = "cpu") -> str:
    """The text of config.pbtxt; the same definition and target give the same bytes.

    Args:
        definition: the model.
        target: `cpu`: KIND_CPU. `cuda`: KIND_GPU, on ONNX Runtime's CUDA provider. `tensorrt`: KIND_GPU and
            NVIDIA's backend hands what it can to TensorRT, in INT8 where the graph has symmetric S8S8 QDQ pairs.

    Raises:
        ConfigError: what was written does not read back as what was meant.
    """
    return message_text(_message(definition, target), _header(definition))


def message_text(config: Any, header: str) -> str:
    """The text of a ModelConfig message, with comments; it has been read back.

    Args:
        config: the message.
        header: comment lines for the top.

    Raises:
        ConfigError: what was written does not read back as what was meant.
    """
    blocks = [header]
    # The name and the backend first; then in the order of Triton's own message.
    for descriptor, value in sorted(config.ListFields(), key=lambda each: each[0].name not in ("name", "backend")):
        part = model_config_pb2.ModelConfig()
        # One field alone, so that a comment can stand above it.
        if descriptor.is_repeated:
            getattr(part, descriptor.name).MergeFrom(value)
        elif descriptor.message_type is not None:
            getattr(part, descriptor.name).CopyFrom(value)
        else:
            setattr(part, descriptor.name, value)
        comment = COMMENTS.get(descriptor.name, "")
        blocks.append(
            ("\n" + comment if comment else "") + text_format.MessageToString(part, use_short_repeated_primitives=True)
        )
    text = "".join(blocks)
    if parse_config(text, CONFIG_FILE) != config:
        raise ConfigError(f"{config.name}: {CONFIG_FILE} does not read back as what was written:\n{text}")
    return text


def has_config(model: Path) -> bool:
    """Whether something lies where a model's configuration does, readable or not."""
    return os.path.lexists(model / CONFIG_FILE)


def read_config(path: Path) -> Any:
    """The ModelConfig message in a file.

    Raises:
        ConfigError: as `parse_config`, or the file cannot be read. Names it, and says why.
    """
    return parse_config(config_in(path), path)


def config_in(path: Path) -> str:
    """The text of a model's configuration.

    Raises:
        ConfigError: the file is not there, cannot be read, is empty or not UTF-8. Names it, and says why.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: not a model configuration that can be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a model configuration that Triton reads: not UTF-8: {error}") from error
    if not text.strip():
        raise ConfigError(f"{path}: not a model configuration that Triton takes: it is empty")
    return text


def parse_config(text: str, name: str | Path) -> Any:
    """The ModelConfig message of a config.pbtxt.

    Raises:
        ConfigError: naming the file, the line and what is wrong with it, or the field that Triton refuses, which itself
            answers no more than that it failed to poll the repository.
    """
    try:
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise ConfigError(f"{name}: not a model configuration that Triton reads: line {error}") from error
    if faults := list(_faults(config)):
        raise ConfigError(f"{name}: not a model configuration that Triton takes: {'; '.join(faults)}")
    return config


def _faults(config: Any) -> Iterator[str]:
    if config.max_batch_size < 0:
        yield f"max_batch_size: expected 0 or more, got {config.max_batch_size}"
    for kind in ("input", "output"):
        for slot in getattr(config, kind):
            if slot.data_type == model_config_pb2.TYPE_INVALID:
                yield f"{kind} {slot.name!r}: expected a data_type, got none"
            if not slot.dims or any(size == 0 or size < -1 for size in slot.dims):
                yield f"{kind} {slot.name!r}: expected dims of -1 or more than 0, got {list(slot.dims)}"


def label_file(output: str) -> str:
    """The name of the label file of an output, beside config.pbtxt; of an output whose name has a slash, too."""
    return f"{quote(output, safe='')}_labels.txt"


def write_config(definition: Definition, target: Target, folder: Path) -> None:
    """Write config.pbtxt and the label files into a folder that nobody reads yet."""
    folder.joinpath(CONFIG_FILE).write_text(config_text(definition, target), encoding="utf-8")
    for output, labels in definition.serving.labels.items():
        folder.joinpath(label_file(output)).write_text("".join(f"{one}\n" for one in labels), encoding="utf-8")


def _header(definition: Definition) -> str:
    about = f"# {definition.summary}\n" if definition.summary else ""
    return (
        f"{about}# Made by `fairlane export`. Served by NVIDIA's ONNX Runtime backend and by Fairlane's embedded one "
        "alike.\n"
    )


def _message(definition: Definition, target: Target) -> Any:
    serving = definition.serving
    config = model_config_pb2.ModelConfig(
        name=definition.name, backend="onnxruntime", max_batch_size=definition.max_batch_size
    )
    for tensor in definition.inputs:
        _add(config.input, definition, tensor)
    for tensor in definition.outputs:
        made = _add(config.output, definition, tensor)
        if tensor.name in serving.labels:
            made.label_filename = label_file(tensor.name)
    config.version_policy.latest.num_versions = 1
    kinds = model_config_pb2.ModelInstanceGroup
    config.instance_group.add(count=serving.instances, kind=kinds.KIND_CPU if target == "cpu" else kinds.KIND_GPU)
    if definition.batched:
        config.dynamic_batching.SetInParent()
    config.parameters["intra_op_thread_count"].string_value = str(serving.threads)
    config.parameters["inter_op_thread_count"].string_value = "1"
    if serving.batch_invariant and definition.batched:
        config.parameters["batch_invariant"].string_value = "true"
    if target == "tensorrt":
        accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
        accelerator.parameters["precision_mode"] = "INT8"
    if serving.warm_up is not None:
        _add_warm_up(config, definition, _sizes(definition, serving.warm_up))
    return config


def _sizes(definition: Definition, given: Mapping[str, int]) -> Mapping[str, int]:
    """The size of each varying axis in the warm-up: as given, or as in the first sample."""
    if not {*definition.axes()} - {BATCH, *given}:
        return given
    first = next(definition.checked("samples", definition.samples()))
    seen = {
        name: first[tensor.name].shape[axis] for tensor in definition.inputs for axis, name in tensor.varying().items()
    }
    return {**seen, **given}


def _add_warm_up(config: Any, definition: Definition, sizes: Mapping[str, int]) -> None:
    batches = {"one_row": 1, "full_batch": definition.max_batch_size} if definition.batched else {"once": 0}
    for name, rows in batches.items():
        warm_up = config.model_warmup.add(name=name, batch_size=rows)
        for tensor in definition.inputs:
            made = warm_up.inputs[tensor.name]
            made.data_type, made.zero_data = _type(tensor), True
            sizes_here = [
                sum(sizes.get(part, 1) for part in size.split("+")) if isinstance(size, str) else size
                for size in _inner(definition, tensor)
            ]
            made.dims.extend(sizes_here or [1])


def _type(tensor: Tensor) -> Any:
    return model_config_pb2.DataType.Value(f"TYPE_{tensor.datatype}")


def _inner(definition: Definition, tensor: Tensor) -> tuple[int | str, ...]:
    return tensor.dims[1:] if definition.batched else tensor.dims


def _add(slots: Any, definition: Definition, tensor: Tensor) -> Any:
    # Triton's dims leave the batch out, and are never none: a number per row is a vector of one to its clients.
    dims = [-1 if isinstance(size, str) else size for size in _inner(definition, tensor)]
    made = slots.add(name=tensor.name, data_type=_type(tensor), dims=dims or [1])
    if not dims:
        made.reshape.SetInParent()
    return made
