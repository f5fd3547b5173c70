"""What the server says of a model: its inputs and outputs."""

from collections.abc import Iterable
from dataclasses import dataclass

from tritonclient.grpc import service_pb2 as pb


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: Its name.
        datatype: Its KServe datatype, for example "FP32".
        shape: Its size along each axis. -1 is any size.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """A model as the server describes it.

    Attributes:
        name: Its name.
        versions: The versions that are served.
        platform: What runs it, in Triton's words, for example "onnxruntime_onnx".
        inputs: Its inputs.
        outputs: Its outputs.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def metadata_of(response: pb.ModelMetadataResponse) -> ModelMetadata:
    """Read the wire form."""
    return ModelMetadata(
        name=response.name,
        versions=tuple(response.versions),
        platform=response.platform,
        inputs=_specs(response.inputs),
        outputs=_specs(response.outputs),
    )


def _specs(tensors: Iterable[pb.ModelMetadataResponse.TensorMetadata]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in tensors)
