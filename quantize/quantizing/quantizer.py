"""The quantizer: an FP32 graph and a recipe in, an INT8 graph out."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper
from onnx_ir.passes.common import TopologicalSortPass
from onnxruntime.quantization import (
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from export.graph.onnx_graph import GraphError, read_graph, write_graph
from quantize.graph.decoder_fusion import fuse
from quantize.graph.gemm import products_of_gemm
from quantize.graph.layers import layers, quantized, weight_place
from quantize.graph.node_replacement import replace_nodes
from quantize.graph.postprocessing import postprocessing_nodes
from quantize.graph.transposed_weights import fold_transposed
from quantize.quantizing.activation_ranges import observe
from quantize.quantizing.activation_smoothing import smooth
from quantize.quantizing.block_products import INT8_ACCURACY
from quantize.quantizing.byte_grid import on_byte_grid, quantize_on_byte_grid
from quantize.quantizing.calibration import Calibration, CalibrationError, FeedReader, check_inputs
from quantize.quantizing.four_bit_grid import on_grid, quantize_on_grid
from quantize.quantizing.onnxruntime_quantizers import failing, is_apart, quiet, through_files
from quantize.quantizing.per_token import is_per_token, quantize_per_token
from quantize.quantizing.postprocessing_ranges import bypass, coarse_layers
from quantize.recipe import Dynamic, PerToken, Recipe, Static, WeightOnly

# A scale a channel is along an axis, which DequantizeLinear has since then.
LEAST_OPSET: Final = 13

# Types of quantized weights.
SHORT: Final = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT4, onnx.TensorProto.UINT4)

# Types of weights that no recipe takes.
OTHER: Final = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)

CALIBRATORS: Final = {"minmax": CalibrationMethod.MinMax, "entropy": CalibrationMethod.Entropy}


def quantize_graph(
    recipe: Recipe, calibration: Calibration, fp32: Path, int8: Path, spare: Collection[str] = ()
) -> Mapping[str, str]:
    """Write the INT8 form of a graph.

    Args:
        recipe: what to quantize, and how.
        calibration: gives real inputs from which the ranges of activations are taken.
        fp32: the graph to read.
        int8: the file to write.
        spare: nodes that stay FP32 besides those that the recipe leaves out.

    Returns:
        Why layers, by name, stay FP32 that the recipe would take; "" is the end of the graph, behind the last layers.

    Raises:
        GraphError: `fp32` is not a readable graph, or the result is not a valid one. Names the file.
        UnknownLayerError: the recipe leaves out a layer that is not there.
        CalibrationError: the calibration inputs give no ranges.
        FusionError: the recipe fuses, and there is nothing to fuse.
    """
    model = prepared_graph(recipe, fp32)
    names = tuple(name for name in quantized(recipe, model.graph) if name not in spare)
    if not names:
        # ONNX Runtime's quantizers take an empty list for all nodes.
        write_graph(model, int8)
        return {}
    whys: dict[str, str] = {}
    _check_weights(model, names, fp32)
    if isinstance(recipe, PerToken | Static):
        check_inputs(_quantized_inputs(recipe, model, names), calibration())
    if isinstance(recipe, PerToken):
        _per_token(recipe, model, names, calibration)
    elif isinstance(recipe, Static):
        model = _static(recipe, model, names, calibration, whys, spare)
    elif isinstance(recipe, Dynamic):
        model = _dynamic(model, names)
    else:
        model = _weight_only(recipe, model, names)
    write_graph(_sorted(model), int8)
    return whys


def _sorted(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, each node behind those that it reads, as ONNX asks for.

    ONNX Runtime's quantizers sort without a look into the bodies of Loop and If, and put what those read behind them.
    """
    if not any(one.type == onnx.AttributeProto.GRAPH for node in model.graph.node for one in node.attribute):
        return model
    graph = ir.from_proto(model)
    TopologicalSortPass()(graph)
    return ir.to_proto(graph)


def check_quantized(name: str, recipe: Recipe, fp32: Path, int8: Path) -> None:
    """Refuse an INT8 form that is none: no matrix, kernel or table of it has fewer bits than before.

    Raises:
        GraphError: saying what the recipe was to quantize, and what the graph is made of.
    """
    if _short_weights(onnx.load(int8)) > _short_weights(onnx.load(fp32)):
        return
    graph = prepared_graph(recipe, fp32).graph
    if others := _other_weights(graph):
        raise GraphError(
            f"{name}: {recipe.summary}: expected FP32 weights to quantize, got {', '.join(others)}: export the model "
            "in FP32, as with `.float()`"
        )
    names = quantized(recipe, graph)
    have, taken = (
        ", ".join(sorted({node.op_type for node in graph.node if node.name in of}))
        for of in ({node.name for node in graph.node}, names)
    )
    raise GraphError(
        f"{name}: {recipe.summary}: expected weights to quantize, got none. The graph has {have}. The "
        f"recipe takes {taken or 'none'}"
    )


def _other_weights(graph: onnx.GraphProto) -> list[str]:
    """Types of weights in FP16, BF16 or FP64, of which no recipe makes INT8."""
    found = {one.data_type for one in graph.initializer if one.data_type in OTHER and len(one.dims) > 1}
    return sorted(onnx.TensorProto.DataType.Name(one) for one in found)


