"""English sentences to calibrate and to judge text models with, written for this project.

The two files share no sentence. `calibration.txt` has one a line; `evaluation.tsv` has pairs that say the same
in other words, so that finding the second by the first is a retrieval task with a known answer.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

DATA: Final = Path(__file__).parents[1] / "data"

# Texts of one sentence, of a paragraph, and of about 200 tokens: activations of long inputs reach further.
RUN_LENGTHS: Final = (1, 4, 16)


def calibration_sentences() -> list[str]:
    """The sentences to calibrate with, one by one."""
    return (DATA / "calibration.txt").read_text(encoding="utf-8").splitlines()


def calibration_texts() -> Iterator[str]:
    """The calibration sentences alone, and joined to longer texts."""
    sentences = calibration_sentences()
    for length in RUN_LENGTHS:
        for start in range(0, len(sentences), length):
            yield " ".join(sentences[start : start + length])


def evaluation_pairs() -> list[tuple[str, str]]:
    """Held-out pairs of a sentence and its paraphrase."""
    lines = (DATA / "evaluation.tsv").read_text(encoding="utf-8").splitlines()
    return [(first, second) for first, second in (line.split("\t") for line in lines)]
