import pytest

import quantize.task
from export.catalog import MODEL_NAMES, UnknownModelError
from quantize.task import NoTaskError, load_task


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_published_recipe_is_among_the_candidates_of_the_search(name: str) -> None:
    task = load_task(name)
    assert task.recipe in task.candidates.values()


def test_unknown_model_is_an_error() -> None:
    with pytest.raises(UnknownModelError, match="nonsense"):
        load_task("nonsense")


def test_model_without_a_task_is_an_error_that_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize.task, "chosen", tuple)
    with pytest.raises(NoTaskError, match=r"bert: expected quantize/models/bert\.py with a TASK"):
        load_task("bert")
