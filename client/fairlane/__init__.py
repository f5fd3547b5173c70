"""Python SDK of Fairlane, the priority scheduler in front of NVIDIA Triton Inference Server.

    import fairlane

    with fairlane.Client("127.0.0.1:9001", tenant="demo") as client:
        result = client.infer("digits", {"image": image}, priority="interactive", timeout_s=1.0)
        print(result["logits"].argmax(axis=-1))

`fairlane.aio.Client` is the same for asyncio.
"""

from fairlane import aio
from fairlane.client import Client
from fairlane.errors import (
    BackendError,
    Cancelled,
    ClientClosed,
    DeadlineExceeded,
    FairlaneError,
    InvalidRequest,
    MessageTooLarge,
    ModelNotFound,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from fairlane.model import ModelMetadata, TensorSpec
from fairlane.result import InferResult
from fairlane.retry import RetryPolicy
from fairlane.version import __version__

__all__ = [
    "BackendError",
    "Cancelled",
    "Client",
    "ClientClosed",
    "DeadlineExceeded",
    "FairlaneError",
    "InferResult",
    "InvalidRequest",
    "MessageTooLarge",
    "ModelMetadata",
    "ModelNotFound",
    "Overloaded",
    "PermissionDenied",
    "RetryPolicy",
    "TensorSpec",
    "Unauthenticated",
    "Unavailable",
    "__version__",
    "aio",
]
