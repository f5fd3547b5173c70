"""Whether INT8 or FP32 is to be served: both forms on the same inputs, scores, latency, and the verdict.

Every output is held to FP32's slice by slice, whatever the definition asks for besides.
`fairlane quantize` and the search call it.
"""
