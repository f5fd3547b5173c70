"""Results for people: tables for a terminal, plots, an HTML page, and the comparison of two results.

Everything is drawn from one `Result` (or from two of its JSON files), and nothing is measured here. A comparison says
better or worse only beyond the noise of both runs. `bench.cli` calls it; `bench.tuning` takes an axis for its plot.
"""
