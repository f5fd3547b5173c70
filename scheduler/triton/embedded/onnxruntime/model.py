"""A Triton backend named `onnxruntime`, written in Python, for the embedded server.

The official container serves `backend: "onnxruntime"` with NVIDIA's native backend; the embedded
tritonserver has none, takes this file in its place, and the same config.pbtxt works in both. The
parameters it understands have NVIDIA's meaning (README of triton-inference-server/onnxruntime_backend).

Runs inside Triton's Python stub, in an environment of its own: standard library, numpy and
onnxruntime only, and of this repository what lies beside this file.

A Triton batch becomes one `session.run` per non-batch shape. A request that cannot be served gets an
error of its own and its neighbours get their answers: when a combined run raises, each of its requests
is run again alone, so only the one that raises by itself fails. `batch_runner.py` says when it runs.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from batch_runner import BatchRunner, Respond
from completion import completed, model_path
from reader_cpus import ReaderCpus

Array: TypeAlias = npt.NDArray[Any]
Config: TypeAlias = Mapping[str, Any]

# Triton runs instances side by side and counts on each to keep to its core; onnxruntime's own default
# (0: a thread per core, in every instance) makes two instances on two cores slower than one.
DEFAULT_THREADS = 1
FATAL_ONLY = 4  # onnxruntime's log level: a failed run is answered to its client, not logged per request

TRUTHS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
ARENA_SHRINKAGE = "memory.enable_memory_arena_shrinkage"
DEVICE_ALLOCATOR = "session.use_device_allocator_for_initializers"

GRAPH_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
TRITON_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}


class ModelError(Exception):
    """The model's file and its configuration cannot be served together; Triton refuses the load."""


class RequestError(Exception):
    """One request cannot be answered; its neighbours in the Triton batch are not concerned."""

    def __init__(self, message: str, *, code: Any = None) -> None:
        super().__init__(message)
        self.code = pb_utils.TritonError.INVALID_ARG if code is None else code


class Slot(NamedTuple):
    """An input or output as config.pbtxt declares it; dims are without the batch axis, -1 is any size.

    Where it has a reshape, dims are the reshape's: Triton has reshaped an input when it comes here, and reshapes an
    output after it has left.
    """

    name: str
    data_type: str
    dtype: np.dtype[Any]
    dims: tuple[int, ...]
    optional: bool

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a non-batch shape agrees with the declared dims."""
        return len(shape) == len(self.dims) and all(
            want in (-1, got) for want, got in zip(self.dims, shape, strict=True)
        )


class Work(NamedTuple):
    """One decoded request: arrays by input name, rows (0 without a batch axis), wanted output names."""

    feeds: dict[str, Array]
    rows: int
    wanted: list[str]

    def merge_key(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """What has to be equal for two requests to be concatenated: which inputs, and the non-batch shape of each."""
        return tuple((name, self.feeds[name].shape[1:]) for name in sorted(self.feeds))


def text_of(config: Config, parameter: str) -> str | None:
    """The value of `parameters { key: parameter }`; None where the configuration has none."""
    entry = config.get("parameters", {}).get(parameter)
    return None if entry is None else str(entry.get("string_value", "")).strip()


def whole_number(config: Config, parameter: str, default: int) -> int:
    """The value of a parameter as a number of 0 or more; ModelError on anything else."""
    text = text_of(config, parameter)
    text = str(default) if text is None else text
    if not (text.isascii() and text.isdecimal()):
        raise ModelError(f"parameter {parameter}: expected a whole number of 0 or more, got {text!r}")
    return int(text)


def truth(config: Config, parameter: str, *, default: bool) -> bool:
    """The value of a parameter as yes or no, in the words that NVIDIA's backends know; ModelError on anything else."""
    text = text_of(config, parameter)
    if text is None:
        return default
    if text.lower() not in TRUTHS:
        raise ModelError(f"parameter {parameter}: expected one of {', '.join(TRUTHS)}, got {text!r}")
    return TRUTHS[text.lower()]


