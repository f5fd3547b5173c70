"""`fairlane bench backend`: the embedded backend against a bare ONNX Runtime loop."""
