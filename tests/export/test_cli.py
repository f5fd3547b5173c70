import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import export.cli
import export.version
from export.card import Measure, Quantization, read_card
from export.cli import export as command
from export.definition import Definition, Serving, Tensor
from export.models_cli import models
from export.repository import Repository

Run = Callable[..., Result]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def definition(tiny: Definition) -> list[Definition]:
    """The definition that the command finds, in a list so that a test can put another in its place."""
    return [tiny]


@pytest.fixture
def run(definition: list[Definition], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `fairlane export` on the tiny model, under the name of one that the catalog knows."""
    monkeypatch.setattr(export.cli, "load_definition", lambda _: definition[0])
    places = ["--build-dir", str(tmp_path / "build"), "--model-repository", str(tmp_path / "repository")]
    return lambda *args: CliRunner().invoke(command, [*places, *args])


def test_export_prints_the_difference_and_serves_fp32_where_nothing_was(run: Run, tmp_path: Path) -> None:
    result = run("digits")
    assert result.exit_code == 0, result.output
    assert "max abs difference to PyTorch" in result.stderr
    assert (tmp_path / "build/models/digits/fp32.onnx").is_file()
    served = Repository(tmp_path / "repository").card("digits")
    assert served is not None
    assert served.quantization is None


def test_served_model_stays_until_it_is_quantized_again(run: Run, tmp_path: Path) -> None:
    run("digits")
    version = Repository(tmp_path / "repository").version_folder("digits")
    (version / "model.onnx").write_text("the INT8 model")
    run("digits")
    assert (version / "model.onnx").read_text() == "the INT8 model"


def test_missing_skips_what_is_there_and_makes_what_is_not(run: Run, tmp_path: Path) -> None:
    assert json.loads(run("--missing", "--json", "digits").stdout)[0]["exported"] is True
    assert json.loads(run("--missing", "--json", "digits").stdout)[0]["exported"] is False
    (tmp_path / "build/models/digits/fp32.onnx").unlink()
    assert json.loads(run("--missing", "--json", "digits").stdout)[0]["exported"] is True


def test_export_that_was_quantized_before_is_published_as_what_it_is(run: Run, tmp_path: Path) -> None:
    run("digits")
    built, repository = tmp_path / "build/models/digits", Repository(tmp_path / "repository")
    measure = Measure(size_bytes=1, latency_ms={}, scores={})
    verdict = Quantization(recipe="r", fp32=measure, int8=measure, refusals=())
    read_card(built).model_copy(update={"quantization": verdict, "batch_invariant": True}).write(built)
    shutil.rmtree(repository.folder)
    assert run("--missing", "digits").exit_code == 0
    served = repository.card("digits")
    assert served is not None
    assert (served.quantization, served.batch_invariant) == (None, None)


def test_parity_failure_is_one_line_and_a_non_zero_exit(run: Run, definition: list[Definition], tmp_path: Path) -> None:
    definition[0] = replace(definition[0], tolerance=-1.0)
    result = run("digits")
    assert result.exit_code == 1
    assert "Error: fp32.onnx differs from PyTorch on x[1,3]" in result.stderr
    assert not (tmp_path / "repository").exists()
    assert list((tmp_path / "build/models").iterdir()) == []


def test_unknown_name_is_refused_with_the_known_ones(run: Run) -> None:
    result = run("minilmm")
    assert result.exit_code == 1
    assert (
        "unknown model 'minilmm': expected one of minilm, digits, efficientnet_lite0, smollm2, or a file"
        in result.stderr
    )


def test_nothing_missing_imports_no_torch() -> None:
    script = (
        "import sys; from export.cli import export; "
        "export(['--missing'], standalone_mode=False); "
        "sys.exit(bool({'torch', 'onnx', 'onnxruntime', 'transformers', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_export_newer_than_the_int8_that_is_served_says_so(run: Run, tmp_path: Path) -> None:
    run("digits")
    repository = Repository(tmp_path / "repository")
    served = repository.card("digits")
    assert served is not None
    measure = Measure(size_bytes=1, latency_ms={}, scores={})
    quantization = Quantization(recipe="r", fp32=measure, int8=measure, refusals=())
    changed = served.model_copy(update={"fp32_sha256": "f" * 64, "quantization": quantization})
    changed.write(repository.version_folder("digits"))
    told = run("--missing", "digits").stderr
    assert "an earlier export is being served as INT8; run `fairlane quantize digits`" in told
    assert repository.versions("digits") == (1,)


def test_new_fp32_export_of_a_model_served_as_fp32_is_a_new_version(
    run: Run, definition: list[Definition], tmp_path: Path
) -> None:
    run("digits")
    definition[0] = replace(definition[0], module=lambda: Shifted().eval(), tolerance=1.0)
    assert run("digits").exit_code == 0
    assert Repository(tmp_path / "repository").versions("digits") == (1, 2)


def test_configuration_of_ones_own_stays_until_it_is_to_be_replaced(run: Run, tmp_path: Path) -> None:
    run("digits")
    config = tmp_path / "repository/digits/config.pbtxt"
    generated = config.read_text()
    config.write_text(generated.replace("max_batch_size: 32", "max_batch_size: 8"))
    assert "is not the one made here and stays" in run("digits").stderr
    assert "max_batch_size: 8" in config.read_text()
    run("digits", "--overwrite-config")
    assert config.read_text() == generated


@pytest.fixture
def labelled(definition: list[Definition], run: Run, tmp_path: Path) -> Path:
    """The model is published with three labels, of which its definition now has another first one. The label file."""
    for first in ("red", "crimson"):
        labels = {"y": (first, "green", "blue")}
        definition[0] = replace(definition[0], serving=replace(definition[0].serving, labels=labels))
        if first == "red":
            assert run("digits").exit_code == 0
    return tmp_path / "repository" / "digits" / "y_labels.txt"


def test_changed_labels_are_told_of_and_stay(run: Run, labelled: Path) -> None:
    told = run("digits").stderr
    assert "digits: its y_labels.txt is not the one made here and stays; --overwrite-config replaces it" in told
    assert "config.pbtxt" not in told
    assert labelled.read_text() == "red\ngreen\nblue\n"


def test_changed_labels_replace_those_of_the_repository_where_asked_for(run: Run, labelled: Path) -> None:
    assert run("digits", "--overwrite-config").exit_code == 0
    assert labelled.read_text() == "crimson\ngreen\nblue\n"
    assert "stays" not in run("digits").stderr


def test_labels_that_are_gone_come_back_where_asked_for(run: Run, labelled: Path) -> None:
    labelled.unlink()
    assert "its y_labels.txt is not the one made here" in run("digits").stderr
    run("digits", "--overwrite-config")
    assert labelled.read_text() == "crimson\ngreen\nblue\n"


def test_assets_that_changed_alone_are_published(run: Run, definition: list[Definition], tmp_path: Path) -> None:
    run("digits")
    definition[0] = replace(definition[0], assets=lambda folder: (folder / "asset.txt").write_text("another"))
    assert run("digits").exit_code == 0
    repository = Repository(tmp_path / "repository")
    assert repository.versions("digits") == (1, 2)
    assert (repository.version_folder("digits") / "asset.txt").read_text() == "another"


def test_card_says_what_the_assets_are(run: Run, tmp_path: Path) -> None:
    run("digits")
    card = Repository(tmp_path / "repository").card("digits")
    assert card is not None
    assert card.assets == {"asset.txt": hashlib.sha256(b"asset").hexdigest()}


def as_int8(repository: Repository) -> None:
    """Let what is served pass for the INT8 form of its export."""
    served = repository.card("digits")
    assert served is not None
    measure = Measure(size_bytes=1, latency_ms={}, scores={})
    verdict = Quantization(recipe="r", fp32=measure, int8=measure, refusals=())
    served.model_copy(update={"quantization": verdict}).write(repository.version_folder("digits"))


def test_int8_form_for_another_target_does_not_stay_under_the_configuration_of_this_one(
    run: Run, tmp_path: Path
) -> None:
    run("digits")
    repository = Repository(tmp_path / "repository")
    as_int8(repository)
    (repository.version_folder("digits") / "model.onnx").write_bytes(b"INT8")
    told = run("digits", "--target", "tensorrt").stderr
    assert "an earlier export is being served as INT8" in told
    assert repository.versions("digits") == (1,)
    told = run("digits", "--target", "tensorrt", "--overwrite-config").stderr
    assert "FP32 is served until `fairlane quantize digits`" in told
    served = repository.card("digits")
    assert served is not None
    assert (repository.versions("digits"), served.target, served.quantization) == ((1, 2), "tensorrt", None)
    assert "KIND_GPU" in (tmp_path / "repository/digits/config.pbtxt").read_text()


def test_int8_form_that_the_new_configuration_does_not_fit_does_not_stay(run: Run, wider: Path) -> None:
    repository = Repository(wider.parent)
    as_int8(repository)
    result = run("digits", "--overwrite-config")
    assert result.exit_code == 0, result.output
    assert "FP32 is served until `fairlane quantize digits`" in result.stderr
    assert repository.versions("digits") == (1, 2)


def test_int8_form_stays_under_a_new_configuration_that_it_fits(
    run: Run, definition: list[Definition], tmp_path: Path
) -> None:
    run("digits")
    repository = Repository(tmp_path / "repository")
    as_int8(repository)
    definition[0] = replace(definition[0], module=lambda: Shifted().eval(), serving=Serving(max_batch_size=4))
    told = run("digits", "--overwrite-config").stderr
    assert "an earlier export is being served as INT8; run `fairlane quantize digits`" in told
    assert repository.versions("digits") == (1,)
    assert "max_batch_size: 4" in (tmp_path / "repository/digits/config.pbtxt").read_text()


@pytest.fixture
def wider(definition: list[Definition], run: Run, tmp_path: Path) -> Path:
    """The model is published with three columns, and its definition now has four. The model's folder."""
    assert run("digits").exit_code == 0
    four = ("batch", 4)
    definition[0] = replace(
        definition[0],
        inputs=(Tensor("x", "FP32", four),),
        outputs=(Tensor("y", "FP32", four),),
        samples=lambda: [{"x": np.ones((2, 4), np.float32)}],
    )
    return tmp_path / "repository" / "digits"


def test_export_that_the_configuration_does_not_fit_is_not_published(run: Run, wider: Path) -> None:
    result = run("digits")
    assert result.exit_code == 1
    told = " ".join(result.stderr.split())
    assert re.search(
        r"config.pbtxt does not fit \S+fp32.onnx: input 'x': it says dims \[3\], the graph has \[4\]", told
    )
    assert "--overwrite-config replaces it" in told
    assert Repository(wider.parent).versions("digits") == (1,)


def test_version_and_the_configuration_that_it_needs_come_together(run: Run, wider: Path) -> None:
    assert run("digits", "--overwrite-config").exit_code == 0
    assert Repository(wider.parent).versions("digits") == (1, 2)
    assert "dims: [4]" in (wider / "config.pbtxt").read_text()


def test_version_whose_configuration_cannot_be_written_is_taken_back(
    run: Run, wider: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(export.version, "write_file", full)
    result = run("digits", "--overwrite-config")
    assert (result.exit_code, "No space left on device" in result.stderr) == (1, True)
    assert Repository(wider.parent).versions("digits") == (1,)
    assert "dims: [3]" in (wider / "config.pbtxt").read_text()


def test_older_version_that_the_configuration_does_not_fit_is_not_promoted(run: Run, wider: Path) -> None:
    run("digits", "--overwrite-config")
    for change in (["promote", "digits", "1"], ["rollback", "digits"]):
        result = CliRunner().invoke(models, [*change, "--model-repository", str(wider.parent)])
        assert result.exit_code == 1
        assert "input 'x': it says dims [4], the graph has [3]" in " ".join(result.stderr.split())
    assert Repository(wider.parent).versions("digits") == (1, 2)


def test_older_version_that_is_cut_off_is_not_promoted(run: Run, definition: list[Definition], tmp_path: Path) -> None:
    run("digits")
    definition[0] = replace(definition[0], module=lambda: Shifted().eval())
    run("digits")
    graph = tmp_path / "repository/digits/1/model.onnx"
    graph.write_bytes(graph.read_bytes()[:100])
    result = CliRunner().invoke(models, ["promote", "digits", "1", "--model-repository", str(tmp_path / "repository")])
    assert result.exit_code == 1
    assert "digits/1/model.onnx: not an ONNX file, or cut off" in " ".join(result.stderr.split())


def test_configuration_of_another_name_is_named_before_anything_is_promoted(
    run: Run, definition: list[Definition], tmp_path: Path
) -> None:
    run("digits")
    definition[0] = replace(definition[0], module=lambda: Shifted().eval())
    run("digits")
    config = tmp_path / "repository/digits/config.pbtxt"
    config.write_text(config.read_text().replace('name: "digits"', 'name: "digit"'))
    result = CliRunner().invoke(models, ["rollback", "digits", "--model-repository", str(tmp_path / "repository")])
    assert result.exit_code == 1
    assert "digits/config.pbtxt: name: expected 'digits', as its folder, got 'digit'" in " ".join(result.stderr.split())


def test_repository_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(models, ["list", "--model-repository", str(tmp_path / "nowhere")])
    assert result.exit_code == 1
    assert "nowhere: expected a model repository, got no such folder" in " ".join(result.stderr.split())


def test_configuration_that_triton_could_not_read_is_named_with_the_line(run: Run, tmp_path: Path) -> None:
    run("digits")
    (tmp_path / "repository/digits/config.pbtxt").write_text('name: "digits"\nmax_batchsize: 3\n')
    assert re.search(
        r"digits/config.pbtxt: not a model configuration .*: line 2:1 .*max_batchsize", run("digits").stderr
    )


def test_cuda_asked_for_and_not_there_is_an_error(run: Run, tmp_path: Path) -> None:
    result = run("digits", "--device", "cuda")
    assert result.exit_code == 1
    assert "cuda was asked for, and this ONNX Runtime has" in result.stderr
    assert not (tmp_path / "repository").exists()


class Shifted(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 3


def in_folder(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run `fairlane export ARGS` as a user does, in a folder of their own."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}"}
    command_line = [sys.executable, "-m", "scheduler", "export", *args]
    return subprocess.run(command_line, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_new_writes_a_definition_that_works_as_it_is(tmp_path: Path) -> None:
    assert "fairlane export ./mymodel.py" in in_folder(tmp_path, "new", "mymodel").stdout
    done = in_folder(tmp_path, "./mymodel.py", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["card"]["scores"] == {"agreement": 1.0}
    assert row["card"]["parity"]["max_abs_diff"] < 1e-5
    assert Repository(tmp_path / "model_repository").versions("mymodel") == (1,)
    labels = tmp_path / "model_repository/mymodel/logits_labels.txt"
    assert labels.read_text().split() == ["red", "green", "blue"]
    again = in_folder(tmp_path, "new", "mymodel")
    assert (again.returncode, again.stderr) == (1, "Error: mymodel.py is there already; it stays as it is\n")


@pytest.mark.parametrize(
    "error", ["OSError('no weights here')", "ValueError('no weights here')", "SystemExit('no weights here')"]
)
def test_exception_in_a_definitions_function_names_file_line_and_reason(tmp_path: Path, error: str) -> None:
    assert in_folder(tmp_path, "new", "mymodel").returncode == 0
    file = tmp_path / "mymodel.py"
    text = file.read_text().replace("torch.manual_seed(0)", f"raise {error}")
    file.write_text(text)
    line = text[: text.index("raise ")].count("\n") + 1
    done = in_folder(tmp_path, "./mymodel.py")
    kind = error.partition("(")[0]
    assert (done.returncode, done.stderr) == (1, f"Error: mymodel.py, line {line}: {kind}: no weights here\n")
    assert not (tmp_path / "model_repository").exists()


def test_name_of_the_catalog_is_no_name_for_a_file_of_ones_own(tmp_path: Path) -> None:
    assert in_folder(tmp_path, "new", "mymodel").returncode == 0
    file = tmp_path / "mymodel.py"
    file.write_text(file.read_text().replace('name="mymodel"', 'name="minilm"'))
    done = in_folder(tmp_path, "./mymodel.py")
    told = "Error: ./mymodel.py: name: expected another than those of the catalog, minilm, digits, "
    assert (done.returncode, done.stderr[: len(told)]) == (1, told)
    assert not (tmp_path / "model_repository").exists()


def test_new_without_a_name_says_what_it_expects(run: Run) -> None:
    assert "new: expected one NAME of letters, digits, '_', '-' and '.'; got none" in run("new").stderr


@pytest.mark.parametrize(
    ("tool", "command_line", "told"),
    [
        ("onnxruntime", "quantize digits", "onnxruntime is not installed: install one of the extras `cpu` and `gpu`"),
        ("onnx", "quantize digits", "onnx is not installed: install the extra `export`"),
        ("torch", "export digits", "torch is not installed: install the extra `export`"),
    ],
)
def test_tool_that_is_not_installed_is_named_with_its_extra(tool: str, command_line: str, told: str) -> None:
    script = (
        "import sys; sys.modules[sys.argv[1]] = None; from scheduler.cli import main; "
        "sys.argv = ['fairlane', *sys.argv[2:]]; main()"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}"}
    line = [sys.executable, "-c", script, tool, *command_line.split()]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {told}"), done.stderr


def test_rolling_back_takes_no_onnx(run: Run, definition: list[Definition], tmp_path: Path) -> None:
    run("digits")
    definition[0] = replace(definition[0], module=lambda: Shifted().eval())
    run("digits")
    script = (
        "import sys; sys.modules['onnx'] = None; import importlib.util; found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name == 'onnx' else found(name)\n"
        "from export.models_cli import models; models(sys.argv[1:])"
    )
    line = [sys.executable, "-c", script, "rollback", "digits", "--model-repository", str(tmp_path / "repository")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "digits: version 3 is served by the next server that starts, or loads it\n", done.stderr
