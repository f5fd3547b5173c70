"""What a request costs by what the operator says that its time depends on: an input's size, or a parameter."""

import logging
import math
from typing import Any, Final

from scheduler.config import Config
from scheduler.config.config import PARAMETERS, SIZE
from scheduler.triton.spec import ModelSpec

log = logging.getLogger(__name__)

NUMBERS: Final = frozenset({"int64_param", "uint64_param", "double_param"})
# Sums of costs and their products with times stay exact in floating point.
MOST: Final = 2**40


class Costs:
    """The costs of requests, by model.

    Args:
        config: what each model's cost is.
    """

    def __init__(self, config: Config) -> None:
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Go on with these settings."""
        self._config = config
        # Models whose input of that name was looked for in vain.
        self._warned: set[str] = set()

    def of(self, request: Any, spec: ModelSpec) -> int | None:
        """The cost of a `ModelInferRequest`, from 1 to MOST; None where nothing is said of its model, or it has none.

        An input's size is the number of its elements over all rows, as the request says; a parameter counts as a
        whole number.
        """
        said = self._config.cost(spec.name)
        if said is None:
            return None
        if said.startswith(PARAMETERS):
            value = _parameter(request, said.removeprefix(PARAMETERS))
        else:
            value = self._size(request, spec, said.removesuffix(SIZE))
        return min(int(value), MOST) if value >= 1 else None

    def _size(self, request: Any, spec: ModelSpec, name: str) -> float:
        if name not in spec.inputs and spec.name not in self._warned:
            self._warned.add(spec.name)
            log.warning(
                "models.%s.cost: expected one of its inputs %s, got %s; no cost is told",
                *(spec.name, ", ".join(spec.inputs), name),
            )
        for tensor in request.inputs:
            if tensor.name == name:
                return float(math.prod(tensor.shape))
        return 0.0


def _parameter(request: Any, name: str) -> float:
    """A parameter's number; 0 where there is none. One that is no number of this world is the model's business."""
    if name not in request.parameters:
        return 0.0
    kind = request.parameters[name].WhichOneof("parameter_choice")
    value = float(getattr(request.parameters[name], kind)) if kind in NUMBERS else 0.0
    return value if math.isfinite(value) else 0.0
