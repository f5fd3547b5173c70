"""ONNX graphs as files: read, checked, written, with weights beside them above 2 GB, and what NVIDIA's container loads.

Nothing here computes an answer, and nothing knows a model repository.
Exporting, proofs of batches and quantize call it.
"""
