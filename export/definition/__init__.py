"""What a person says of a model: its tensors, its samples, how it is served, and the gates that INT8 must pass.

Everything here is data that is checked when it is made, and knows no graph, runtime or repository.
Users' definition files import from this package by name; every other room reads what they say.
"""

from export.definition.definition import Definition, Predict
from export.definition.gate import Gate, Scores
from export.definition.serving import Serving
from export.definition.tensor import Array, Feed, FloatArray, Tensor

__all__ = ["Array", "Definition", "Feed", "FloatArray", "Gate", "Predict", "Scores", "Serving", "Tensor"]