def _short_weights(model: onnx.ModelProto) -> int:
    return sum(one.data_type in SHORT and len(one.dims) > 1 for one in model.graph.initializer)


def _check_weights(model: onnx.ModelProto, names: Sequence[str], path: Path) -> None:
    weights = {one.name: one for one in model.graph.initializer}
    for node in model.graph.node:
        place = weight_place(node, weights) if node.name in names else None
        if place is None:
            continue
        values = numpy_helper.to_array(weights[node.input[place]])
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            worst = values[~np.isfinite(values)][0]
            raise GraphError(f"{path}: weights of {node.name!r}: expected numbers, got {worst:g}")


def prepared_graph(recipe: Recipe, path: Path) -> onnx.ModelProto:
    """The graph whose layers a recipe is about: as it is on disk, or fused.

    Raises:
        GraphError: as `named_graph`.
        FusionError: the recipe fuses, and there is nothing to fuse.
    """
    model = named_graph(path)
    return fuse(model) if isinstance(recipe, WeightOnly) and recipe.fuse else model


def named_graph(path: Path) -> onnx.ModelProto:
    """A graph from disk, checked, in which every node has a name, and weights that are transposed are constants.

    Raises:
        GraphError: naming the file, and what is wrong with it.
    """
    model = read_graph(path)
    try:
        # By its path: the graph may be too large for one message.
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise GraphError(f"{path}: onnx.checker refuses it: {error}") from error
    fold_transposed(model.graph)
    _name_nodes(model.graph)
    return model


def _name_nodes(graph: onnx.GraphProto) -> None:
    taken = {node.name for node in graph.node}
    for place, node in enumerate(graph.node):
        if not node.name:
            names = (f"{node.op_type}_{place}{'_' * more}" for more in itertools.count())
            node.name = next(name for name in names if name not in taken)
            taken.add(node.name)


def _per_token(recipe: PerToken, model: onnx.ModelProto, names: Sequence[str], calibration: Calibration) -> None:
    if recipe.smooth is not None:
        ranged = _ranged_inputs(model, names)
        smooth(model, names, observe(model, ranged, calibration()), recipe.smooth)
    seen = observe(model, _ranged_inputs(model, names), calibration())
    quantize_per_token(model, names, seen)


def _ranged_inputs(model: onnx.ModelProto, names: Sequence[str]) -> list[str]:
    """The activations that get their range from calibration."""
    products = {
        layer.name for layer in layers(model.graph) if layer.operator == "MatMul" and not is_per_token(layer.producer)
    }
    inputs = [node.input[0] for node in model.graph.node if node.name in products and node.name in names]
    return list(dict.fromkeys(inputs))


def _quantized_inputs(recipe: PerToken | Static, model: onnx.ModelProto, names: Sequence[str]) -> list[str]:
    """The graph's inputs that are activations with a range of their own."""
    readers = [node for node in model.graph.node if node.name in names]
    read = _ranged_inputs(model, names) if isinstance(recipe, PerToken) else [x for node in readers for x in node.input]
    return [one.name for one in model.graph.input if one.name in read]


def _static(
    recipe: Static,
    model: onnx.ModelProto,
    names: Sequence[str],
    calibration: Calibration,
    whys: dict[str, str],
    spare: Collection[str],
) -> onnx.ModelProto:
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < LEAST_OPSET:
        raise GraphError(f"static quantization: expected a graph of opset {LEAST_OPSET} or newer, got {opset}")
    if recipe.smooth is not None:
        inputs = [node.input[0] for node in model.graph.node if node.name in names and node.op_type == "MatMul"]
        smooth(model, names, observe(model, inputs, calibration()), recipe.smooth)
        replace_nodes(model.graph, model.graph.node)

    def run(prepared: Path, raw: Path) -> None:
        chosen = _named_or_made(prepared, model, names) if recipe.operators else _all_but(prepared, model, names)
        graph = onnx.load(prepared)
        left = {*spare, *_made_of(graph.graph, model, spare)}
        coarse = {} if recipe.symmetric else coarse_layers(graph, calibration(), left)
        known = {layer.name for layer in layers(graph.graph)}
        if known & {name for name in chosen if name not in coarse}:
            # Else nothing would be left in INT8, and what it loses is told.
            chosen = [name for name in chosen if name not in coarse]
            whys.update(coarse)
            left |= {*coarse}
        if not recipe.operators:
            whys[""] = "no range is shared by what is joined there"
        try:
            quantize_static(
                str(prepared),
                str(raw),
                FeedReader(calibration()),
                quant_format=QuantFormat.QDQ,
                nodes_to_quantize=chosen,
                activation_type=QuantType.QInt8 if recipe.symmetric else QuantType.QUInt8,
                # u8 weights would be six times slower than FP32 on a convolution.
                weight_type=QuantType.QInt8,
                per_channel=True,
                use_external_data_format=is_apart(prepared),
                calibrate_method=CALIBRATORS[recipe.calibrate],
                extra_options=_static_options(recipe),
            )
        except Exception:  # of whatever class: onnxruntime's, numpy's, Python's
            _blame(prepared, calibration)
            raise
        if endless := _endless(raw):
            _blame(prepared, calibration)
            raise CalibrationError(f"{endless} in the graph: expected ranges with an end, got ones without")
        taken.update(chosen)
        ends.update(left | postprocessing_nodes(graph.graph))

    taken: set[str] = set()
    ends: set[str] = set()
    result = through_files(model, run)
    if not recipe.symmetric:
        bypass(result, taken, ends - taken)
    return result


