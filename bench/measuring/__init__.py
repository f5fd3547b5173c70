"""From recordings and counters to figures: metrics, each with a confidence interval over the rounds.

A metric is written once and computed with any weights: pooled, of one round, or resampled by the bootstrap. Beside the
requests stand the machine, the CPU that other processes took, the memory of the process between client and Triton, and
Triton's own batch statistics; `validity` bounds when figures mean anything. Scenarios, reports and tuning call it.
"""
