"""What an inference gives back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class InferResult:
    """The answer to one inference request; `result["logits"]` is an array.

    Attributes:
        model: name of the model that answered.
        version: its version, as the server says it.
        request_id: the id the server echoed; None where neither side named one.
        outputs: every output by name, read-only arrays of the output's shape. BYTES are object arrays of `bytes`, BF16
            is `ml_dtypes.bfloat16`, everything else has the dtype of its name.
        attempts: how often the request was sent, 1 where nothing had to be retried.
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
