"""The best recipe of a model: every candidate side by side, and which layers cost the accuracy.

A recipe is chosen on other samples than those it is judged on.
`fairlane quantize --search` and `--budget-mb` call it, and the report draws what it found.
"""
