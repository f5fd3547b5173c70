"""The scheduler's core under a virtual clock: minutes of traffic in seconds, and one seed gives one run.

`world` has clients, backends and outages around the real core; `scenario` puts them together, `scenarios` has the named
ones, and `reporting` says what became of the tickets. It imports `scheduler.core` and nothing else of the scheduler.
`fairlane simulate`, `python -m simulate.doubt`, `bench.micro` and the tests call it.
"""
