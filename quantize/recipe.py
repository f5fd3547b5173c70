"""A recipe says, as data, how a graph is quantized. `quantize.quantizing.quantizer` carries it out.

Example: `Static(exclude=("node_conv_1",))`. In a definition: `recipe={"method": "static", "exclude": ["node_conv_1"]}`.
"""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

# In `exclude`, this prefix and an operator stand for the nodes whose first input that operator computes.
AFTER: Final = "after:"


class _Recipe(BaseModel):
    """What all recipes have.

    `exclude` names nodes that stay in FP32: a node's name, shell patterns of names (`node_MatMul_1*`), or `after:Gelu`
    for every node that reads what a Gelu computed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    exclude: tuple[str, ...] = ()

    def _left_out(self) -> str:
        return f"; FP32: {', '.join(self.exclude)}" if self.exclude else ""


class Static(_Recipe):
    """u8 activations with ranges from calibration, s8 weights with a scale a channel, as QDQ pairs.

    `symmetric`: s8 activations with zero in the middle instead, all that TensorRT takes; on the CPU it is slower.
    `operators`: which operators, where their weights are constants; none: all layers, and what lies between them.
    `calibrate`: the full range seen (minmax), or the one that loses the least information (entropy; Migacz, "8-bit
    inference with TensorRT", 2017). `smooth`: the strength of activation smoothing, see
    `quantize.quantizing.activation_smoothing`.
    """

    method: Literal["static"] = "static"
    operators: tuple[str, ...] = ()
    calibrate: Literal["minmax", "entropy"] = "minmax"
    smooth: Annotated[float, Field(gt=0, lt=1)] | None = None
    symmetric: bool = False

    @property
    def summary(self) -> str:
        """The recipe in one line."""
        activations = "symmetric s8" if self.symmetric else "u8"
        what = " and ".join(self.operators) or "layers with weights and what lies between them"
        smooth = f", smoothing {self.smooth}" if self.smooth else ""
        return (
            f"static QDQ, {activations} activations, s8 weights per channel, {self.calibrate}{smooth}; "
            f"{what}{self._left_out()}"
        )


class Dynamic(_Recipe):
    """u8 activations with one range a tensor, taken from the request itself: not batch-invariant."""

    method: Literal["dynamic"] = "dynamic"

    @property
    def summary(self) -> str:
        """The recipe in one line."""
        return f"dynamic, one range a batch, s8 weights per channel; MatMul, Gemm and Gather{self._left_out()}"


class WeightOnly(_Recipe):
    """FP32 activations, weights of `bits` bits with a scale for each `block` of them (MatMulNBits).

    `keep_grid`: a matrix whose weights were quantized in blocks of 32 before stays on that grid: of 4 bits with a
    least value each (`quantize.quantizing.four_bit_grid`), or of 8 bits around 0, as two times 4
    (`quantize.quantizing.byte_grid`). `fuse`: a decoder's layers become ONNX Runtime's own kernels first, and
    `exclude` names layers of that graph; see `quantize.graph.decoder_fusion`.
    """

    method: Literal["weight_only"] = "weight_only"
    bits: Literal[4, 8] = 8
    block: Literal[16, 32, 64, 128] = 32
    keep_grid: bool = False
    fuse: bool = False

    @property
    def summary(self) -> str:
        """The recipe in one line."""
        grid = ", a grid of 4 or 8 bits that they are on is kept" if self.keep_grid else ""
        fused = "fused layers, " if self.fuse else ""
        return (
            f"{fused}weights only, {self.bits} bits, blocks of {self.block}{grid}; "
            f"MatMul, and s8 tables{self._left_out()}"
        )


class PerToken(_Recipe):
    """u8 activations: one scale a token behind GELU and ReLU, calibrated ranges elsewhere.

    See `quantize.quantizing.per_token`. `smooth`: the strength of activation smoothing, see
    `quantize.quantizing.activation_smoothing`.
    """

    method: Literal["per_token"] = "per_token"
    smooth: Annotated[float, Field(gt=0, lt=1)] | None = None

    @property
    def summary(self) -> str:
        """The recipe in one line."""
        smooth = f", smoothing {self.smooth}" if self.smooth else ""
        return (
            "integer kernels, u8 activations (a scale a token behind GELU and ReLU, MinMax elsewhere), "
            f"s8 weights per channel{smooth}; MatMul, and tables per row{self._left_out()}"
        )


Recipe = Annotated[Static | Dynamic | WeightOnly | PerToken, Field(discriminator="method")]
