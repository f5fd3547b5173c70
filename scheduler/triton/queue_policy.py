"""The queue policies of a model's `dynamic_batching`, and which of its settings stand in the way of a scheduler."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from scheduler.core.ticket import QueuePolicy

MICROSECONDS: Final = 1e-6


@dataclass(frozen=True, slots=True)
class QueuePolicies:
    """What a model's configuration says of the requests that wait for it.

    Attributes:
        levels: priority levels; 0: it has none.
        default_level: of a request that names none, or one that there is not.
        by_level: the policies of levels that have one; where it has no levels, that of level 0.
    """

    levels: int = 0
    default_level: int = 0
    by_level: Mapping[int, QueuePolicy] = field(default_factory=dict)

    def level_of(self, priority: int) -> int:
        """The level of a request with this `priority`, 0 where it names none, as in Triton."""
        return priority if 1 <= priority <= self.levels else self.default_level

    def policy_of(self, priority: int) -> QueuePolicy | None:
        """The policy for a request with this `priority`; None: it may wait as long, and beside as many, as it likes."""
        return self.by_level.get(self.level_of(priority))


NO_POLICIES: Final = QueuePolicies()


def queue_policies(config: Any) -> QueuePolicies:
    """Read them from an `inference.ModelConfig`."""
    if config.WhichOneof("scheduling_choice") != "dynamic_batching":
        return NO_POLICIES
    batching = config.dynamic_batching
    levels = batching.priority_levels
    by_level = {}
    for level in range(1, levels + 1) if levels else (0,):
        own = level in batching.priority_queue_policy
        policy = batching.priority_queue_policy[level] if own else batching.default_queue_policy
        if policy.max_queue_size or policy.default_timeout_microseconds:
            by_level[level] = QueuePolicy(
                level,
                policy.max_queue_size or None,
                policy.default_timeout_microseconds * MICROSECONDS or None,
                delays=policy.timeout_action == policy.DELAY,
            )
    return QueuePolicies(levels, batching.default_priority_level, by_level)


def hindrances(config: Any) -> tuple[str, ...]:
    """Settings of an `inference.ModelConfig` that cost time behind a scheduler, and what to do about each."""
    if config.WhichOneof("scheduling_choice") != "dynamic_batching":
        return ()
    batching, found = config.dynamic_batching, []
    if batching.max_queue_delay_microseconds:
        found.append(
            f"max_queue_delay_microseconds: {batching.max_queue_delay_microseconds}: Triton waits so long for more "
            "requests, which Fairlane has put together already; leave it out"
        )
    if batching.preserve_ordering:
        found.append("preserve_ordering: answers wait for those of older requests; leave it out")
    if batching.priority_levels:
        found.append(
            f"priority_levels: {batching.priority_levels}: they count here, as classes; in Triton they keep it from "
            "preparing the next batch while one runs; leave them out, and have clients name a class"
        )
    elif queue_policies(config).by_level:
        found.append(
            "default_queue_policy: it holds here; in Triton it keeps the next batch from being prepared while one "
            "runs; leave it out, and bound classes by `classes[].max_queued` and requests by deadlines"
        )
    return tuple(found)
