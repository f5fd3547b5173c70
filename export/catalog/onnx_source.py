"""A definition made from an ONNX file alone: its graph says what goes in and what comes out."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from export.batch_proof.proof import unbatched
from export.card import Source
from export.checksum import sha256_of
from export.configuration.warm_up import WarmUpError
from export.definition import Definition
from export.definition.serving import Serving
from export.definition.tensor import BATCH, NUMPY_TYPES, Feed, Tensor
from export.errors import ExportError
from export.exporting.tensor_conversion import reshape_ends
from export.graph.onnx_graph import GraphError, declared_tensors, read_graph

# Sizes of a varying axis in the feeds that the graph is tried with: no example data come with an ONNX file.
SIZES: Final = (1, 2, 16)


def define_onnx(path: Path) -> Definition:
    """The definition of the model in an ONNX file, named like the file.

    Where the first axis of every input and output varies, it may be a batch: the exporter finds out
    (`export.batch_proof.proof`).

    Raises:
        GraphError: the file is no ONNX file, or has tensors that Triton cannot serve. Names the file.
    """
    model = read_graph(path, weights=False)
    try:
        labels = reshape_ends(model).labels
        return _definition(path, *declared_tensors(model), labels)
    except ExportError as error:
        raise GraphError(f"{path}: {error}") from error


@contextmanager
def sizes_told(typed: str) -> Iterator[None]:
    """Say of what ends the export of an ONNX file alone that it may need other sizes than it was tried with."""
    # Imported late: torch takes seconds, and whoever exports has imported it.
    from export.inference.parity import ParityError  # noqa: PLC0415

    try:
        yield
    except (ParityError, WarmUpError) as error:
        if not typed.endswith(".onnx"):
            raise
        sizes = ", ".join(map(str, SIZES))
        raise type(error)(
            f"{error}. An ONNX file alone is tried with zeros, and {sizes} for each axis that varies. Does it need "
            "other inputs? Then write a definition (`fairlane export new NAME`) with this file as `onnx_file` and "
            "`samples` of your own"
        ) from error


def _definition(
    path: Path, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], labels: Mapping[str, tuple[str, ...]]
) -> Definition:
    if all(tensor.dims and isinstance(tensor.dims[0], str) for tensor in (*inputs, *outputs)):
        inputs, outputs = tuple(map(_batched, inputs)), tuple(map(_batched, outputs))
    else:
        inputs, outputs = tuple(map(unbatched, inputs)), tuple(map(unbatched, outputs))
    # What a graph does not name alike may still have to be alike: only the sizes that are the same for all are tried.
    return Definition(
        name=path.stem,
        summary=f"{path.name}, an ONNX file.",
        inputs=inputs,
        outputs=outputs,
        source=lambda: Source(package="", version="", file=path.name, sha256=sha256_of(path), licence="not stated"),
        samples=lambda: _zeros(inputs),
        onnx_file=path,
        serving=Serving(labels={name: names for name, names in labels.items() if all(map(_is_line, names))}),
        from_graph=True,
    )


def _is_line(label: str) -> bool:
    return len(label.splitlines()) == 1


def _batched(tensor: Tensor) -> Tensor:
    return Tensor(tensor.name, tensor.datatype, (BATCH, *unbatched(tensor).dims[1:]))


def _zeros(inputs: tuple[Tensor, ...]) -> Iterator[Feed]:
    """Zeros: valid token ids, masks and pixels alike. Zero words are empty."""
    for size in SIZES:
        feed = {}
        for tensor in inputs:
            shape = [size if isinstance(one, str) else one for one in tensor.dims]
            dtype = np.dtype(NUMPY_TYPES[tensor.datatype])
            feed[tensor.name] = np.full(shape, "", dtype) if tensor.datatype == "STRING" else np.zeros(shape, dtype)
        yield feed
