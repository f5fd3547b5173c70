"""Docstrings of Python's standard library: text to judge a model with that nobody wrote for that purpose.

The first paragraph of a docstring sums up the rest, so finding the rest by it is a retrieval task with a known
answer, on text unlike the calibration sentences, in the hundreds. Figures differ a little between releases of Python.
"""

import ast
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

# Shorter summaries say too little to be found by, longer ones are not sentences.
SUMMARY_WORDS: Final = range(5, 31)
REST_WORDS_MIN: Final = 15
REST_CHARS: Final = 600
PAIRS: Final = 400


@cache
def docstring_pairs() -> tuple[tuple[str, str], ...]:
    """Pairs of a docstring's summary and its rest, evenly picked from all modules, each text once."""
    pairs = {summary: rest for module in _modules() for summary, rest in _pairs(module)}
    distinct = {rest: (summary, rest) for summary, rest in pairs.items()}
    every = sorted(distinct.values())
    return tuple(every[place * len(every) // PAIRS] for place in range(PAIRS))


def _modules() -> Iterator[ast.Module]:
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        yield ast.parse(path.read_text(encoding="utf-8"))


def _pairs(module: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            summary, _, rest = (ast.get_docstring(node) or "").partition("\n\n")
            if len(summary.split()) in SUMMARY_WORDS and len(rest.split()) >= REST_WORDS_MIN:
                yield " ".join(summary.split()), " ".join(rest.split())[:REST_CHARS]
