"""A real tritonserver for tests, on tiny ONNX models made on the fly."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from scheduler.triton.launcher import EmbeddedTriton, TritonAddress

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "STRING": TensorProto.STRING,
}
START_S = 60.0

Tensors = dict[str, tuple[str, list[int]]]  # name -> (type as in config.pbtxt without TYPE_, dims without the batch)


class ModelRepository:
    """A model repository under construction: one method per kind of tiny model."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(
        self,
        name: str,
        nodes: list[Any],
        inputs: Tensors,
        outputs: Tensors,
        *,
        rows: int = 8,
        constants: Any = (),
        extra: str = "",
    ) -> Path:
        """Write NAME/1/model.onnx and NAME/config.pbtxt; `rows` is max_batch_size. Returns the model's folder."""
        batch = ["n"] if rows else []

        def values(tensors: Tensors) -> list[Any]:
            return [
                helper.make_tensor_value_info(each, ONNX_TYPES[kind], [*batch, *(None if d < 0 else d for d in dims)])
                for each, (kind, dims) in tensors.items()
            ]

        graph = helper.make_graph(nodes, name, values(inputs), values(outputs), list(constants))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        folder = self.path / name
        (folder / "1").mkdir(parents=True)
        onnx.save(model, folder / "1" / "model.onnx")
        (folder / "config.pbtxt").write_text(self._config(name, inputs, outputs, rows, extra))
        return folder

    def _config(self, name: str, inputs: Tensors, outputs: Tensors, rows: int, extra: str) -> str:
        def entries(tensors: Tensors) -> str:
            return ", ".join(
                f'{{ name: "{each}" data_type: TYPE_{kind} dims: {dims} }}' for each, (kind, dims) in tensors.items()
            )

        return (
            f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: {rows}\n'
            f"input [{entries(inputs)}]\noutput [{entries(outputs)}]\n{extra}\n"
            + ("" if "instance_group" in extra else "instance_group [{ count: 1 kind: KIND_CPU }]\n")
        )

    def add_arithmetic(self, name: str = "arithmetic") -> Path:
        """SUM = A + B and DIFFERENCE = A - B, FP32, four columns."""
        nodes = [
            helper.make_node("Add", ["A", "B"], ["SUM"]),
            helper.make_node("Sub", ["A", "B"], ["DIFFERENCE"]),
        ]
        column = ("FP32", [4])
        return self.add(name, nodes, {"A": column, "B": column}, {"SUM": column, "DIFFERENCE": column})

    def add_identity(
        self,
        name: str,
        kind: str,
        *,
        rows: int = 8,
        dims: list[int] | None = None,
        ends: tuple[str, str] = ("IN", "OUT"),
        extra: str = "",
    ) -> Path:
        """OUT = IN, of any type and any number of columns; `ends` names them."""
        tensor = (kind, dims or [-1])
        nodes = [helper.make_node("Identity", [ends[0]], [ends[1]])]
        return self.add(name, nodes, {ends[0]: tensor}, {ends[1]: tensor}, rows=rows, extra=extra)

    def add_reshaped(self, name: str = "reshaped") -> Path:
        """OUT = IN, one number a row to the client and a scalar to the graph."""
        nodes = [helper.make_node("Identity", ["IN"], ["OUT"])]
        folder = self.add(name, nodes, {"IN": ("FP32", [])}, {"OUT": ("FP32", [])})
        config = folder / "config.pbtxt"
        config.write_text(config.read_text().replace("dims: []", "dims: [1] reshape { shape: [] }"))
        return folder

    def add_slow(self, name: str = "slow", *, numbers: int = 4_000_000) -> Path:
        """OUT = IN, one number a row, after `numbers` of tanh: many milliseconds a row, and one row a batch."""
        shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1, numbers])
        zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
        axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
        nodes = [
            helper.make_node("Expand", ["IN", "shape"], ["wide"]),
            helper.make_node("Tanh", ["wide"], ["work"]),
            helper.make_node("ReduceMax", ["work", "axes"], ["one"], keepdims=1),
            helper.make_node("Mul", ["one", "zero"], ["nothing"]),
            helper.make_node("Add", ["IN", "nothing"], ["OUT"]),
        ]
        tensor = ("FP32", [1])
        return self.add(name, nodes, {"IN": tensor}, {"OUT": tensor}, rows=1, constants=[shape, zero, axes])

    def add_embedding(self, name: str = "embedding", *, delay_us: int = 0, rows: int = 8) -> Path:
        """VECTORS[n, k, 2] = table[IDS[n, k]], a vocabulary of ten where word i is (i, 10 i)."""
        table = helper.make_tensor("table", TensorProto.FLOAT, [10, 2], [v for i in range(10) for v in (i, 10 * i)])
        nodes = [helper.make_node("Gather", ["table", "IDS"], ["VECTORS"])]
        extra = f"dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }}"
        outputs = {"VECTORS": ("FP32", [-1, 2])}
        return self.add(name, nodes, {"IDS": ("INT64", [-1])}, outputs, constants=[table], extra=extra, rows=rows)


@dataclass(frozen=True, slots=True)
class RunningTriton:
    """A ready server: its address, its launcher, and a way to call the launcher's coroutines."""

    address: TritonAddress
    triton: EmbeddedTriton
    call: Callable[[Any], Any]


class TritonFactory:
    """Starts embedded Tritons on one event loop in a thread and stops them all at the end."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._started: list[EmbeddedTriton] = []

    def call(self, coroutine: Any) -> Any:
        """Run a coroutine on the servers' loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(START_S)

    def __call__(self, repository: ModelRepository | Path, **options: Any) -> RunningTriton:
        path = repository.path if isinstance(repository, ModelRepository) else repository
        triton = EmbeddedTriton(path, **options)
        self._started.append(triton)
        return RunningTriton(self.call(triton.start()), triton, self.call)

    def close(self) -> None:
        """Stop every server, then the loop."""

        async def stop_all() -> None:
            await asyncio.gather(*(triton.stop(grace_s=0.0) for triton in self._started))

        self.call(stop_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
