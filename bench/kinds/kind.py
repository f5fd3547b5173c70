"""The kinds of requests that people serve with Triton, each with a real model of a known speed."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from tritonclient.grpc import service_pb2

MODELS: Final = Path(__file__).with_name("models")
SLEEPY, PARALLEL = "sleepy.py", "parallel.py"
# One execution, whatever its rows: where one row takes as long as 32, small batches only cost.
SERVICE_MS: Final = 20
SINGLE_MS: Final = 5
STREAM_MS, STREAM_RESPONSES = 400, 20
BATCHING: Final = "dynamic_batching {}"

# A request of the caller of this number, as its so-and-so-many-th.
Request = Callable[[int, int], bytes]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of request.

    Attributes:
        name: for the table and the command line.
        about: what is special about it, in a line.
        model: who answers.
        request: serialized ModelInferRequest of a caller.
        streamed: whether it goes by ModelStreamInfer, since its answer comes in parts.
        tenants: how many tenants the callers are of.
        round_trip_s: of a network before Triton, for both sides; 0: they share a host.
    """

    name: str
    about: str
    model: str
    request: Request
    streamed: bool = False
    tenants: int = 1
    round_trip_s: float = 0.0


def request(model: str, columns: int = 1, *, typed: bool = False, **parameters: int | bool | str) -> Any:
    """A ModelInferRequest with one row of FP32 ones."""
    message = service_pb2.ModelInferRequest(model_name=model)
    tensor = message.inputs.add(name="IN", datatype="FP32", shape=[1, columns])
    values = np.ones(columns, np.float32)
    if typed:
        tensor.contents.fp32_contents.extend(values.tolist())
    else:
        message.raw_input_contents.append(values.tobytes())
    for name, value in parameters.items():
        kind = "bool_param" if isinstance(value, bool) else "int64_param" if isinstance(value, int) else "string_param"
        setattr(message.parameters[name], kind, value)
    return message


def _same(message: Any) -> Request:
    body: bytes = message.SerializeToString()
    return lambda caller, number: body


def _of_caller(make: Callable[[int], Any], callers: int = 64) -> Request:
    bodies = [make(caller).SerializeToString() for caller in range(callers)]
    return lambda caller, number: bodies[caller % callers]


def _step(caller: int, number: int) -> bytes:
    """Every caller is one sequence, which starts with its first request and never ends."""
    step = request("sequence", sequence_id=caller + 1, sequence_start=number == 0)
    body: bytes = step.SerializeToString()
    return body


def _streamed(caller: int, number: int) -> bytes:
    message = request("stream")
    message.id = f"{caller}-{number}"
    body: bytes = message.SerializeToString()
    return body


KINDS: Final = (
    Kind(name="plain", about="one model, requests that merge", model="plain", request=_same(request("plain"))),
    Kind(
        name="parameters",
        about="a parameter of its own for each caller",
        model="plain",
        request=_of_caller(lambda caller: request("plain", threshold=caller)),
    ),
    Kind(name="typed", about="typed contents", model="plain", request=_same(request("plain", typed=True))),
    Kind(
        name="ragged",
        about="a ragged input of another length for each caller",
        model="ragged",
        request=_of_caller(lambda caller: request("ragged", caller % 32 + 1)),
    ),
    Kind(
        name="ensemble",
        about="two stages, each batched by Triton",
        model="ensemble",
        request=_same(request("ensemble")),
    ),
    Kind(name="queue-delay", about="max_queue_delay of 100 ms", model="delay", request=_same(request("delay"))),
    Kind(
        name="tenants",
        about="eight tenants of a model that is not batch-invariant",
        model="plain",
        request=_same(request("plain")),
        tenants=8,
    ),
    Kind(name="sequences", about="a stateful sequence for each caller", model="sequence", request=_step),
    Kind(name="streams", about="decoupled, all requests at a time", model="stream", request=_streamed, streamed=True),
    Kind(
        name="threads",
        about="one answer each, all requests at a time",
        model="threads",
        request=_same(request("threads")),
    ),
    Kind(
        name="network",
        about="a model of 5 ms that batches nothing, behind a round trip of 20 ms",
        model="single",
        request=_same(request("single")),
        round_trip_s=0.020,
    ),
)


def make_repository(folder: Path) -> Path:
    """Write the models of all kinds into a Triton model repository."""
    _write(folder, "plain", SLEEPY, BATCHING)
    _write(folder, "ragged", SLEEPY, BATCHING, ragged=True)
    _write(folder, "delay", SLEEPY, "dynamic_batching { max_queue_delay_microseconds: 100000 }")
    _write(folder, "first", SLEEPY, BATCHING)
    _write(folder, "second", SLEEPY, BATCHING)
    oldest = "sequence_batching { max_sequence_idle_microseconds: 600000000 oldest { max_candidate_sequences: 512 } }"
    _write(folder, "sequence", SLEEPY, oldest)
    decoupled = "model_transaction_policy { decoupled: true }"
    _write(folder, "stream", PARALLEL, decoupled, rows=0, service_ms=STREAM_MS, responses=STREAM_RESPONSES)
    _write(folder, "threads", PARALLEL, "", rows=0, service_ms=STREAM_MS)
    _write(folder, "single", SLEEPY, "", rows=0, service_ms=SINGLE_MS)
    (folder / "ensemble" / "1").mkdir(parents=True)
    (folder / "ensemble" / "config.pbtxt").write_text(ENSEMBLE)
    return folder


ENSEMBLE: Final = """name: "ensemble"
platform: "ensemble"
max_batch_size: 32
input { name: "IN" data_type: TYPE_FP32 dims: 1 }
output { name: "OUT" data_type: TYPE_FP32 dims: 1 }
ensemble_scheduling {
  step {
    model_name: "first" model_version: -1
    input_map { key: "IN" value: "IN" } output_map { key: "OUT" value: "between" }
  }
  step {
    model_name: "second" model_version: -1
    input_map { key: "IN" value: "between" } output_map { key: "OUT" value: "OUT" }
  }
}
"""


def _write(
    folder: Path,
    name: str,
    source: str,
    rest: str,
    *,
    rows: int = 32,
    ragged: bool = False,
    service_ms: int = SERVICE_MS,
    responses: int = 1,
) -> None:
    version = folder / name / "1"
    version.mkdir(parents=True)
    shutil.copy(MODELS / source, version / "model.py")
    parameters = {"service_ms": service_ms, "responses": responses}
    dims = "1, 1" if not rows else "-1" if ragged else "1"
    lines = [
        f'name: "{name}" backend: "python" max_batch_size: {rows}',
        f'input {{ name: "IN" data_type: TYPE_FP32 dims: [{dims}] {"allow_ragged_batch: true" if ragged else ""} }}',
        f'output {{ name: "OUT" data_type: TYPE_FP32 dims: [{dims}] }}',
        "instance_group { count: 1 kind: KIND_CPU }",
        *(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in parameters.items()),
        rest,
    ]
    version.with_name("config.pbtxt").write_text("\n".join(lines))
