"""The simulated world: clients, backends and outages under a virtual clock, around the real core.

Nothing waits and nothing is random but by the seed: what happens is arranged at the clock, in order, and every client
and backend draws from a generator of its own. A record keeps what became of each ticket. `simulate.scenario` builds
worlds; tests do so directly.
"""
