"""Coverage-guided fuzzing of what is read from strangers: `make fuzz` (atheris, libFuzzer's engine).

Any bytes as a message: parsed, classified, checked, merged with itself and split; only the documented errors come out.
The properties (test_hostile.py) make requests that are nearly right; this looks for the branches between. It starts
with requests that are right, and takes libFuzzer's options: `python -m tests.edge.fuzz CORPUS -max_total_time=60`.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["scheduler.edge", "scheduler.triton", "scheduler.errors"]):
    from google.protobuf.message import DecodeError
    from tritonclient.grpc import service_pb2

    from scheduler.edge.shape import Shapes
    from scheduler.errors import RequestError
    from scheduler.triton.merge import SplitError, merge, merge_key, split
    from tests.edge.test_hostile import CLASSIFIER, SPEC

SHAPES = Shapes()
HEADERS = ("x-priority", "x-tenant-id", "x-request-id", "x-llm-d-inference-objective", "authorization")


def one(data: bytes) -> None:
    """A header's number and length, the header's value, and the message."""
    if len(data) < 2:
        return
    value, body = data[2 : 2 + data[1]], data[2 + data[1] :]
    try:
        request = service_pb2.ModelInferRequest.FromString(body)
    except DecodeError:
        return
    try:
        CLASSIFIER.classify(request, {HEADERS[data[0] % len(HEADERS)]: value.decode("latin-1")}, None, dict)
        found = SHAPES.of(request, SPEC, request.ByteSize())
    except RequestError as refused:
        if not str(refused):
            raise AssertionError("a refusal without a word") from refused
        return
    if merge_key(request, SPEC) is not None:
        rows = found.rows
        merged = merge([request, request], [rows, rows])
        response = service_pb2.ModelInferResponse(model_name="m")
        for tensor in merged.inputs:
            response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        response.raw_output_contents.extend(merged.raw_input_contents)
        try:
            parts = split(response, [request, request], [rows, rows])
        except SplitError:
            assert "BYTES" in {tensor.datatype for tensor in merged.inputs}
            return
        assert all(list(part.raw_output_contents) == list(request.raw_input_contents) for part in parts)


def seeds() -> list[bytes]:
    """Requests that are right, with and without strings, and with a class in a header."""
    found = []
    for rows in (1, 3):
        request = service_pb2.ModelInferRequest(model_name="m", id="x")
        request.inputs.add(name="A", datatype="INT32", shape=[rows, 2])
        request.raw_input_contents.append(bytes(8 * rows))
        found.append(b"\0\x0abackground" + request.SerializeToString())
        request.inputs.add(name="S", datatype="BYTES", shape=[rows, 1])
        request.raw_input_contents.append(b"\1\0\0\0s" * rows)
        request.outputs.add(name="OUT")
        request.parameters["priority"].int64_param = 2
        found.append(b"\2\0" + request.SerializeToString())
    return found


if __name__ == "__main__":
    for number, seed in enumerate(seeds()):
        Path(sys.argv[1], f"seed{number}").write_bytes(seed)
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