def _blame(prepared: Path, calibration: Calibration) -> None:
    """Name the calibration input that is to blame, where one is: it is an error then. Runs the graph on all of them."""
    model = onnx.load(prepared)
    tensors = {one.name: one.type.tensor_type for one in (*model.graph.value_info, *model.graph.output)}
    computed = [name for node in model.graph.node for name in node.output if name in tensors]
    floats = [
        name for name in computed if tensors[name].elem_type == onnx.TensorProto.FLOAT and tensors[name].shape.dim
    ]
    observe(model, floats, calibration())


def _endless(raw: Path) -> list[str]:
    """Activations whose scale is no number."""
    model = onnx.load(raw)
    scales = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    steps = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[1] in scales]
    return [node.input[0] for node in steps if not np.isfinite(scales[node.input[1]]).all()]


def _static_options(recipe: Static) -> dict[str, Any]:
    # One feed at a time: the collector of histograms cannot put feeds of several lengths together.
    options: dict[str, Any] = {"CalibStridedMinMax": 1} if recipe.calibrate == "entropy" else {}
    if recipe.symmetric:
        # TensorRT takes no zero points, no s32 bias behind a DequantizeLinear, and fuses a pair for each reader.
        options |= {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "DedicatedQDQPair": True,
            # TensorRT fuses what follows a product into it, and one ranged before its ReLU6 loses most of the range.
            "OpTypesToExcludeOutputQuantization": list(recipe.operators),
        }
    return options


def _dynamic(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    products_of_gemm(model)
    return through_files(
        model,
        lambda prepared, raw: quantize_dynamic(
            str(prepared),
            str(raw),
            nodes_to_quantize=_present(prepared, names),
            weight_type=QuantType.QInt8,
            per_channel=True,
            use_external_data_format=is_apart(prepared),
        ),
        fused=False,
    )


def _weight_only(recipe: WeightOnly, model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    with quiet():
        # Imported late, as it configures the root logger when it is imported.
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer  # noqa: PLC0415

    if recipe.keep_grid:
        # In this order: what lies on both takes less in 4 bits.
        for on, quantize_on in ((on_grid, quantize_on_grid), (on_byte_grid, quantize_on_byte_grid)):
            kept = on(model, names)
            quantize_on(model, kept)
            names = [name for name in names if name not in kept]
    products = {node.name for node in model.graph.node if node.op_type == "MatMul"}
    kept_out = [name for name in products if name not in names]
    quantizer = MatMulNBitsQuantizer(
        model,
        bits=recipe.bits,
        block_size=recipe.block,
        is_symmetric=True,
        accuracy_level=INT8_ACCURACY,
        nodes_to_exclude=kept_out,
        op_types_to_quantize=("MatMul",),
    )
    with quiet(), failing():
        quantizer.process()
    result: onnx.ModelProto = quantizer.model.model
    if tables := [name for name in names if name not in products]:
        quantize_per_token(result, tables, {})
    return result


def _present(prepared: Path, names: Sequence[str]) -> list[str]:
    # Preparing fuses nodes; what is gone cannot be named.
    there = {node.name for node in onnx.load(prepared).graph.node}
    return _some([name for name in names if name in there], names)


def _named_or_made(prepared: Path, model: onnx.ModelProto, names: Sequence[str]) -> list[str]:
    """The named nodes in the prepared graph, and those that preparing made of them."""
    graph = onnx.load(prepared).graph
    wanted = {*names, *_made_of(graph, model, names)}
    return _some([node.name for node in graph.node if node.name in wanted], names)


def _all_but(prepared: Path, model: onnx.ModelProto, names: Sequence[str]) -> list[str]:
    """Every node of the prepared graph, also those that preparing made, but for what the recipe leaves out."""
    graph = onnx.load(prepared).graph
    left_out = {node.name for node in model.graph.node} - set(names)
    left_out |= _made_of(graph, model, left_out)
    return [node.name for node in graph.node if node.name not in left_out]


def _made_of(prepared: onnx.GraphProto, model: onnx.ModelProto, names: Collection[str]) -> set[str]:
    """What preparing made of the named layers: of a product and its bias, one node with the product's weights."""
    known = {node.name for node in model.graph.node}
    matrices = {layer.matrix for layer in layers(model.graph) if layer.name in names}
    return {layer.name for layer in layers(prepared) if layer.name not in known and layer.matrix in matrices}


def _some(found: list[str], names: Sequence[str]) -> list[str]:
    if not found:
        raise GraphError(f"no layer is left to quantize: preparing the graph replaced {', '.join(names)}")
    return found
