"""The request bytes of a stream, built once from the model's own metadata."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from bench.stream import Stream

DTYPES: Final = {"INT64": np.int64, "INT32": np.int32, "FP32": np.float32, "FP64": np.float64}

# Inside the vocabulary of BERT-style tokenizers, clear of their special tokens.
TOKEN_IDS: Final = (1_000, 20_000)


def infer_request(stream: Stream, model_metadata: Any, *, seed: int, priority: int | None = None) -> bytes:
    """A serialized ModelInferRequest for the stream.

    Args:
        stream: names model, rows and seq.
        model_metadata: the server's ModelMetadataResponse. Its first dimension is the batch (-1) and becomes
            `rows`; any other open dimension becomes `seq`.
        seed: seed of the values.
        priority: Triton's own level, 1 the most important.

    Raises:
        ValueError: the model takes no batch, or a dtype this generator cannot make.
    """
    request = service_pb2.ModelInferRequest(model_name=stream.model)
    random = np.random.default_rng(seed)
    for tensor in model_metadata.inputs:
        shape = _shape(stream, tensor)
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=shape)
        request.raw_input_contents.append(_values(tensor, shape, random).tobytes())
    if priority is not None:
        request.parameters["priority"].uint64_param = priority
    body: bytes = request.SerializeToString()
    return body


def _shape(stream: Stream, tensor: Any) -> list[int]:
    batch, *rest = tensor.shape
    if batch != -1:
        raise ValueError(f"model {stream.model}: input {tensor.name} has shape {list(tensor.shape)}, no batch to fill")
    return [stream.rows, *(stream.seq if size == -1 else size for size in rest)]


def _values(tensor: Any, shape: list[int], random: np.random.Generator) -> NDArray[Any]:
    if tensor.datatype not in DTYPES:
        raise ValueError(f"input {tensor.name}: no values for dtype {tensor.datatype}, only {', '.join(DTYPES)}")
    dtype = DTYPES[tensor.datatype]
    if "mask" in tensor.name:
        return np.ones(shape, dtype)
    if "token_type" in tensor.name:
        return np.zeros(shape, dtype)
    if np.issubdtype(dtype, np.integer):
        return random.integers(*TOKEN_IDS, size=shape).astype(dtype)
    return random.random(shape).astype(dtype)