def session_options(config: Config) -> ort.SessionOptions:
    """Threads, execution mode, graph level and memory as NVIDIA's backend reads them; one thread where it says none.

    What it reads besides cannot be done here: a session is one process's, so that `share_session_between_instances`
    changes nothing.
    """
    options = ort.SessionOptions()
    options.log_severity_level = FATAL_ONLY
    options.intra_op_num_threads = whole_number(config, "intra_op_thread_count", DEFAULT_THREADS)
    options.inter_op_num_threads = whole_number(config, "inter_op_thread_count", DEFAULT_THREADS)
    mode = whole_number(config, "execution_mode", 0)
    if mode > 1:
        raise ModelError(f"parameter execution_mode: expected 0 (sequential) or 1 (parallel), got {mode}")
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL if mode else ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = truth(config, "enable_mem_arena", default=options.enable_cpu_mem_arena)
    options.enable_mem_pattern = truth(config, "enable_mem_pattern", default=options.enable_mem_pattern)
    if (text := text_of(config, DEVICE_ALLOCATOR)) is not None:
        options.add_session_config_entry(DEVICE_ALLOCATOR, text)
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    options.graph_optimization_level = GRAPH_LEVELS.get(level, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    return options


def run_options(config: Config) -> Any:
    """What each run gets; None where the configuration says nothing of it."""
    if (devices := text_of(config, ARENA_SHRINKAGE)) is None:
        return None
    options = ort.RunOptions()
    options.add_run_config_entry(ARENA_SHRINKAGE, devices)
    return options


def declared(entries: Sequence[Config]) -> dict[str, Slot]:
    """The slots of config.pbtxt's `input` or `output`, by name."""
    slots = {}
    for entry in entries:
        name, data_type = entry["name"], entry["data_type"]
        if data_type not in pb_utils.TRITON_STRING_TO_NUMPY:
            raise ModelError(f"{name!r} is {data_type}, which this backend cannot pass on")
        dtype: np.dtype[Any] = np.dtype(pb_utils.triton_string_to_numpy(data_type))
        reshape = entry.get("reshape")
        dims = entry["dims"] if reshape is None else reshape.get("shape", ())
        optional = bool(entry.get("optional", False))
        slots[name] = Slot(name, data_type, dtype, tuple(int(size) for size in dims), optional)
    return slots


def provider(kind: str) -> str:
    """The execution provider for an instance's kind; ModelError where it is not there, and never another in silence."""
    wanted = "CUDAExecutionProvider" if kind == "GPU" else "CPUExecutionProvider"
    if wanted not in ort.get_available_providers():
        raise ModelError(
            f"instance_group asks for KIND_{kind}: expected {wanted}, this onnxruntime has "
            f"{', '.join(ort.get_available_providers())}"
        )
    return wanted


def check_slot(kind: str, slot: Slot, node: Any, *, batched: bool) -> None:
    """Raise ModelError where the graph's type or shape of one tensor contradicts its declaration."""
    found = TRITON_TYPES.get(node.type, node.type)
    if found != slot.data_type:
        raise ModelError(f"{kind} {slot.name!r}: config.pbtxt says {slot.data_type}, the graph has {found}")
    if not node.shape:  # a rank onnxruntime does not know
        return
    sizes = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    if batched and sizes[0] != -1:
        raise ModelError(
            f"{kind} {slot.name!r}: max_batch_size over 0 needs a free first axis, the graph fixes it to {sizes[0]}"
        )
    inner = sizes[1:] if batched else sizes
    if len(inner) != len(slot.dims) or any(
        -1 not in pair and pair[0] != pair[1] for pair in zip(inner, slot.dims, strict=True)
    ):
        raise ModelError(f"{kind} {slot.name!r}: config.pbtxt says dims {list(slot.dims)}, the graph has {list(inner)}")


def check_graph(kind: str, slots: Mapping[str, Slot], nodes: Sequence[Any], *, batched: bool) -> None:
    """Raise ModelError where declared tensors are not in the graph, or contradict it."""
    graph = {node.name: node for node in nodes}
    unknown = sorted(slots.keys() - graph.keys())
    if unknown:
        raise ModelError(f"{kind} {unknown} of config.pbtxt not in the graph, which has {sorted(graph)}")
    for slot in slots.values():
        check_slot(kind, slot, graph[slot.name], batched=batched)


def as_text(name: str, array: Array) -> Array:
    """Bytes to str, which is what onnxruntime takes; it holds strings as UTF-8 and has no other kind."""
    text = np.empty(array.size, dtype=np.object_)
    for index, item in enumerate(array.reshape(-1)):
        try:
            text[index] = item.decode() if isinstance(item, bytes) else str(item)
        except UnicodeDecodeError as error:
            raise RequestError(f"input {name!r}: element {index} is not UTF-8 ({error})") from error
    return text.reshape(array.shape)


def refusal(error: RequestError) -> Any:
    """The InferenceResponse that fails one request."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), error.code))


def answer(outputs: Mapping[str, Array], work: Work, start: int = 0, stop: int | None = None) -> Any:
    """The InferenceResponse with rows [start, stop) of each output the request wanted."""
    whole = stop is None
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, outputs[name] if whole else outputs[name][start:stop]) for name in work.wanted]
    )


class TritonPythonModel:
    """One instance of one model version: an onnxruntime session on the device that its instance group names."""

    @staticmethod
    def auto_complete_config(model_config: Any) -> Any:
        """Fill in inputs and outputs that config.pbtxt leaves out; called by Triton where it completes configurations.

        Raises:
            ModelError: the file cannot be read, or has what no configuration can say.
        """
        config = model_config.as_dict()
        if config["input"] and config["output"]:
            return model_config
        path = model_path()
        if os.path.isdir(path):
            path = os.path.join(path, "model.onnx")
        options = ort.SessionOptions()
        options.log_severity_level = FATAL_ONLY
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is only looked at
        try:
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            batched = config["max_batch_size"] > 0
            for kind, nodes in (("input", session.get_inputs()), ("output", session.get_outputs())):
                config[kind] += completed(kind, config[kind], nodes, TRITON_TYPES, batched=batched)
        except Exception as error:
            raise ModelError(f"{path}: {error}") from None
        return model_config

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the version's file and check it against the configuration.

        Raises:
            ModelError: naming the file and what does not fit; Triton reports it as the model's load error.
        """
        config = json.loads(args["model_config"])
        filename = config.get("default_model_filename") or "model.onnx"
        path = os.path.join(args["model_repository"], args["model_version"], filename)
        if os.path.isdir(path):  # as NVIDIA's backend: a graph with its weights beside it
            path = os.path.join(path, "model.onnx")
        try:
            self._load(path, config, provider(args.get("model_instance_kind", "CPU")))
        except Exception as error:
            raise ModelError(f"{path}: {error}") from None

    def _load(self, path: str, config: Config, device: str) -> None:
        self.batched = config["max_batch_size"] > 0
        self.inputs = declared(config["input"])
        self.outputs = declared(config["output"])
        if not self.outputs:
            raise ModelError("config.pbtxt has no output: expected one or more that the graph has")
        self.run_options = run_options(config)
        self.required = {slot.name for slot in self.inputs.values() if not slot.optional}
        self.session = ort.InferenceSession(path, session_options(config), providers=[device])
        # onnxruntime falls back to the CPU in silence where CUDA's libraries or the device are missing.
        if device not in self.session.get_providers():
            raise ModelError(f"expected {device}, onnxruntime loaded it on {self.session.get_providers()}")
        nodes = self.session.get_inputs()
        # An input with a value in the graph may be given or left out.
        with_default = self.session.get_overridable_initializers()
        check_graph("input", self.inputs, [*nodes, *with_default], batched=self.batched)
        without = sorted(node.name for node in nodes if node.name in self.inputs.keys() - self.required)
        if without:
            raise ModelError(f"input {without}: optional in config.pbtxt, and the graph has no value to use instead")
        check_graph("output", self.outputs, self.session.get_outputs(), batched=self.batched)
        missing = sorted({node.name for node in nodes} - self.inputs.keys())
        if missing:
            raise ModelError(f"input {missing} of the graph not in config.pbtxt, which has {sorted(self.inputs)}")
        # tritonserver, which started this process, may have CPUs that its models have not.
        models, server = os.sched_getaffinity(0), os.sched_getaffinity(os.getppid())
        reader = ReaderCpus(models, server, time.monotonic)
        self.runner = BatchRunner(reader, side_by_side=len(models | server) > 1)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One Triton batch: a response per request, in order, an error in place of each that failed.

        None in place of each where they are sent later, while the next batch runs.
        """
        responds: list[Any] = [None] * len(requests)
        groups: dict[Any, list[tuple[int, Work]]] = {}
        for index, request in enumerate(requests):
            try:
                work = self._decode(request)
            except RequestError as error:
                responds[index] = partial(refusal, error)
                continue
            key = work.merge_key() if self.batched and len(requests) > 1 else index
            groups.setdefault(key, []).append((index, work))

        def run() -> list[Respond]:
            for group in groups.values():
                works = [work for _, work in group]
                made = [self._run_alone(works[0])] if len(works) == 1 else self._run_merged(works)
                for (index, _), respond in zip(group, made, strict=True):
                    responds[index] = respond
            return responds

        answers: list[Any] = self.runner.answer(requests, run)
        return answers

    def _decode(self, request: Any) -> Work:
        feeds = {tensor.name(): self._array(tensor) for tensor in request.inputs()}
        if not self.required <= feeds.keys():
            raise RequestError(f"expected inputs {sorted(self.required)}, got {sorted(feeds)}")
        rows = {name: array.shape[0] for name, array in feeds.items()} if self.batched else {"": 0}
        if len(set(rows.values())) > 1:
            raise RequestError(f"inputs differ in batch size, the first axis: {rows}")
        return Work(feeds, next(iter(rows.values())), request.requested_output_names())

    def _array(self, tensor: Any) -> Array:
        name = tensor.name()
        slot = self.inputs.get(name)
        if slot is None:
            raise RequestError(f"input {name!r}: expected one of {sorted(self.inputs)}")
        try:
            array: Array = tensor.as_numpy()
        except Exception as error:
            raise RequestError(
                f"input {name!r}: expected {slot.data_type}, its bytes do not decode: {error}"
            ) from error
        if array.dtype != slot.dtype:
            raise RequestError(f"input {name!r}: expected {slot.data_type}, got {array.dtype}")
        if not slot.fits(array.shape[1:] if self.batched else array.shape) or (self.batched and not array.ndim):
            want = ["batch", *slot.dims] if self.batched else list(slot.dims)
            raise RequestError(f"input {name!r}: expected shape {want}, got {list(array.shape)}")
        return as_text(name, array) if slot.dtype == np.object_ else array

    def _run(self, feeds: dict[str, Array], wanted: list[str], rows: int) -> dict[str, Array]:
        # The plain call: the session reads the requests' memory in place. To bind inputs and outputs takes more calls
        # than the one copy of the outputs that it spares is worth (`python -m bench.backend.io_binding` prints both).
        try:
            outputs = dict(zip(wanted, self.session.run(wanted, feeds, self.run_options), strict=True))
        except Exception as error:
            # onnxruntime says so where it was the content: an index outside of a table, for one.
            blamed = type(error).__name__ == "InvalidArgument"
            code = pb_utils.TritonError.INVALID_ARG if blamed else pb_utils.TritonError.INTERNAL
            raise RequestError(str(error), code=code) from error
        for name, array in outputs.items():
            if self.batched and array.shape[:1] != (rows,):
                raise RequestError(
                    f"output {name!r}: expected {rows} rows, the model gave shape {list(array.shape)}",
                    code=pb_utils.TritonError.INTERNAL,
                )
        return outputs

    def _run_alone(self, work: Work) -> Respond:
        try:
            return partial(answer, self._run(work.feeds, work.wanted, work.rows), work)
        except RequestError as error:
            return partial(refusal, error)

    def _run_merged(self, works: list[Work]) -> list[Respond]:
        feeds = {name: np.concatenate([work.feeds[name] for work in works]) for name in works[0].feeds}
        wanted = list(dict.fromkeys(name for work in works for name in work.wanted))
        try:
            outputs = self._run(feeds, wanted, sum(work.rows for work in works))
        except RequestError:
            return [self._run_alone(work) for work in works]
        responds: list[Respond] = []
        start = 0
        for work in works:
            responds.append(partial(answer, outputs, work, start, start + work.rows))
            start += work.rows
        return responds

    def finalize(self) -> None:
        """Let go of the session when Triton unloads the model, and every batch that it took is answered."""
        self.runner.close()
        del self.session
