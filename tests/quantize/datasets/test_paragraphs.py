from quantize.datasets.docstrings import docstring_pairs
from quantize.datasets.paragraphs import WORDS_MIN, reference_paragraphs


def test_paragraphs_are_long_prose_and_each_is_there_once() -> None:
    found = reference_paragraphs()
    assert len(found) == len(set(found)) >= 64
    assert all(len(paragraph.split()) >= WORDS_MIN and "\n" not in paragraph for paragraph in found)


def test_paragraphs_share_no_text_with_the_docstrings() -> None:
    assert not set(reference_paragraphs()) & {rest for _, rest in docstring_pairs()}
