"""What one generator process records: outcomes and HDR histograms of latency, by the second.

Memory is bounded by the length of a run, not by its requests, and a recording is one JSON file. An unanswered request
is in the latencies with its age at the end, so that a growing queue cannot look good. `bench.load` writes recordings,
and `bench.measuring` reads them.
"""
