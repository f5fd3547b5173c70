"""What a config.pbtxt leaves out, filled in from the graph, where Triton asks for it (autocompletion).

A graph does not say whether a free first axis is a batch: rows may belong together (points of one cloud, steps of one
series), and requests that are joined there would change each other's answers without a word. So a configuration that
does not say `max_batch_size` keeps 0: the model takes whatever its graph takes, each request whole. (NVIDIA's backend
assumes a batch of up to 4.)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

COMMAND_LINE: Final = Path("/proc/self/cmdline")


def model_path(command_line: Path = COMMAND_LINE) -> str:
    """The model's file. Triton tells a completing process of it on its command line alone, as the first argument."""
    return command_line.read_bytes().split(b"\0")[1].decode()


def completed(
    kind: str, declared: Sequence[Any], nodes: Sequence[Any], types: Mapping[str, str], *, batched: bool
) -> list[dict[str, Any]]:
    """Entries for config.pbtxt's `input` or `output`; none where it has some.

    Args:
        kind: `input` or `output`, for errors.
        declared: the entries that it has.
        nodes: the graph's, each with `name`, `type` and `shape` as onnxruntime tells them.
        types: Triton's name of each of onnxruntime's types.
        batched: whether the first axis is the batch's, and is left out of the dims.

    Raises:
        ValueError: a type that Triton has no name for, or no first axis to leave out.
    """
    if declared:
        return []
    entries: list[dict[str, Any]] = []
    for node in nodes:
        if node.type not in types:
            raise ValueError(f"{kind} {node.name!r} is {node.type}, which Triton cannot pass on")
        dims = [size if isinstance(size, int) else -1 for size in node.shape]
        if batched:
            if not dims:
                raise ValueError(f"{kind} {node.name!r} has no first axis, which max_batch_size over 0 needs")
            dims = dims[1:]
        entry: dict[str, Any] = {"name": node.name, "data_type": types[node.type], "dims": dims}
        if not dims:  # a configuration has no empty dims: one number for each is the same
            entry |= {"dims": [1], "reshape": {"shape": []}}
        entries.append(entry)
    return entries
