from pathlib import Path

import pytest

from export.catalog.catalog import MODEL_NAMES, UnknownModelError
from quantize.tasks.task_loading import load_task


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_published_recipe_is_among_the_candidates_of_the_search(name: str, tmp_path: Path) -> None:
    task = load_task(name, tmp_path)
    assert task.recipe in task.candidates.values()


def test_unknown_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="nonsense"):
        load_task("nonsense", tmp_path)
