"""FP32 graphs before they are quantized: their layers, what lies behind them, and rewrites that INT8 kernels need.

A rewrite here changes no answer beyond rounding, and chooses no precision.
The quantizer calls it; judging asks which layers there are.
"""
