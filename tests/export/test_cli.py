import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import export.cli
from export.cli import export as command
from export.repository import Repository

Run = Callable[..., Result]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `fairlane export` on the tiny model, under the name of one that the catalog knows."""
    tiny.name = "digits"
    monkeypatch.setattr(export.cli, "load_definition", lambda _: tiny)
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


def test_parity_failure_is_one_line_and_a_non_zero_exit(run: Run, tiny: Any, tmp_path: Path) -> None:
    tiny.tolerance = -1.0
    result = run("digits")
    assert result.exit_code == 1
    assert "Error: fp32.onnx differs from PyTorch on x[1,3]" in result.stderr
    assert not (tmp_path / "repository").exists()
    assert list((tmp_path / "build/models").iterdir()) == []


def test_unknown_name_is_refused_with_the_known_ones(run: Run) -> None:
    result = run("minilmm")
    assert result.exit_code == 1
    assert "unknown model 'minilmm': expected one of minilm, digits" in result.stderr


def test_nothing_missing_imports_no_torch() -> None:
    script = (
        "import sys; from export.cli import export; "
        "export(['--missing'], standalone_mode=False); "
        "sys.exit(bool({'torch', 'onnx', 'onnxruntime', 'transformers', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_export_newer_than_what_is_served_says_so(run: Run, tmp_path: Path) -> None:
    run("digits")
    repository = Repository(tmp_path / "repository")
    served = repository.card("digits")
    assert served is not None
    served.model_copy(update={"fp32_sha256": "f" * 64}).write(repository.version_folder("digits"))
    assert "an earlier export is being served; run `fairlane quantize digits`" in run("--missing", "digits").stderr
