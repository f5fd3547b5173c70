"""Texts to calibrate and to judge with: sentences of this project, and prose that comes with Python.

No text is used both to calibrate and to judge.
`quantize.models` calls it.
"""
