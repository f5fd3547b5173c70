"""The model repository that Triton serves: its versions, which is served, and how a change reaches a running server.

A version appears whole, by one rename, under a number that never means two contents; one change at a time.
The commands export, quantize, models and tune call it.
"""
