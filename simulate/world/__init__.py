"""The simulated world: clients, backends and outages under a virtual clock, around the real core."""
