"""Paragraphs of Python's language reference, as `pydoc` carries it: prose that a language model predicts.

Nobody wrote them to judge a model with, and nothing is calibrated on them. Figures differ a little between releases
of Python.
"""

from collections.abc import Iterator
from functools import cache
from pydoc_data.topics import topics
from typing import Final

# What is indented is grammar, code or a list. A passage of 64 tokens has fewer words than this.
WORDS_MIN: Final = 60


@cache
def reference_paragraphs() -> tuple[str, ...]:
    """Every long paragraph of prose, each once, in the order of the topics' names."""
    return tuple(dict.fromkeys(paragraph for name in sorted(topics) for paragraph in _prose(topics[name])))


def _prose(topic: str) -> Iterator[str]:
    for paragraph in topic.split("\n\n"):
        words = paragraph.split()
        if paragraph[:1].isalpha() and len(words) >= WORDS_MIN:
            yield " ".join(words)
