"""The exporter: one definition in, one trusted folder `build/models/NAME/` out."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch
from torch.export import Dim

from export.card import ModelCard
from export.checksum import sha256_of
from export.definition import Definition
from export.errors import ExportError
from export.folder import replacing
from export.graph import OPSET, write_graph
from export.parity import check_parity
from export.repository import FP32_FILE

TOOLS: Final = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")

Step = Callable[[str], None]


def export_model(definition: Definition, folder: Path, step: Step = lambda _: None) -> ModelCard:
    """Export a model, prove it, and put the result at `folder` as a whole.

    Args:
        definition: the model.
        folder: where `fp32.onnx`, `model_card.json` and the assets go; replaced if it exists.
        step: told, in a few words, what is being done.

    Returns:
        The card that was written.

    Raises:
        ExportError: the source is not the one reviewed, the graph is not loadable, or it does not agree
            with PyTorch. `folder` then stays as it was.
    """
    step("reading the source")
    source = definition.source()
    module = definition.module()
    with replacing(folder) as new:
        step("exporting")
        trace(definition, module, new / FP32_FILE)
        step("comparing with PyTorch")
        parity = check_parity(module, new / FP32_FILE, definition.real_feeds(), definition.tolerance)
        definition.write_assets(new)
        card = ModelCard(
            name=definition.name,
            source=source,
            opset=OPSET,
            tools={tool: version(tool) for tool in TOOLS},
            fp32_sha256=sha256_of(new / FP32_FILE),
            parity=parity,
        )
        card.write(new)
    return card


def trace(definition: Definition, module: torch.nn.Module, path: Path) -> None:
    """Write the module's ONNX graph to `path` and check it as far as that goes without running it.

    Raises:
        ExportError: onnx.checker refuses the graph, or it is of a newer format than Triton loads.
    """
    example = {name: torch.from_numpy(value) for name, value in definition.example().items()}
    # One Dim object per symbolic name: axes that share a name must be the same dimension.
    names = {name for axes in definition.dynamic_axes().values() for name in axes.values()}
    dims = {name: Dim(name) for name in sorted(names)}
    with quiet_exporter():
        program = torch.onnx.export(
            module,
            (),
            kwargs=example,
            input_names=list(example),
            output_names=[definition.output_name],
            dynamic_shapes={
                name: {axis: dims[symbol] for axis, symbol in axes.items()}
                for name, axes in definition.dynamic_axes().items()
            },
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ExportError(f"{definition.name}: the exporter returned nothing")
    write_graph(program.model_proto, path)


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence what the exporter says about itself: known, harmless, and not for the user to act on."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)  # torchvision's absence
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r".*The axis name: \w+ will not be used", category=UserWarning)
        try:
            yield
        finally:
            logger.setLevel(level)
