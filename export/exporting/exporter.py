"""The exporter: a definition in, a checked folder `build/models/NAME/` out."""

import contextlib
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import torch
from torch.export import Dim

from export.batch_proof.independence import Predict
from export.batch_proof.invariance import check_invariant
from export.batch_proof.proof import prove_batch, settle_batch
from export.batch_proof.random_rows import NoRowsError, RandomRows
from export.card import CARD_FILE, ModelCard, Source
from export.checksum import sha256_of
from export.configuration.model_config import CONFIG_FILE, Target, write_config
from export.configuration.warm_up import check_warm_up
from export.definition import Definition
from export.definition.tensor import BATCH, Feed
from export.errors import ExportError
from export.exporting.opset_conversion import lower
from export.exporting.tensor_conversion import reshape_ends
from export.exporting.torchscript import is_scripted, trace_scripted
from export.filesystem.atomic_folder import replacing
from export.graph.container_support import newer_format, opset_of
from export.graph.external_data import WEIGHTS_FILE, weights_beside
from export.graph.onnx_graph import OPSET, check_tensors, open_axes, read_graph, write_graph
from export.inference.parity import check_parity, parity_feeds, trace_feed
from export.inference.session import DISTRIBUTIONS, Device, check_distributions, open_session
from export.repository.pinned_version import LABELS
from export.repository.version_content import FP32_FILE, MODEL_FILE

if TYPE_CHECKING:
    from torch import nn

TOOLS: Final = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")

# What is written here, or served under that name.
RESERVED: Final = frozenset({FP32_FILE, MODEL_FILE, CARD_FILE, CONFIG_FILE, WEIGHTS_FILE})

Step = Callable[[str], None]


def export_model(
    definition: Definition,
    folder: Path,
    step: Step = lambda _: None,
    *,
    target: Target = "cpu",
    device: Device = "cpu",
) -> ModelCard:
    """Export a model, prove it, and put the result at `folder` as a whole.

    Args:
        definition: the model.
        folder: where `fp32.onnx`, `config.pbtxt`, `model_card.json` and the assets go; replaced if it exists.
        step: told, in a few words, what is being done.
        target: what Triton will run it on.
        device: what the export is compared with PyTorch on.

    Returns:
        The card that was written.

    Raises:
        ExportError: the source is not the one reviewed, the graph is not loadable, or it does not agree
            with PyTorch. `folder` then stays as it was.
    """
    check_distributions()
    step("reading the source")
    source = definition.source()
    tools = _tools()
    if not isinstance(source, Source):
        raise ExportError(f"{definition.name}: source(): expected a Source, got {type(source).__name__}")
    module = _module(definition) if definition.module is not None else None
    with replacing(folder) as new:
        path = new / FP32_FILE
        # First, so that it can overwrite nothing.
        definition.assets(new)
        _check_assets(definition, new)
        assets = {asset.name: sha256_of(asset) for asset in sorted(new.iterdir())}
        step("exporting")
        model, notes = _graph(definition, module)
        write_graph(model, path, _provenance(source, tools))
        if weights := weights_beside(path):
            assets[WEIGHTS_FILE] = sha256_of(weights)
        check_tensors(model, definition.inputs, definition.outputs, definition.name)
        session = open_session(path, device=device)
        if definition.from_graph:
            step("finding out whether its first axis is a batch")
            definition, batch = settle_batch(definition, model, session)
        step("comparing with PyTorch" if module is not None else "running it at every shape")
        parity = check_parity(definition, module, path, device)
        if not definition.from_graph:
            step("comparing rows alone and among others")
            batch = prove_batch(definition, model, session)
        check_invariant(definition, session)
        step("measuring its task") if definition.evaluate else None
        write_config(definition, target, new)
        step("warming up")
        check_warm_up(definition.name, new, session)
        card = ModelCard(
            name=definition.name,
            source=source,
            opset=opset_of(model),
            tools=tools,
            fp32_sha256=sha256_of(path),
            parity=parity,
            target=target,
            scores=_scores(definition, path),
            assets=assets,
            batch=batch,
            notes=(*notes, batch.reason) if batch.reason else notes,
            loads_in_container=not newer_format(model),
        )
        card.write(new)
    return card


