"""A model that takes any number of requests at a time, each in a thread of its own, and answers in parts.

A request takes as long as its parameter `service_ms` says, and has `responses` responses in that time.
"""

import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Answers each request with its own input, once or many times."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the parameters."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.service_s = float(parameters["service_ms"]["string_value"]) / 1e3
        self.responses = int(parameters["responses"]["string_value"])

    def execute(self, requests: Sequence[Any]) -> None:
        """Start a thread for each request."""
        for request in requests:
            value = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            threading.Thread(target=self._answer, args=(request.get_response_sender(), value)).start()

    def _answer(self, sender: Any, value: Any) -> None:
        for number in range(self.responses):
            time.sleep(self.service_s / self.responses)
            last = number == self.responses - 1
            answer = pb_utils.InferenceResponse([pb_utils.Tensor("OUT", value)])
            sender.send(answer, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0)
