"""The task of a model: its recipe, its calibration, and what it must still be able to do as INT8.

A model with a file in `quantize.models` has the task of that file; any other has what its definition says.
The commands find a task with `task_loading`; judging and the search run it.
"""
