"""The catalog: which models there are, and how their definitions are loaded.

The catalog knows names without importing a definition. A definition mostly imports torch, and
`fairlane export --missing` must be instant where nothing is missing.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

from pydantic import ValidationError

from export.definition import Definition
from export.errors import ExportError, faults

# Served by default; and those that need weights of their own, made when they are asked for by name.
MODEL_NAMES: Final = ("minilm", "digits")
OPTIONAL_NAMES: Final = ("efficientnet_lite0", "smollm2")

# Files of PyTorch's, which say nothing of a model's inputs.
WEIGHTS: Final = (".pt", ".pth", ".ts", ".torchscript")


class UnknownModelError(ExportError):
    """A model was named that the catalog does not hold."""


class DefinitionFileError(ExportError):
    """A file does not define a model."""


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """The models a command is about: those named, or the default ones where none is.

    Args:
        names: what the user typed; may repeat a name.

    Returns:
        Known names, each once, in the order given.

    Raises:
        UnknownModelError: a name is not in the catalog.
    """
    known = (*MODEL_NAMES, *OPTIONAL_NAMES)
    for name in names:
        if name not in known:
            raise UnknownModelError(f"unknown model {name!r}: expected one of {', '.join(known)}, or a file")
    return tuple(dict.fromkeys(names)) or MODEL_NAMES


def is_path(name: str) -> bool:
    """Whether what was typed is a file rather than a name of the catalog."""
    return "/" in name or name.endswith((".py", ".onnx", *WEIGHTS))


def load_definition(name: str) -> Definition:
    """The definition that a name or a path stands for. Importing it mostly imports torch.

    Args:
        name: a name of the catalog, a Python file with a `DEFINITION`, or an ONNX file.

    Raises:
        UnknownModelError: the name is not in the catalog.
        DefinitionFileError: the file is missing, fails, or defines nothing. Names the file and the line.
    """
    if not is_path(name):
        (known,) = chosen([name])
        return _definition_of(importlib.import_module(f"export.models.{known}"), f"export/models/{known}.py")
    path = Path(name)
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        raise DefinitionFileError(f"{path}: expected a Python file with a DEFINITION or an ONNX file, got {got}")
    if path.suffix == ".onnx":
        # Imported late: onnx takes a second.
        from export.catalog.onnx_source import define_onnx  # noqa: PLC0415

        return define_onnx(path)
    if path.suffix in WEIGHTS:
        raise DefinitionFileError(
            f"{path}: expected a Python file with a DEFINITION or an ONNX file, got a file of PyTorch's. It does not "
            "say what goes in. Write a definition (`fairlane export new NAME`) whose module() returns "
            f"torch.jit.load({str(path)!r}).eval(), or loads these weights"
        )
    return _definition_of(_run_file(path), str(path))


def check_name(definition: Definition, typed: str) -> None:
    """Refuse a file's model by the name of one of the catalog: it would take that one's place.

    Raises:
        DefinitionFileError: naming the file.
    """
    own = Path(__file__).parents[1] / "models" / f"{definition.name}.py"
    known = (*MODEL_NAMES, *OPTIONAL_NAMES)
    if definition.name in known and Path(typed).resolve() != own.resolve():
        raise DefinitionFileError(
            f"{typed}: name: expected one that is not in the catalog ({', '.join(known)}), got {definition.name!r}"
        )


def blame(error: BaseException, typed: Sequence[str]) -> DefinitionFileError | None:
    """The error as one of a definition's file, where it came from code in one; None where it did not.

    Args:
        error: what a definition's function raised, or what was raised by something that it called.
        typed: the names and paths of a command.
    """
    for path in (Path(one) for one in typed if one.endswith(".py")):
        if line := _line(error, path):
            return DefinitionFileError(f"{path}{line}: {_reason(error)}")
    return None


@contextmanager
def named_in(typed: str) -> Iterator[None]:
    """Put the file that was typed in front of errors that are about its model and do not name it."""
    try:
        yield
    except ExportError as error:
        path = Path(typed)
        if not is_path(typed) or str(path) in str(error):
            raise
        raise DefinitionFileError(f"{path}: {error}") from error


def _definition_of(module: ModuleType, where: str) -> Definition:
    definition = getattr(module, "DEFINITION", None)
    if not isinstance(definition, Definition):
        got = "no such name" if definition is None else type(definition).__name__
        raise DefinitionFileError(f"{where}: DEFINITION: expected an export.definition.Definition, got {got}")
    return definition


def _run_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"fairlane_model_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise DefinitionFileError(f"{path}: expected a Python or an ONNX file, got a file named {path.suffix!r}")
    module = importlib.util.module_from_spec(spec)
    # Registered, so that what the file defines can name its own module, as dataclasses do.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise DefinitionFileError(f"{path}{_line(error, path)}: {_reason(error)}") from error
    return module


def _reason(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return f"{error.title}: {faults(error)}"
    return f"{type(error).__name__}: {error}"


def _line(error: BaseException, path: Path) -> str:
    """`, line 12`: the last line of the file that the error went through."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    number, frame = None, error.__traceback__
    while frame is not None:
        here = Path(frame.tb_frame.f_code.co_filename).resolve() == path.resolve()
        number = frame.tb_lineno if here else number
        frame = frame.tb_next
    return "" if number is None else f", line {number}"
