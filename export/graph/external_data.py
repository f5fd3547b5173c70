"""External data: the weights of a large graph in a file of their own. No message of protobuf is larger than 2 GB.

The file has one name wherever it lies. So a graph that is copied with it, or renamed beside it, still finds it.
"""

from pathlib import Path
from typing import Final

WEIGHTS_FILE: Final = "weights.bin"


def weights_beside(graph: Path) -> Path | None:
    """The weights of a graph that lie in a file of their own; None where they are in the graph."""
    weights = graph.with_name(WEIGHTS_FILE)
    return weights if weights.is_file() else None


def graph_bytes(graph: Path) -> int:
    """The size of a graph on disk, with its weights."""
    weights = weights_beside(graph)
    return graph.stat().st_size + (weights.stat().st_size if weights else 0)
