from quantize.datasets.docstrings import PAIRS, docstring_pairs
from quantize.datasets.sentences import calibration_sentences, evaluation_pairs


def test_judged_texts_are_many_distinct_and_in_no_other_set() -> None:
    pairs = docstring_pairs()
    texts = [text for pair in pairs for text in pair]
    assert len(pairs) == PAIRS
    assert len(set(texts)) == len(texts)
    others = {*calibration_sentences(), *(text for pair in evaluation_pairs() for text in pair)}
    assert not others & set(texts)


def test_query_is_a_sentence_and_document_is_longer_text() -> None:
    for summary, rest in docstring_pairs():
        assert 5 <= len(summary.split()) <= 30
        assert len(rest) >= 30
