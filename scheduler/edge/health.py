"""What `/readyz` answers: whether inference is possible, and which models are missing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

# Orchestrators keep the answer in their events; a page and a log tell all of it.
SHOWN_MODELS: Final = 20
SHOWN_WHY: Final = 300


@dataclass(frozen=True, slots=True)
class Health:
    """Readiness in words.

    Attributes:
        ready: whether inference is possible now.
        unserved: the models that a backend has and could not load, by name, and why.
        may_monitor: whether who shows these credentials may see what is told of all tenants.
    """

    ready: Callable[[], bool]
    unserved: Callable[[], Mapping[str, str]]
    may_monitor: Callable[[Mapping[str, str]], bool]

    def told(self, credentials: Mapping[str, str]) -> str:
        """`ready` or `not ready`, and a line for each model that is missing; their number alone for strangers."""
        lines = ["ready" if self.ready() else "not ready"]
        missing = self.unserved()
        if missing and self.may_monitor(credentials):
            shown = list(missing.items())[:SHOWN_MODELS]
            lines += [f"model {name} is not served: {why[:SHOWN_WHY]}" for name, why in shown]
            if len(missing) > len(shown):
                lines.append(f"and {len(missing) - len(shown)} more")
        elif missing:
            lines.append(f"models that are not served: {len(missing)}")
        return "".join(f"{line}\n" for line in lines)
