"""A session: an ONNX file loaded in ONNX Runtime, on the device that was asked for."""

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np

from export.definition.tensor import Array, Feed, FloatArray, describe, extent
from export.errors import ExportError

Device = Literal["cpu", "cuda"]
DEVICES: Final = get_args(Device)
# Extra of this project -> the distribution that it installs. Both write to one folder, the last installed wins.
DISTRIBUTIONS: Final = {"cpu": "onnxruntime", "gpu": "onnxruntime-gpu"}

# ONNX Runtime's log level.
FATAL_ONLY: Final = 4


class LoadError(ExportError):
    """ONNX Runtime refuses a model file."""


class RuntimeInstallError(ExportError):
    """ONNX Runtime is not installed as it must be, or not able to use the device that was asked for."""


class RunError(ExportError):
    """ONNX Runtime cannot run a model on a feed."""


class Session:
    """A loaded model; `name` is what errors call it."""

    def __init__(self, inner: Any, name: str) -> None:
        self._inner, self._name = inner, name

    def run(self, feed: Feed) -> FloatArray:
        """The model's first output for one feed, FP32.

        Raises:
            RunError: the feed does not fit the model's inputs, or an index in it is beyond its table. Carries ONNX
                Runtime's reason, and what the feed's numbers reach.
        """
        return np.asarray(self._outputs(None, feed)[0], dtype=np.float32)

    def predict(self, feed: Feed) -> Mapping[str, Array]:
        """All outputs by name, in their own types; raises as `run` does."""
        names = [output.name for output in self._inner.get_outputs()]
        return dict(zip(names, self._outputs(names, feed), strict=True))

    def _outputs(self, names: Sequence[str] | None, feed: Feed) -> Sequence[Array]:
        try:
            outputs: Sequence[Array] = self._inner.run(names, dict(feed))
        except Exception as error:  # onnxruntime raises classes that share no base of their own
            raise RunError(refusal(self._name, feed, error)) from error
        return outputs


def refusal(name: str, feed: Feed, error: Exception) -> str:
    """What ONNX Runtime says of a feed, in one line, and what the feed has."""
    reason = " ".join(str(error).split())
    return f"{name} on {describe(feed)}: ONNX Runtime fails: {reason}; {extent(feed)}"


def open_session(path: Path, threads: int = 0, device: Device = "cpu") -> Session:
    """Load an ONNX file.

    Args:
        path: the file.
        threads: intra-op threads; 0 lets ONNX Runtime take all cores.
        device: where to run; never another one in silence.

    Raises:
        LoadError: ONNX Runtime refuses the file. The message carries its reason.
        RuntimeInstallError: ONNX Runtime is missing, there twice, or without the device.
    """
    ort = _runtime()
    wanted = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
    if wanted not in ort.get_available_providers():
        raise RuntimeInstallError(
            f"{device} was asked for, and this ONNX Runtime has {', '.join(ort.get_available_providers())}: "
            "install the extra `gpu` in place of `cpu`"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Not errors: they are raised, and a run that fails is none where it is found out what a model takes.
    options.log_severity_level = FATAL_ONLY
    try:
        inner = ort.InferenceSession(path, options, providers=[wanted])
    except Exception as error:  # onnxruntime raises classes that share no base of their own
        raise LoadError(f"{path.name}: ONNX Runtime refuses it: {' '.join(str(error).split())}") from error
    # ONNX Runtime falls back to the CPU where CUDA's libraries or the device are not there, and says nothing.
    if wanted not in inner.get_providers():
        raise RuntimeInstallError(
            f"{device} was asked for, and ONNX Runtime loaded {path.name} on {', '.join(inner.get_providers())}: "
            "there is no usable CUDA device, or its libraries are missing"
        )
    return Session(inner, path.name)


def check_distributions() -> None:
    """Refuse an environment with both builds of ONNX Runtime, or with neither.

    Raises:
        RuntimeInstallError: saying which are there and what to do.
    """
    found = [name for name in DISTRIBUTIONS.values() if _is_installed(name)]
    if len(found) == 1:
        return
    both = "both are installed, and have overwritten each other's files: uninstall both, then install one"
    neither = "neither is installed: install one"
    raise RuntimeInstallError(
        f"ONNX Runtime: expected exactly one of {' and '.join(DISTRIBUTIONS.values())}; {both if found else neither} "
        "of the extras `cpu` and `gpu`"
    )


def absent(error: BaseException) -> RuntimeInstallError | None:
    """What to install, where an error is that one of the tools is not there; None for any other error."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    tool = (error.name or str(error)).partition(".")[0]
    extras = "one of the extras `cpu` and `gpu`" if tool == "onnxruntime" else "the extra `export`"
    return RuntimeInstallError(f"{tool} is not installed: install {extras} of this project")


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _runtime() -> Any:
    check_distributions()
    import onnxruntime  # noqa: PLC0415  (after the check, which explains what its import error would not)

    return onnxruntime
