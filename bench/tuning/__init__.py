"""Searches by load: the capacity of a model at a p99 objective, and the setting that carries the most.

A trial is one open-loop run at one rate on a server without backlog; capacity is found by bisection over trials, and a
setting by successive halving, with a final that the default takes part in. An invalid trial makes the search invalid,
and nothing is written then. `bench.capacity` and `bench.tune` are its commands.
"""
