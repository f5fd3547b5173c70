"""The Fairlane service: a gRPC scheduler in front of NVIDIA Triton Inference Server."""
