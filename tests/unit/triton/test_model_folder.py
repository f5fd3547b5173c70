"""What is read of a model's folder before Triton reads it."""

import os
from pathlib import Path

import pytest

from scheduler.triton.model_folder import ModelFolder, folders

COMPLETE = 'backend: "python" input [{ name: "A" }] output { name: "B" }'


def folder(path: Path, config: str | None) -> ModelFolder:
    (path / "m" / "1").mkdir(parents=True)
    if config is not None:
        (path / "m" / "config.pbtxt").write_text(config)
    return ModelFolder(path / "m")


@pytest.mark.parametrize(
    ("config", "incomplete"),
    [
        (COMPLETE, False),
        (COMPLETE.replace("backend", "platform"), False),
        (COMPLETE.replace("input [", "input: ["), False),
        (None, True),
        ("", True),
        ('backend: "onnxruntime"', True),
        (COMPLETE.replace("output", "#output"), True),
        (COMPLETE.replace("input", "batch_input"), True),
        ('input_map { key: "A" } ' + COMPLETE.replace("input", "no"), True),
    ],
)
def test_a_configuration_without_inputs_outputs_or_backend_is_incomplete(
    tmp_path: Path, config: str | None, incomplete: bool
) -> None:
    assert folder(tmp_path, config).incomplete is incomplete


def test_steps_are_those_of_an_ensemble(tmp_path: Path) -> None:
    steps = """ensemble_scheduling { step [{ model_name: "a" }, { model_name: 'b' # model_name: "c"
    }] }"""
    assert folder(tmp_path, steps).steps == {"a", "b"}
    assert folder(tmp_path / "other", 'parameters { key: "model_name: \\"x\\"" }').steps == frozenset()


def test_a_change_of_any_file_is_seen(tmp_path: Path) -> None:
    model = folder(tmp_path, COMPLETE)
    for path in (tmp_path / "m", *(tmp_path / "m").rglob("*")):
        os.utime(path, ns=(1, 1))
    assert model.changed_at_ns() == 1
    os.utime(tmp_path / "m" / "1", ns=(7, 7))
    assert model.changed_at_ns() == 7


def test_folders_are_in_order_without_files_and_what_tools_keep(tmp_path: Path) -> None:
    for name in ("b", "a", ".git"):
        (tmp_path / name).mkdir()
    (tmp_path / "README.md").touch()
    assert [each.name for each in folders(tmp_path)] == ["a", "b"]
