"""Load scenarios: their YAML files, how they are run, and what is claimed of the outcome.

A scenario names streams, phases, targets and claims; the runner visits every target in short rounds whose order
rotates, so that a drift of the machine hits all alike. A result is one record with metrics and verdicts, and says
itself whether it is valid. `bench.cli` runs scenarios, and `bench.reporting` shows results.
"""
