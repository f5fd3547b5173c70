"""What an inference gives back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class InferResult:
    """The answer to one inference request.

        logits = client.infer("digits", {"image": image})["logits"]  # float32 [batch, 10]

    Attributes:
        model: Name of the model that answered.
        version: Its version, as the server says it.
        request_id: The id that the server echoed. None if neither side named one.
        outputs: Every output by name, as a read-only array of the output's shape. BYTES are object arrays of `bytes`.
            BF16 is `ml_dtypes.bfloat16`. All others have the dtype of their name.
        attempts: How often the request was sent. 1 if nothing was retried.
    """

    model: str
    version: str
    request_id: str | None
    outputs: Mapping[str, npt.NDArray[Any]]
    attempts: int

    def __getitem__(self, output: str) -> npt.NDArray[Any]:
        """Return one output.

        Raises:
            KeyError: if the model gave no output of that name; the message names those it gave.
        """
        if output not in self.outputs:
            raise KeyError(f"model {self.model!r} gave no output {output!r}; it gave {sorted(self.outputs)}")
        return self.outputs[output]
