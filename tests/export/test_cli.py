import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from export.card import Measure, Quantization, read_card
from export.definition import Definition
from export.models_cli import models
from export.repository.repository import Repository
from tests.export.conftest import Shifted

Run = Callable[..., Result]
ROOT = Path(__file__).parents[2]


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
    told = "Error: ./mymodel.py: name: expected one that is not in the catalog (minilm, digits, "
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
        ("psutil", "bench --list", "psutil is not installed: install the extra `bench`"),
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
