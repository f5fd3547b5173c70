"""Poisson arrivals: reproducible due times for an open-loop stream."""

import zlib

import numpy as np
from numpy.typing import NDArray


def poisson_offsets_s(rate_per_s: float, duration_s: float, *, seed: int, stream: str) -> NDArray[np.float64]:
    """Due times of a Poisson process, in seconds from its start, ascending, all below `duration_s`.

    Gaps between arrivals are exponential with mean 1 / rate. The gaps are drawn in order from a generator
    seeded by (seed, stream name), so a shorter run's arrivals are the beginning of a longer run's.

    Args:
        rate_per_s: mean arrivals per second, above 0.
        duration_s: length of the process in seconds.
        seed: seed of the run.
        stream: name of the stream; streams of one run are independent of each other.

    Returns:
        float64 array of shape [arrivals].
    """
    random = np.random.default_rng([seed, zlib.crc32(stream.encode())])
    chunk = int(rate_per_s * duration_s) + 64
    offsets_s = np.cumsum(random.exponential(1.0 / rate_per_s, size=chunk))
    while offsets_s[-1] < duration_s:
        more_s = offsets_s[-1] + np.cumsum(random.exponential(1.0 / rate_per_s, size=chunk))
        offsets_s = np.concatenate([offsets_s, more_s])
    return offsets_s[offsets_s < duration_s]
