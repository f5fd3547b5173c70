"""The load generator: when requests are due, what they hold, and the processes that send them.

A stream is open loop (arrivals never wait for answers) or closed loop (a number always outstanding), and has a process
of its own, so that answers to a flood do not delay the clock of another stream. A latency counts from the moment a
request was due, never from when it was sent. `bench.scenarios` and `bench.tuning` hand it jobs and read recordings.
"""
