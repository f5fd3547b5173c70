"""`python -m bench.micro`: what the core costs, without Triton and without a network.

It prints CPU a ticket, bytes a queued ticket, the time of a million simulated tickets, and a profile by function. It is
the one folder here that imports the core and the simulation, and no other part of the load tests but
`bench.measuring.machine`. `make bench-micro` calls it.
"""
