"""How far INT8 is from FP32: each slice of each output, intervals of scores, and the limits of the accuracy gate.

Only numbers come in: nothing here reads a graph or runs one.
Tasks state their limits with it; judging and the search apply them.
"""
