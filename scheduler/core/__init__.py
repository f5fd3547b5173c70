"""The scheduler's decisions, sans-I/O: time is an argument, effects are events that the caller pulls.

Standard library only, and none of its clocks, chance or threads (import-linter holds this), so the
same code runs under asyncio in production and under a virtual clock in tests/sim.
"""