def _graph(definition: Definition, module: "nn.Module | None") -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The graph of a definition, and a line for each thing that was changed in that of a file, or should be known."""
    if definition.onnx_file is None:
        return trace(definition, _required(module)), ()
    model = read_graph(definition.onnx_file)
    reshaped = reshape_ends(model)
    model, lowered = lower(model, lambda predict: _feeds(definition, predict))
    return model, (*reshaped.notes, *([lowered] if lowered else []))


def _feeds(definition: Definition, predict: Predict) -> Iterator[Feed]:
    """The samples, and random values where the model takes them."""
    yield from definition.checked("samples", definition.samples())
    with contextlib.suppress(NoRowsError):
        for kind in RandomRows(definition.inputs, predict).kinds():
            yield kind.draw(3, np.random.default_rng(0))


def trace(definition: Definition, module: "nn.Module") -> onnx.ModelProto:
    """The module's ONNX graph.

    Raises:
        ExportError: PyTorch's exporter fails; the message carries its reason.
    """
    feed = trace_feed(definition, parity_feeds(definition))
    if is_scripted(module):
        return trace_scripted(definition, module, feed)
    # PyTorch swaps how these two are traced for the time of an export, so that their length stays open, and overlooks
    # which way they remember from an export before: of a second one the length was fixed.
    for operator in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
        operator._dispatch_cache.clear()
    try:
        with quiet_exporter():
            program = torch.onnx.export(
                module,
                tuple(torch.from_numpy(feed[tensor.name]) for tensor in definition.inputs),
                input_names=[tensor.name for tensor in definition.inputs],
                output_names=[tensor.name for tensor in definition.outputs],
                dynamic_shapes=_shapes(definition, module),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        # Its own message is a page on how to go on; what failed is the cause.
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())
        raise ExportError(f"{definition.name}: PyTorch cannot export it: {type(cause).__name__}: {reason}") from error
    if program is None:
        raise ExportError(f"{definition.name}: the exporter returned nothing")
    model = program.model_proto
    open_axes(model, definition.outputs, _proved(definition))
    return model


def _proved(definition: Definition) -> set[str]:
    """Axes of several sizes in the samples: that they vary is proved when those are compared."""
    sizes: dict[str, set[int]] = {}
    for feed in definition.samples():
        for tensor in definition.inputs:
            for axis, name in tensor.varying().items():
                sizes.setdefault(name, set()).add(feed[tensor.name].shape[axis])
    return {name for name, found in sizes.items() if len(found) > 1} - {BATCH}


def _shapes(definition: Definition, module: "nn.Module") -> tuple[Any, ...]:
    """What varies, by argument of the module's forward, as PyTorch's exporter wants it."""
    # One Dim object per symbolic name: axes that share a name must be the same dimension. A sum of two is for
    # PyTorch to find; that it stays open is checked on the graph.
    dims = {name: Dim(name) for name in definition.axes()}
    shapes = tuple(
        {axis: dims.get(symbol, Dim.AUTO) for axis, symbol in tensor.varying().items()} for tensor in definition.inputs
    )
    kinds = [argument.kind for argument in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return shapes
    named = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    # What a `*rest` takes is one tuple.
    return (*shapes[:named], shapes[named:])


def _module(definition: Definition) -> "nn.Module":
    assert definition.module is not None
    module = definition.module()
    if not isinstance(module, torch.nn.Module):
        raise ExportError(f"{definition.name}: module(): expected a torch.nn.Module, got {type(module).__name__}")
    # A frozen one has no such mode.
    if getattr(module, "training", False):
        raise ExportError(f"{definition.name}: module(): expected a model in eval mode, got one in training mode")
    return module


def _check_assets(definition: Definition, folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.name in RESERVED or path.name.endswith(LABELS) or not path.is_file():
            got = f"{path.name!r}" if path.is_file() else f"a folder, {path.name!r}"
            raise ExportError(
                f"{definition.name}: assets(): expected files with names other than {', '.join(sorted(RESERVED))} and "
                f"*{LABELS}; got {got}"
            )


def _required(module: "nn.Module | None") -> "nn.Module":
    assert module is not None, "a definition without a file has a module"
    return module


def _tools() -> dict[str, str]:
    found = {}
    for tool in TOOLS:
        name = DISTRIBUTIONS["gpu"] if tool == "onnxruntime" and torch.cuda.is_available() else tool
        with contextlib.suppress(ModuleNotFoundError):
            found[name] = version(name)
    return found


def _provenance(source: Source, tools: Mapping[str, str]) -> dict[str, str]:
    about = {f"source.{key}": str(value) for key, value in source.model_dump().items()}
    return about | {f"tool.{tool}": number for tool, number in tools.items()}


def _scores(definition: Definition, path: Path) -> dict[str, float]:
    if definition.evaluate is None and not definition.gates:
        return {}
    return {name: float(np.mean(score)) for name, score in definition.evaluated(open_session(path).predict).items()}


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence what the exporter says about itself: known, harmless, and not for the user to act on."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)  # torchvision's absence
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r".*The axis name: \w+ will not be used", category=UserWarning)
        # Of the layers LSTM, GRU and EmbeddingBag, which are PyTorch's own.
        warnings.filterwarnings("ignore", message="_check_is_size will be removed", category=FutureWarning)
        warnings.filterwarnings("ignore", message="The tensor attributes? .* assigned during", category=UserWarning)
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not", category=UserWarning)
        try:
            yield
        finally:
            logger.setLevel(level)
