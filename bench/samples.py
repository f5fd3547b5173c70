"""What a generator measured: one entry per request, in columns; written and read as npz."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.outcome import Outcome

NEVER = float("nan")


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Times are seconds from the start of the run; columns have shape [requests] and lie in order of due time.

    Attributes:
        due_s: when the request had to be sent (in a closed loop: when it was sent).
        sent_s: when it was sent; NaN where it was not.
        done_s: when the answer came; NaN where none did.
        outcome: uint8 values of `Outcome`.
        pushback: whether a refusal told when to come again.
        duration_s: length of the run, without the grace.
        end_s: when the generator stopped waiting: the moment at which unanswered requests are censored.
        cpu_s: CPU time of the generator process over the run, all its threads.
        errors: how often each gRPC code other than OK came, by name.
        first_error: code and message of the first ERROR, or "".
    """

    due_s: NDArray[np.float64]
    sent_s: NDArray[np.float64]
    done_s: NDArray[np.float64]
    outcome: NDArray[np.uint8]
    pushback: NDArray[np.bool_]
    duration_s: float
    end_s: float
    cpu_s: float
    errors: dict[str, int]
    first_error: str

    @property
    def latency_ms(self) -> NDArray[np.float64]:
        """From the due time to the answer; where no answer came, the age at the end (a lower bound)."""
        return (np.where(np.isnan(self.done_s), self.end_s, self.done_s) - self.due_s) * 1e3

    @property
    def lateness_ms(self) -> NDArray[np.float64]:
        """How long after its due time each request was sent; for one never sent, its age at the end."""
        return (np.where(np.isnan(self.sent_s), self.end_s, self.sent_s) - self.due_s) * 1e3

    def count(self, outcome: Outcome) -> int:
        """Requests that ended so."""
        return int(np.count_nonzero(self.outcome == outcome))

    def save(self, path: Path) -> None:
        """Write the columns and the facts of the run to an npz file."""
        facts = {
            "duration_s": self.duration_s,
            "end_s": self.end_s,
            "cpu_s": self.cpu_s,
            "errors": self.errors,
            "first_error": self.first_error,
        }
        columns = {name: getattr(self, name) for name in ("due_s", "sent_s", "done_s", "outcome", "pushback")}
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, allow_pickle=False, facts=np.array(json.dumps(facts)), **columns)

    @classmethod
    def load(cls, path: Path) -> "Samples":
        """Read what `save` wrote."""
        with np.load(path) as file:
            columns = {name: file[name] for name in ("due_s", "sent_s", "done_s", "outcome", "pushback")}
            return cls(**columns, **json.loads(str(file["facts"])))


@dataclass
class Recorder:
    """The columns while they grow. Times are seconds from the start of the run."""

    due_s: list[float] = field(default_factory=list)
    sent_s: list[float] = field(default_factory=list)
    done_s: list[float] = field(default_factory=list)
    outcome: list[Outcome] = field(default_factory=list)
    pushback: list[bool] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    first_error: str = ""

    def arrive(self, due_s: float) -> int:
        """Book an arrival as unsent; returns its index."""
        self.due_s.append(due_s)
        self.sent_s.append(NEVER)
        self.done_s.append(NEVER)
        self.outcome.append(Outcome.UNSENT)
        self.pushback.append(False)
        return len(self.due_s) - 1

    def send(self, index: int, now_s: float) -> None:
        """It was sent, and is unanswered until `finish`."""
        self.sent_s[index] = now_s
        self.outcome[index] = Outcome.UNANSWERED

    def finish(self, index: int, now_s: float, outcome: Outcome, *, pushback: bool = False) -> None:
        """Its answer came."""
        self.done_s[index] = now_s
        self.outcome[index] = outcome
        self.pushback[index] = pushback

    def freeze(self, *, duration_s: float, end_s: float, cpu_s: float) -> Samples:
        """The columns as they stand now; what is unanswered stays so."""
        return Samples(
            due_s=np.array(self.due_s, np.float64),
            sent_s=np.array(self.sent_s, np.float64),
            done_s=np.array(self.done_s, np.float64),
            outcome=np.array(self.outcome, np.uint8),
            pushback=np.array(self.pushback, np.bool_),
            duration_s=duration_s,
            end_s=end_s,
            cpu_s=cpu_s,
            errors=dict(self.errors),
            first_error=self.first_error,
        )
