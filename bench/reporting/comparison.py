"""What changed between two results of one scenario, beyond the noise of both.

The noise of a number is its interval in each run. A number that is not a ratio within its run also carries what the
machine itself changed between the runs: how far Triton's calibrated capacity moved is added to its noise.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from bench.measuring.metric import LESS_IS_BETTER, MORE_IS_BETTER
from bench.scenarios.result import FORMAT

LESS: Final = -1
MORE: Final = 1
COLOURS: Final = {"better": "green", "worse": "red", "same": "dim"}


class CompareError(ValueError):
    """The files are not two results of one scenario."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One metric in two results.

    Attributes:
        metric: its reference.
        before, after: pooled values.
        ratio: after / before.
        low, high: 95 % interval of the ratio, from the intervals of both.
        verdict: `better` or `worse` where the interval does not hold 1, else `same`.
    """

    metric: str
    before: float
    after: float
    ratio: float
    low: float
    high: float
    verdict: str

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def compare_files(before: Path, after: Path) -> list[Change]:
    """The changes of every latency, rate, fairness and cost that both results have.

    Raises:
        CompareError: one is no result, they are of different scenarios, or one was not valid.
    """
    first, second = _read(before), _read(after)
    if first["scenario"] != second["scenario"]:
        raise CompareError(f"{before} is of {first['scenario']!r}, {after} of {second['scenario']!r}")
    changes = [*_claims(first, second), *_metrics(first, second)]
    return [change for change in changes if change is not None]


def comparison_table(changes: list[Change]) -> Table:
    """One row per metric, what changed first."""
    table = Table(title="after / before", title_justify="left", header_style="bold")
    for column in ("metric", "before", "after", "ratio", "95 % interval", ""):
        table.add_column(column, justify="left" if column in ("metric", "") else "right")
    for change in sorted(changes, key=lambda each: (each.verdict == "same", each.metric)):
        table.add_row(
            change.metric,
            f"{change.before:.4g}",
            f"{change.after:.4g}",
            f"{change.ratio:.2f}",
            f"{change.low:.2f}..{change.high:.2f}",
            Text(change.verdict, COLOURS[change.verdict]),
        )
    return table


def _read(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CompareError(f"{path}: not JSON: {error}") from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise CompareError(f"{path}: not a result of `fairlane bench` of format {FORMAT}")
    if not facts["valid"]:
        raise CompareError(f"{path}: the run was not valid: {'; '.join(facts['faults'])}")
    return facts


def _claims(first: dict[str, Any], second: dict[str, Any]) -> Iterator[Change | None]:
    """The quantities of the claims that both have."""
    after = {verdict["name"]: verdict for verdict in second["verdicts"]}
    for before in first["verdicts"]:
        name = before["name"]
        if name in after:
            less = first["definition"]["verdicts"][name]["at_most"] is not None
            yield _change(f"claim {name}", before, after[name], drift=0.0, direction=LESS if less else MORE)


def _metrics(first: dict[str, Any], second: dict[str, Any]) -> Iterator[Change | None]:
    drift = _drift(first["capacity_per_s"], second["capacity_per_s"])
    for name, before in first["metrics"].items():
        if name in second["metrics"]:
            yield _change(name, before, second["metrics"][name], drift=drift, direction=_direction(name))


def _direction(name: str) -> int:
    metric = name.rpartition(".")[2]
    return LESS if metric in LESS_IS_BETTER else MORE if metric in MORE_IS_BETTER else 0


def _drift(first: dict[str, float | None], second: dict[str, float | None]) -> float:
    """How far Triton's capacity moved between the runs, the most of all streams, on a log scale."""
    pairs = [(first[name], second[name]) for name in first if first[name] and second.get(name)]
    return max((abs(math.log(after / before)) for before, after in pairs if before and after), default=0.0)


def _change(name: str, before: dict[str, Any], after: dict[str, Any], *, drift: float, direction: int) -> Change | None:
    numbers = [side[key] for side in (before, after) for key in ("value", "low", "high")]
    if not direction or not all(number and number > 0 for number in numbers):
        return None
    shift = math.log(after["value"] / before["value"])
    # The noise of both adds up in squares, as for independent errors; on a log scale, since a ratio is asked for.
    down = math.hypot(_below(after), _above(before), drift)
    up = math.hypot(_above(after), _below(before), drift)
    low, high = math.exp(shift - down), math.exp(shift + up)
    verdict = "same" if low <= 1 <= high else "better" if (high < 1) == (direction == LESS) else "worse"
    return Change(
        metric=name, before=before["value"], after=after["value"], ratio=math.exp(shift), low=low, high=high,
        verdict=verdict,
    )  # fmt: skip


def _below(side: dict[str, Any]) -> float:
    """Half of an interval on a log scale; the pooled value may lie outside of its bootstrap's by a hair."""
    return max(0.0, math.log(side["value"] / side["low"]))


def _above(side: dict[str, Any]) -> float:
    return max(0.0, math.log(side["high"] / side["value"]))
