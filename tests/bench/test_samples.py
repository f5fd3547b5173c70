from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.outcome import Outcome
from bench.samples import NEVER, Recorder, Samples


def test_latency_counts_from_due_time_not_from_sending() -> None:
    recorder = Recorder()
    index = recorder.arrive(1.0)
    recorder.send(index, 1.4)
    recorder.finish(index, 1.5, Outcome.OK)
    samples = recorder.freeze(duration_s=2, end_s=2, cpu_s=0)
    assert samples.latency_ms == pytest.approx([500])
    assert samples.lateness_ms == pytest.approx([400])


def test_unanswered_and_unsent_are_censored_at_their_age() -> None:
    recorder = Recorder()
    recorder.send(recorder.arrive(1.0), 1.0)
    recorder.arrive(3.0)
    samples = recorder.freeze(duration_s=10, end_s=12, cpu_s=0)
    assert samples.latency_ms == pytest.approx([11_000, 9_000])
    assert samples.count(Outcome.UNANSWERED) == 1
    assert samples.count(Outcome.UNSENT) == 1


def test_an_answer_after_freezing_changes_nothing() -> None:
    recorder = Recorder()
    recorder.send(recorder.arrive(0.0), 0.0)
    samples = recorder.freeze(duration_s=1, end_s=1, cpu_s=0)
    recorder.finish(0, 5.0, Outcome.OK)
    assert samples.count(Outcome.UNANSWERED) == 1


def test_file_gives_back_what_was_saved(made_samples: Callable[..., Samples], tmp_path: Path) -> None:
    saved = made_samples([1, 2, NEVER], errors={"UNAVAILABLE": 1}, first_error="UNAVAILABLE: gone")
    saved.save(tmp_path / "new" / "s.npz")
    loaded = Samples.load(tmp_path / "new" / "s.npz")
    for column in ("due_s", "sent_s", "done_s", "outcome", "pushback"):
        np.testing.assert_array_equal(getattr(loaded, column), getattr(saved, column))
    assert (loaded.end_s, loaded.errors, loaded.first_error) == (saved.end_s, saved.errors, saved.first_error)
