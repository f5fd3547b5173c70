"""Graphs run in ONNX Runtime, and their answers compared: with PyTorch's (parity), and row by row (cosine).

A session is typed and runs on the device that was asked for; a failure is an error in one line.
Exporting, proofs of batches, warm-ups and quantize call it.
"""
