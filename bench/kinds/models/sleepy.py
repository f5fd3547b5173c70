"""A model of fixed speed: one execution takes as long as its parameter `service_ms` says, whatever its rows."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Answers each request with its own input."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the parameter."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.service_s = float(parameters["service_ms"]["string_value"]) / 1e3

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Take the time of one execution, and answer all."""
        time.sleep(self.service_s)
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", each)]) for each in inputs]
