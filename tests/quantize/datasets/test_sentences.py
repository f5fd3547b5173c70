from itertools import chain

from quantize.datasets.sentences import calibration_sentences, calibration_texts, evaluation_pairs


def test_calibration_and_evaluation_share_no_sentence() -> None:
    calibration = {sentence.lower() for sentence in calibration_sentences()}
    evaluation = [sentence.lower() for sentence in chain.from_iterable(evaluation_pairs())]
    assert not calibration & set(evaluation)
    assert len(set(evaluation)) == len(evaluation)


def test_there_is_enough_of_both_and_no_line_is_empty() -> None:
    assert len(set(calibration_sentences())) == len(calibration_sentences()) >= 150
    assert len(evaluation_pairs()) >= 80
    assert all(text.strip() for text in (*calibration_sentences(), *chain.from_iterable(evaluation_pairs())))


def test_calibration_reaches_from_a_word_to_a_long_text() -> None:
    words = [len(text.split()) for text in calibration_texts()]
    assert min(words) == 1
    assert max(words) > 150
