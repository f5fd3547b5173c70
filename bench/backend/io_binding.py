"""What IO binding costs and spares on the CPU: `python -m bench.backend.io_binding`, microseconds a call, medians.

The graph does next to nothing on inputs and outputs of the size of a sentence encoder's (32 tokens, 384 numbers), so
that what is left is the cost of the call. It is why the embedded backend calls `run` as it is.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

CALLS: Final = 2_000
TOKENS: Final = 32
WIDTH: Final = 384


def make_session() -> Any:
    """A session on OUT = a row of zeros for each row of IN, IN [n, TOKENS] and OUT [n, WIDTH]."""
    import onnxruntime as ort  # noqa: PLC0415  (needed only here, and slow to import)
    from onnx import TensorProto, helper  # noqa: PLC0415

    table = helper.make_tensor("table", TensorProto.FLOAT, [1, WIDTH], [0.0] * WIDTH)
    first = helper.make_tensor("first", TensorProto.INT64, [], [0])
    nodes = [
        helper.make_node("Gather", ["IN", "first"], ["ids"], axis=1),
        helper.make_node("Gather", ["table", "ids"], ["OUT"]),
    ]
    tokens = helper.make_tensor_value_info("IN", TensorProto.INT64, ["n", TOKENS])
    out = helper.make_tensor_value_info("OUT", TensorProto.FLOAT, ["n", WIDTH])
    graph = helper.make_graph(nodes, "binding", [tokens], [out], [table, first])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def call_variants(session: Any, rows: int) -> dict[str, Callable[[], Any]]:
    """The ways to run one batch, by name; all return OUT."""
    tokens = np.zeros((rows, TOKENS), np.int64)
    kept, out = session.io_binding(), np.empty((rows, WIDTH), np.float32)

    def bound() -> Any:
        binding = session.io_binding()
        binding.bind_cpu_input("IN", tokens)
        binding.bind_output("OUT", "cpu")
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0].numpy()

    def bound_in_place() -> Any:
        kept.bind_cpu_input("IN", tokens)
        kept.bind_output("OUT", "cpu", 0, np.float32, out.shape, out.ctypes.data)
        session.run_with_iobinding(kept)
        return out

    return {
        "run": lambda: session.run(["OUT"], {"IN": tokens})[0],
        "IO binding": bound,
        "IO binding, output allocated before": bound_in_place,
    }


def call_us(call: Callable[[], Any]) -> float:
    """Median of CALLS calls."""
    spent = []
    for _ in range(CALLS):
        begin_ns = time.perf_counter_ns()
        call()
        spent.append((time.perf_counter_ns() - begin_ns) / 1e3)
    return statistics.median(spent)


def main() -> None:
    """Print the table."""
    session = make_session()
    table = Table("way", "1 row, us", "32 rows, us")
    found = [{name: call_us(call) for name, call in call_variants(session, rows).items()} for rows in (1, 32)]
    for name in found[0]:
        table.add_row(name, *(f"{each[name]:.1f}" for each in found))
    Console().print(table)


if __name__ == "__main__":
    main()
