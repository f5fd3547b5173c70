"""The claims of a scenario, each checked against what was measured."""

import math
import operator
from dataclasses import dataclass
from typing import Any

from bench.measuring.estimate import Estimate
from bench.scenarios.scenario import Claim


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """One claim.

    Attributes:
        name: short, stable, used in JSON.
        claim: the sentence that was to hold.
        found: the numbers that decide.
        passed: whether the pooled value is within the bound; a value that does not exist never is.
        clear: whether all of the 95 % interval is on the same side of the bound.
        quantity: what was compared with the bound.
    """

    name: str
    claim: str
    found: str
    passed: bool
    clear: bool
    quantity: Estimate

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON."""
        words = {name: getattr(self, name) for name in ("name", "claim", "found", "passed", "clear")}
        return {**words, **self.quantity.facts()}


def judge(claims: dict[str, Claim], measured: dict[str, Estimate]) -> list[Verdict]:
    """A verdict for each claim, in order."""
    return [_judge(name, claim, measured) for name, claim in claims.items()]


def quantity(claim: Claim, measured: dict[str, Estimate]) -> Estimate:
    """What the claim is about: the metric, or its ratio to or difference from another."""
    value = measured[claim.value]
    if claim.over is not None:
        return value.combine(measured[claim.over], operator.truediv)
    if claim.minus is not None:
        return value.combine(measured[claim.minus], operator.sub)
    return value


def _judge(name: str, claim: Claim, measured: dict[str, Estimate]) -> Verdict:
    found = quantity(claim, measured)
    passed = _holds(claim, found.value)
    return Verdict(
        name=name,
        claim=claim.claim,
        found=_found(claim, found, measured),
        passed=passed,
        clear=all(_holds(claim, end) == passed for end in found.interval),
        quantity=found,
    )


def _holds(claim: Claim, value: float) -> bool:
    if not math.isfinite(value):
        return False
    return value <= claim.at_most if claim.at_most is not None else value >= (claim.at_least or 0.0)


def _found(claim: Claim, found: Estimate, measured: dict[str, Estimate]) -> str:
    terms = [_number(measured[reference].value) for reference in claim.references]
    sign = " / " if claim.over is not None else " - "
    left = f"{sign.join(terms)} = " if len(terms) > 1 else ""
    text = f"{left}{_number(found.value)}"
    low, high = found.interval
    if low != high:
        text += f" [{_number(low)}, {_number(high)}]"
    if len(found.rounds) > 1:
        text += f", rounds {' '.join(_number(each) for each in found.rounds)}"
    return text


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "none"
    if value == round(value) or abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
