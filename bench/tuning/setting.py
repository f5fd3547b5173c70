"""A setting: the three numbers of a model's configuration that `fairlane tune` chooses."""

import itertools
from dataclasses import dataclass, replace
from typing import Any, Final

from export.configuration.model_config import ConfigError

THREADS: Final = "intra_op_thread_count"
# Smaller batches are a matter of latency alone; below a quarter they cost more than they give.
BATCH_PARTS: Final = (1, 2, 4)


@dataclass(frozen=True, order=True)
class Setting:
    """Instances of the model, intra-op threads of each, rows of the largest batch."""

    instances: int
    threads: int
    max_batch_size: int

    def __str__(self) -> str:
        """As in progress and tables."""
        return f"{self.instances} x {self.threads}, batch {self.max_batch_size}"

    @classmethod
    def of(cls, config: Any) -> "Setting":
        """What a ModelConfig message says, with Triton's and the backend's defaults.

        Raises:
            ConfigError: the number of threads is none.
        """
        instances = sum(group.count or 1 for group in config.instance_group) or 1
        threads = config.parameters[THREADS].string_value.strip() if THREADS in config.parameters else ""
        if threads and not threads.isdecimal():
            raise ConfigError(f"{config.name or 'config.pbtxt'}: {THREADS}: expected a whole number, got {threads!r}")
        return cls(instances, int(threads or 1), config.max_batch_size)

    def applied(self, config: Any) -> Any:
        """A copy of a ModelConfig message with this setting.

        The first instance group keeps its kind and devices, and is the only one; a warm-up of the largest batch stays
        one of the largest. Preferred sizes of batches that are larger are left out: Triton loads none with such.
        """
        made = type(config)()
        made.CopyFrom(config)
        if not made.instance_group:
            made.instance_group.add(kind=type(made.instance_group.add()).KIND_AUTO)
        del made.instance_group[1:]
        made.instance_group[0].count = self.instances
        made.parameters[THREADS].string_value = str(self.threads)
        for warm_up in made.model_warmup:
            largest = warm_up.batch_size == config.max_batch_size
            warm_up.batch_size = self.max_batch_size if largest else min(warm_up.batch_size, self.max_batch_size)
        if made.HasField("dynamic_batching"):
            preferred = [size for size in made.dynamic_batching.preferred_batch_size if size <= self.max_batch_size]
            made.dynamic_batching.preferred_batch_size[:] = preferred
        made.max_batch_size = self.max_batch_size
        return made


def candidates(default: Setting, cores: int, rows: int) -> list[Setting]:
    """What is tried: the default first, then instances and threads in powers of two that fit the cores together.

    Batches are never larger than the default's, which is what the export was checked with, nor smaller than a
    request's `rows`.
    """
    powers = [2**power for power in range(cores.bit_length()) if 2**power <= cores]
    pairs = [pair for pair in itertools.product(powers, powers) if pair[0] * pair[1] <= cores]
    batches = [default.max_batch_size // part for part in BATCH_PARTS if default.max_batch_size // part >= rows]
    tried = [
        replace(default, instances=instances, threads=threads, max_batch_size=batch)
        for (instances, threads), batch in itertools.product(pairs, batches)
    ]
    return list(dict.fromkeys([default, *tried]))
