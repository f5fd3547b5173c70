"""FP32 ONNX to INT8: recipes as data, one quantizer, one task file per model in `quantize.models`, one accuracy gate.

No range is taken from a batch: ranges are fixed by calibration or belong to one token, as a server that merges
requests would otherwise let one tenant's words change another tenant's answer. The gate measures that, and accuracy
on samples that neither calibration nor the choice of the recipe has seen. A model that it refuses is served as FP32.
`fairlane quantize` is the command, `--search` compares recipes; what it publishes, Triton serves.
"""
