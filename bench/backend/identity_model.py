"""What Triton runs as an identity model (`identity.py` here): in its Python stub, nothing of this tree at hand."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Outputs of the declared size, for every request the same."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Make the outputs of the largest batch; a request gets a view of them."""
        config = json.loads(args["model_config"])
        length = int(config["parameters"]["open_axis_length"]["string_value"])
        self.batched = config["max_batch_size"] > 0
        self.outputs = {
            slot["name"]: np.zeros(
                (
                    *([config["max_batch_size"]] if self.batched else []),
                    *(length if int(size) < 0 else int(size) for size in slot["dims"]),
                ),
                pb_utils.triton_string_to_numpy(slot["data_type"]),
            )
            for slot in config["output"]
        }

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        rows = len(request.inputs()[0].as_numpy()) if self.batched else None
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, self.outputs[name][:rows]) for name in request.requested_output_names()]
        )
