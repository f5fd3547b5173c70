"""Whether rows of several requests may share a batch: proved by running rows alone and among others.

A free first axis is no batch because it is free: what is not proved is served whole, with `max_batch_size: 0`.
The exporter calls it, and quantize holds INT8 to the same rows.
"""
