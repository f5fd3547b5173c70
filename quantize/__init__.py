"""FP32 ONNX to INT8: one recipe file per model in `quantize.models`, one quantizer, one accuracy gate.

Ranges are fixed by calibration, never taken from the request: a server that merges requests would otherwise
let one tenant's words change another tenant's answer. A model that the gate refuses is served as FP32.
`fairlane quantize` is the command; what it publishes, Triton serves.
"""
