"""PyTorch to ONNX: one definition file per model in `export.models`, one exporter, one proof.

An export is written to `build/models/NAME/` only after its graph was checked, loaded in ONNX Runtime
and compared with PyTorch on real inputs. `fairlane export` is the command; `quantize` reads the result.
Users' definition files import from `export.definition`, `export.card` and `export.checksum`: these names stay.
"""
