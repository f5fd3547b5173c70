"""The flags of an embedded tritonserver."""

from pathlib import Path

from scheduler.triton.launcher_flags import Serving

COMPLETE = 'backend: "python" input { } output { }'
COMPLETED = "--disable-auto-complete-config"


def flags(repository: Path, *args: str, with_models: bool = True) -> list[str]:
    return Serving(repository, args, with_models).flags("name", Path("/b"), Path("/c"), (1, 2, 3))


def test_a_server_loads_all_models_or_none(tmp_path: Path) -> None:
    assert "--load-model=*" in flags(tmp_path)
    without = flags(tmp_path, with_models=False)
    assert not any(flag.startswith("--load-model") for flag in without)
    assert "--model-load-thread-count=32" in without


def test_only_what_is_incomplete_is_completed(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.pbtxt").write_text(COMPLETE)
    assert COMPLETED in flags(tmp_path)
    (tmp_path / "n").mkdir()
    assert COMPLETED not in flags(tmp_path)


def test_flags_of_the_operator_come_last_and_take_the_place_of_ours(tmp_path: Path) -> None:
    args = ["--log-verbose=1", "--cache-directory=/mine", "--model-load-thread-count=2"]
    found = flags(tmp_path, *args, with_models=False)
    assert found[-3:] == args
    assert [flag for flag in found if "cache-directory" in flag or "thread-count" in flag] == args[1:]
    assert "--cache-directory=/c" in flags(tmp_path)
