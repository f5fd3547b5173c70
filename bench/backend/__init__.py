"""`fairlane bench backend`: a model in Triton with the embedded backend against a bare ONNX Runtime loop.

Both run the same batches in turn, on processes just started, with the CPUs divided as `fairlane serve` divides them; an
identity model tells what Triton itself costs. `io_binding` is a measurement of its own (`python -m
bench.backend.io_binding`): why the backend calls `run` as it is. `bench.cli` and nothing else calls this folder.
"""
