"""`fairlane bench kinds`: every kind of request that Triton serves, directly and through Fairlane, in one run.

A kind is a way to serve a model (batched, ragged, a sequence, an ensemble, a stream) with a model of a known speed, so
that the rate to expect is known, too. Each is measured on one server in turn: the rate at Triton, through Fairlane in
two classes, and a person's p99 alone and during a flood. `bench.cli` calls it.
"""
