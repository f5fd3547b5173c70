"""Load scenarios: Triton directly, Triton's own priorities and Fairlane, run in turn on one machine."""
