"""The gRPC service that Triton and Fairlane speak: the KServe v2 protocol."""

from typing import Final

SERVICE: Final = "/inference.GRPCInferenceService"
