"""When figures mean nothing: the generator fell behind, or others kept the machine busy."""

from typing import Final

# A late generator changes nothing about latencies that are 20 times its lateness.
LATENESS_SHARE_BOUND: Final = 0.05
# A generator that could not send this share of its due requests in time did not offer the rate it was asked for.
SENT_SHARE_BOUND: Final = 0.95
# What a quiet machine's own services take, with room; beyond it the figures are of a machine of another size.
OTHERS_CORES_BOUND: Final = 0.2
