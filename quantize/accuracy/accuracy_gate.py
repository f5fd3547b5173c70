"""The accuracy gate: limits on what quantization may cost. A refusal says by how much a limit was missed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from export.card import Measure
from export.definition.gate import BATCH_COSINE, BATCH_LEAST


class Limit(Protocol):
    """One condition on the scores of the INT8 model."""

    @property
    def score(self) -> str:
        """The score's name."""

    def refusal(self, fp32: Measure, int8: Measure) -> str | None:
        """Why the INT8 model is refused, with the numbers; None where the condition is met."""


@dataclass(frozen=True)
class AtLeast:
    """The INT8 model's score must reach a bound."""

    score: str
    bound: float

    def refusal(self, fp32: Measure, int8: Measure) -> str | None:
        """See `Limit`."""
        del fp32
        got = int8.scores[self.score]
        # Written so that a NaN, which compares false with everything, is refused.
        if got >= self.bound:
            return None
        return f"{self.score}: expected at least {self.bound:.4f}, got {got:.4f}, short by {self.bound - got:.4f}"


@dataclass(frozen=True)
class AtMost:
    """The INT8 model's score must not pass a bound."""

    score: str
    bound: float

    def refusal(self, fp32: Measure, int8: Measure) -> str | None:
        """See `Limit`."""
        del fp32
        got = int8.scores[self.score]
        # As above: a NaN is refused.
        if got <= self.bound:
            return None
        return f"{self.score}: expected at most {self.bound:.4f}, got {got:.4f}, over by {got - self.bound:.4f}"


@dataclass(frozen=True)
class MayFall:
    """The INT8 model's score may be lower than the FP32 model's, but not by more than this."""

    score: str
    by: float

    def refusal(self, fp32: Measure, int8: Measure) -> str | None:
        """See `Limit`."""
        before, after = fp32.scores[self.score], int8.scores[self.score]
        if before - after <= self.by:
            return None
        return (
            f"{self.score}: fell by {before - after:.4f} from {before:.4f} to {after:.4f}, "
            f"expected at most {self.by:.4f}, over by {before - after - self.by:.4f}"
        )


BATCH_LIMIT: Final = AtLeast(BATCH_COSINE, BATCH_LEAST)


def judge(limits: Sequence[Limit], fp32: Measure, int8: Measure) -> tuple[str, ...]:
    """The refusals of all limits; empty where the INT8 model may be served."""
    return tuple(refusal for limit in limits if (refusal := limit.refusal(fp32, int8)) is not None)
