"""The request bytes of a stream, built once from the model's own metadata."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor, triton_to_np_dtype

from bench.load.stream import Stream

WORDS: Final = (b"fair", b"lane")

# Inside the vocabulary of BERT-style tokenizers, clear of their special tokens.
TOKEN_IDS: Final = (1_000, 20_000)
HALF: Final = 0.5


def infer_request(stream: Stream, model_metadata: Any, *, seed: int, priority: int | None = None) -> bytes:
    """A serialized ModelInferRequest for the stream.

    Args:
        stream: names model, rows, seq and the reach of integers.
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
        request.raw_input_contents.append(_raw(tensor, _values(stream, tensor, shape, random)))
    if priority is not None:
        request.parameters["priority"].uint64_param = priority
    body: bytes = request.SerializeToString()
    return body


def _shape(stream: Stream, tensor: Any) -> list[int]:
    batch, *rest = tensor.shape
    if batch != -1:
        raise ValueError(f"model {stream.model}: input {tensor.name} has shape {list(tensor.shape)}, no batch to fill")
    return [stream.rows, *(stream.seq if size == -1 else size for size in rest)]


def _values(stream: Stream, tensor: Any, shape: list[int], random: np.random.Generator) -> NDArray[Any]:
    dtype = np.float32 if tensor.datatype == "BF16" else triton_to_np_dtype(tensor.datatype)
    if dtype is None:
        raise ValueError(f"input {tensor.name}: no values for dtype {tensor.datatype}")
    if "mask" in tensor.name and dtype is not np.object_:
        return np.ones(shape, dtype)
    if "token_type" in tensor.name and dtype is not np.object_:
        return np.zeros(shape, dtype)
    if np.issubdtype(dtype, np.integer):
        least, end = _range(stream, dtype)
        return random.integers(least, end, size=shape).astype(dtype)
    if dtype is np.object_:
        return random.choice(np.array(WORDS, np.object_), size=shape)
    return random.random(shape).astype(dtype) if np.issubdtype(dtype, np.floating) else random.random(shape) < HALF


def _range(stream: Stream, dtype: Any) -> tuple[int, int]:
    largest = int(np.iinfo(dtype).max)
    if stream.integers_below is not None:
        return 0, min(stream.integers_below, largest)
    # Bytes are pixels, not words.
    return TOKEN_IDS if largest >= TOKEN_IDS[1] else (0, largest)


def _raw(tensor: Any, values: NDArray[Any]) -> bytes:
    if tensor.datatype == "BYTES":
        return bytes(serialize_byte_tensor(values).item())
    if tensor.datatype == "BF16":
        # The first half of an FP32.
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return values.tobytes()
