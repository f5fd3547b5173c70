"""Parameters of answers: whether those of a merged answer are those that each request in it would have got.

A model may give its answers parameters. Whether they are about the model (its variant) or about one request (how many
tokens it had) is not told. So the first merged answer of a model that has some is not split: each request is tried
alone, and compared. Where all have the merged answer's parameters, later ones are handed to every rider.
"""

from typing import Any

Parameters = tuple[dict[str, bytes], ...]


def parameters_of(answer: Any) -> Parameters:
    """The parameters of a `ModelInferResponse` and of each of its outputs, values serialized."""
    return tuple(
        {name: value.SerializeToString() for name, value in each.parameters.items()}
        for each in (answer, *answer.outputs)
    )


class AnswerParameters:
    """What is known of each model's."""

    def __init__(self) -> None:
        self._shared: set[str] = set()

    def expected(self, model: str, answer: Any) -> Parameters | None:
        """What each rider of a merged answer has to get alone before it may be split; None: it may be."""
        if model in self._shared or not (answer.parameters or any(each.parameters for each in answer.outputs)):
            return None
        return parameters_of(answer)

    def got(self, model: str, expected: Parameters, answer: Any) -> bool:
        """Whether a request alone got what was expected; then merged answers are split from now on."""
        if parameters_of(answer) != expected:
            self._shared.discard(model)
            return False
        self._shared.add(model)
        return True
