"""What the tickets of one client look like."""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Load:
    """Tickets of one kind.

    Attributes:
        priority_class: name of a configured class.
        tenant: who asks.
        model: name of a model.
        rows: size of the batch dimension.
        merge_key: tickets with the same key may ride together; None rides alone.
        patience_s: the deadline after arrival, in seconds; None waits as long as it takes.
        patience_spread_s: up to so many seconds more, evenly spread.
        queue_bytes: bytes of tensors of one ticket.
        join_key: the backend itself runs tickets with the same key as one; None: it does not.
    """

    priority_class: str = "interactive"
    tenant: str = "acme"
    model: str = "m"
    rows: int = 1
    merge_key: str | None = "k"
    patience_s: float | None = None
    patience_spread_s: float = 0.0
    queue_bytes: int = 0
    join_key: str | None = None

    def deadline(self, chance: Random, *, now: float) -> float | None:
        """The deadline of a ticket that arrives now, in seconds of the world's clock."""
        if self.patience_s is None:
            return None
        spread_s = self.patience_spread_s * chance.random() if self.patience_spread_s else 0.0
        return now + self.patience_s + spread_s
