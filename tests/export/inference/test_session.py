from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import export.inference.session
from export.inference.session import LoadError, RuntimeInstallError, check_distributions, open_session


def install(monkeypatch: pytest.MonkeyPatch, *distributions: str) -> None:
    """Let these builds of ONNX Runtime be the ones that are installed."""

    def version(name: str) -> str:
        if name not in distributions:
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(export.inference.session, "version", version)


def test_file_that_onnxruntime_refuses_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with pytest.raises(LoadError, match=r"broken.onnx: ONNX Runtime refuses it: .+"):
        open_session(tmp_path / "broken.onnx")


@pytest.mark.parametrize("one", ["onnxruntime", "onnxruntime-gpu"])
def test_one_build_of_onnxruntime_is_as_it_must_be(monkeypatch: pytest.MonkeyPatch, one: str) -> None:
    install(monkeypatch, one)
    check_distributions()


def test_both_builds_of_onnxruntime_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    with pytest.raises(RuntimeInstallError, match="both are installed, and have overwritten each other's files"):
        check_distributions()


def test_no_build_of_onnxruntime_names_the_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(RuntimeInstallError, match="neither is installed: install one of the extras `cpu` and `gpu`"):
        check_distributions()


def test_session_that_falls_back_to_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build for CUDA on a machine without a GPU, which has the provider and loads the model on another."""

    def session(path: Path, options: Any, providers: list[str]) -> Any:
        assert providers == ["CUDAExecutionProvider"]
        return SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])

    monkeypatch.setattr(
        export.inference.session,
        "_runtime",
        lambda: SimpleNamespace(
            get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
            SessionOptions=SimpleNamespace,
            InferenceSession=session,
        ),
    )
    with pytest.raises(RuntimeInstallError, match=r"loaded m\.onnx on CPUExecutionProvider: there is no usable CUDA"):
        open_session(Path("m.onnx"), device="cuda")
