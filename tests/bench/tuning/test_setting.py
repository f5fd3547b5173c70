from pathlib import Path
from typing import Any

import pytest

from bench.tune import write_setting
from bench.tuning.setting import Setting, candidates
from export.configuration.model_config import parse_config
from export.errors import ExportError

CONFIG = """# A model.
# Tuned: long ago.
name: "m"
backend: "onnxruntime"
max_batch_size: 32
instance_group [{ count: 1 kind: KIND_CPU }]
dynamic_batching { }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
parameters { key: "batch_invariant" value { string_value: "true" } }
model_warmup [{ name: "one_row" batch_size: 1 }, { name: "full_batch" batch_size: 32 }]
"""


def config(text: str = CONFIG) -> Any:
    return parse_config(text, "m")


def test_a_configuration_is_read_with_tritons_defaults() -> None:
    assert Setting.of(config()) == Setting(1, 1, 32)
    assert Setting.of(config("max_batch_size: 8")) == Setting(1, 1, 8)
    two_groups = "max_batch_size: 4 instance_group [{ count: 2 }, { }]"
    assert Setting.of(config(two_groups)) == Setting(3, 1, 4)


def test_a_setting_changes_its_three_numbers_and_the_largest_warm_up_alone() -> None:
    before = config()
    made = Setting(2, 4, 8).applied(before)
    assert Setting.of(made) == Setting(2, 4, 8)
    assert [warm_up.batch_size for warm_up in made.model_warmup] == [1, 8]
    assert before == config()
    assert Setting(1, 1, 32).applied(made).model_warmup[1].batch_size == 32
    assert Setting.of(before).applied(before) == before


def test_preferred_sizes_that_a_smaller_batch_rules_out_are_left_out() -> None:
    preferring = config(
        CONFIG.replace("dynamic_batching { }", "dynamic_batching { preferred_batch_size: [8, 16, 32] }")
    )
    assert list(Setting(1, 1, 16).applied(preferring).dynamic_batching.preferred_batch_size) == [8, 16]
    assert list(preferring.dynamic_batching.preferred_batch_size) == [8, 16, 32]
    assert not Setting(1, 1, 4).applied(config("max_batch_size: 8")).HasField("dynamic_batching")


def test_number_of_threads_that_is_none_is_named() -> None:
    with pytest.raises(ExportError, match="m: intra_op_thread_count: expected a whole number, got 'many'"):
        Setting.of(config(CONFIG.replace('string_value: "1"', 'string_value: "many"')))


def test_candidates_begin_with_the_default_and_share_out_the_cores() -> None:
    default = Setting(3, 1, 32)
    found = candidates(default, cores=4, rows=1)
    assert found[0] == default
    assert len(found) == len(set(found))
    assert all(each.instances * each.threads <= 4 for each in found)
    assert {(each.instances, each.threads) for each in found[1:]} == {(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (4, 1)}
    assert {each.max_batch_size for each in found} == {8, 16, 32}


def test_no_candidate_refuses_the_request_it_is_tuned_for() -> None:
    assert {each.max_batch_size for each in candidates(Setting(1, 1, 32), cores=2, rows=12)} == {16, 32}


def test_what_is_written_reads_back_with_one_reason_above_it(tmp_path: Path) -> None:
    path = tmp_path / "m" / "config.pbtxt"
    path.parent.mkdir()
    path.write_text(CONFIG)
    write_setting(tmp_path, "m", config(), Setting(2, 1, 16), "why.")
    text = path.read_text()
    assert text.startswith('# A model.\n# Tuned: why.\nname: "m"\n')
    assert parse_config(text, path) == Setting(2, 1, 16).applied(config())


def test_a_malformed_configuration_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "m" / "config.pbtxt"
    path.parent.mkdir()
    path.write_text("max_batch: 3")
    with pytest.raises(ExportError, match="max_batch"):
        write_setting(tmp_path, "m", config(), Setting(1, 1, 1), "why.")
    assert path.read_text() == "max_batch: 3"


def test_a_configuration_that_changed_while_it_was_tuned_stays(tmp_path: Path) -> None:
    path = tmp_path / "m" / "config.pbtxt"
    path.parent.mkdir()
    path.write_text(CONFIG)
    measured = config()
    write_setting(tmp_path, "m", measured, Setting(2, 1, 16), "why.")
    text = path.read_text()
    with pytest.raises(ExportError, match=r"m/config.pbtxt: changed while it was tuned, and stays; tune again"):
        write_setting(tmp_path, "m", measured, Setting(1, 1, 1), "why.")
    assert path.read_text() == text
