"""From a definition to one trusted ONNX graph: trace, convert what Triton or its container does not take, write.

A graph is changed only where no answer changes, and the change is checked.
`fairlane export` calls the exporter; the catalog asks `tensor_conversion` of ONNX files that come without a definition.
"""
