"""How Triton serves a model: the settings that the author of a definition chooses, such as `max_batch_size`."""

from collections.abc import Mapping, Sequence
from dataclasses import field

from pydantic.dataclasses import dataclass

from export.definition.tensor import CHECKED
from export.errors import DefinitionError


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Serving:
    """How Triton serves the model: what goes to its config.pbtxt.

    Args:
        max_batch_size: rows of the largest batch; without effect on a model that has no batch axis.
        instances: execution slots.
        threads: intra-op threads of an instance.
        warm_up: for each varying axis but the batch, the size that it has in the warm-up, by default that of the first
            sample; None: no warm-up. Warm-up inputs are zeros.
        labels: for an output of class scores, the name of each class. Triton's classification extension gives them.
        batch_invariant: whether a row's answer does not depend on what else is in the batch, which is tried on the
            samples when the model is exported; the scheduler then merges requests of different tenants.
    """

    max_batch_size: int = 32
    instances: int = 1
    threads: int = 1
    warm_up: Mapping[str, int] | None = field(default_factory=dict)
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    batch_invariant: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that Triton would."""
        for name in ("max_batch_size", "instances", "threads"):
            if getattr(self, name) < 1:
                raise DefinitionError(f"serving.{name}: expected 1 or more, got {getattr(self, name)}")
