"""From an FP32 graph and a recipe to an INT8 graph: calibration, ranges of activations, and the kernels of each recipe.

A recipe is data, and the same recipe and inputs make the same graph.
Judging and the search call `quantizer`; nothing here decides whether its result is good enough.
"""
