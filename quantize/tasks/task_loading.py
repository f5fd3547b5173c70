"""Loading of a model's task: from its file in `quantize.models`, or made from its definition."""

import importlib
import importlib.util
from pathlib import Path
from typing import cast

from export.catalog.catalog import chosen, is_path, load_definition
from export.definition import Definition
from export.repository.build_folder import built_folder
from export.repository.version_content import FP32_FILE
from quantize.tasks.task import Task


def load_task(name: str, build: Path) -> Task:
    """The task of a model: `TASK` of `quantize.models.NAME`, or what its definition says.

    Args:
        name: of the catalog, or a definition's file.
        build: where `fairlane export` left the export.

    Raises:
        UnknownModelError: the name is not in the catalog.
        DefinitionFileError: the file defines no model.
        NoTaskError: nobody has said how to quantize and judge this model.
        GraphError: the export is not one of this definition, which has changed since, or not a graph.
        ParityError: it does not agree with the definition's module, whose weights have changed since.
    """
    if not is_path(name):
        (known,) = chosen([name])
        module = f"quantize.models.{known}"
        if importlib.util.find_spec(module) is not None:
            return cast(Task, importlib.import_module(module).TASK)
    # Imported late: it imports ONNX Runtime, which a model with a task of its own may not need yet.
    from quantize.tasks.definition_task import DefinedTask  # noqa: PLC0415

    definition = load_definition(name)
    built = built_folder(build, definition.name)
    if (built / FP32_FILE).is_file():
        _check_export(definition, built / FP32_FILE)
        _check_module(definition, built / FP32_FILE)
    return DefinedTask(definition, built)


def _check_export(definition: Definition, graph: Path) -> None:
    # Imported late: onnx takes a second.
    from export.graph.onnx_graph import GraphError, check_tensors, read_graph  # noqa: PLC0415

    try:
        check_tensors(read_graph(graph), definition.inputs, definition.outputs, definition.name)
    except GraphError as error:
        raise GraphError(f"{error}; export it again where the definition has changed since") from error


def _check_module(definition: Definition, graph: Path) -> None:
    if definition.module is None:
        return
    # Imported late: PyTorch is there where a definition makes a module of it.
    from export.inference.parity import check_sample  # noqa: PLC0415

    check_sample(definition, definition.module(), graph)
