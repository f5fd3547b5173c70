"""A world for the scheduler's core under a virtual clock: clients, backends, outages, and named scenarios."""
