"""The model card: what a model is made from, and what was measured of it, as JSON beside the model."""

import os
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from export.errors import ExportError, faults
from export.filesystem.atomic_folder import write_file

CARD_FILE: Final = "model_card.json"
# Smaller files are told in kB.
MEGABYTES_FROM: Final = 1e5


class CardError(ExportError):
    """A model card cannot be read."""


class _Record(BaseModel):
    # JSON has no NaN, which a score of a model that gives none is: it is written as a string, and read back.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Source(_Record):
    """Where a model's weights, or the data it was trained on, come from."""

    package: str
    version: str
    file: str
    sha256: str
    licence: str


class Parity(_Record):
    """How closely the ONNX graph follows PyTorch."""

    max_abs_diff: float
    tolerance: float
    shapes: tuple[str, ...]


class Measure(_Record):
    """One side of a before-and-after comparison.

    `size_bytes` is the size of the ONNX file, `latency_ms` the median on one thread by the shape of the
    request, `scores` the model's own accuracy figures by name, `intervals` the 95 % confidence intervals of
    those that are means over samples.
    """

    size_bytes: int
    latency_ms: dict[str, float]
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]] = {}


class Remainder(_Record):
    """What of an INT8 form is FP32: an operator's weights, or what lies behind the last layers.

    `size_bytes` is that of the weights, `time_share` the part of the time that they, or such operators, take on one
    thread; `why` is there where the recipe would have taken them.
    """

    what: str
    size_bytes: int
    time_share: float
    why: str = ""


class Quantization(_Record):
    """What came of quantizing: the recipe, both measures, and the gate's refusals (none: INT8 is served).

    `falls` are the 95 % confidence intervals of what each score lost, sample against sample. `choice` says why
    this recipe, where a search found it. `warnings` are what speaks against INT8 that is served all the same.

    `errors` are of each output, and of the parts that the graph joins into one, how far INT8 is from FP32 in the
    channel that suffers most, as a part of what that channel varies by. `stays_fp32` is what INT8 leaves as it was.
    """

    recipe: str
    fp32: Measure
    int8: Measure
    refusals: tuple[str, ...]
    falls: dict[str, tuple[float, float]] = {}
    choice: str = ""
    warnings: tuple[str, ...] = ()
    errors: dict[str, float] = {}
    stays_fp32: tuple[Remainder, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the INT8 model is the one served."""
        return not self.refusals

    @property
    def left(self) -> str | None:
        """What stays FP32, in a line: `13.1 of 14.4 MB stay FP32: LSTM (88 % of the time)`; None: no weights do."""
        weighty = [one for one in self.stays_fp32 if one.size_bytes]
        if not weighty:
            return None
        unit, name = (1e6, "MB") if self.int8.size_bytes >= MEGABYTES_FROM else (1e3, "kB")
        sizes = [f" {one.size_bytes / unit:.1f} {name}" if len(weighty) > 1 else "" for one in weighty]
        parts = (
            f"{one.what}{size} ({one.time_share * 100:.0f} % of the time)"
            for one, size in zip(weighty, sizes, strict=True)
        )
        held = sum(one.size_bytes for one in weighty)
        return f"{held / unit:.1f} of {self.int8.size_bytes / unit:.1f} {name} stay FP32: {', '.join(parts)}"


class BatchProof(_Record):
    """What was found of a model's first axis (`export.batch_proof.proof`).

    `proved` says whether it is a batch: rows were answered alike alone, among others and in another order. `sizes` are
    the rows of the batches that were tried, `reason` says why it is none, or why nobody knows; empty where it was not
    asked. `whole` says that requests must be served one at a time, each as a whole.
    """

    proved: bool
    whole: bool = False
    sizes: tuple[int, ...] = ()
    reason: str = ""


class ModelCard(_Record):
    """All that is recorded of one model.

    `quantization` is absent until it was tried. `target` is what Triton runs the model on. `scores` are those of the
    FP32 export on the model's own task, where its definition can evaluate it.

    `batch_invariant` says whether the served model gives a row the same answer alone and among others, so that
    requests of several tenants may be merged; `batch_cosine_min` is the smallest cosine seen between the two.
    Both are absent where it was not measured.

    `assets` are the SHA-256 of the export's other files by name, but for configuration and labels.

    `loads_in_container` says whether the ONNX Runtime in Triton's container loads what is served
    (`export.graph.container_support`).

    `batch` is what was found of the first axis; absent in the cards of earlier releases. `notes` say what the export
    changed in the graph that it was given, and what of it is not served as it may have been meant.
    """

    name: str
    source: Source
    opset: int
    tools: dict[str, str]
    fp32_sha256: str
    parity: Parity
    quantization: Quantization | None = None
    batch_invariant: bool | None = None
    batch_cosine_min: float | None = None
    target: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    scores: dict[str, float] = {}
    assets: dict[str, str] = {}
    loads_in_container: bool = True
    batch: BatchProof | None = None
    notes: tuple[str, ...] = ()

    @property
    def symmetric(self) -> bool:
        """Whether INT8 must be symmetric, s8 activations and s8 weights: all that TensorRT takes."""
        return self.target == "tensorrt"

    def is_of_export(self, other: "ModelCard") -> bool:
        """Whether both are cards of one export: the same graph and assets, for the same target."""
        return (self.fp32_sha256, self.assets, self.target) == (other.fp32_sha256, other.assets, other.target)

    def as_exported(self) -> "ModelCard":
        """The card without what quantizing added."""
        added = ["quantization", "batch_invariant", "batch_cosine_min"]
        # Of FP32 it was measured by the export.
        added += ["loads_in_container"] if self.quantization is not None else []
        return self.model_copy(update={name: type(self).model_fields[name].default for name in added})

    def write(self, folder: Path) -> None:
        """Write the card into `folder`, in place of any before it. It is never there in part."""
        write_file(folder / CARD_FILE, f"{self.model_dump_json(indent=2)}\n".encode())


def has_card(folder: Path) -> bool:
    """Whether something lies where a card does, readable or not."""
    return os.path.lexists(folder / CARD_FILE)


def read_card(folder: Path) -> ModelCard:
    """The card in `folder`.

    Raises:
        CardError: there is none, or it is not a model card.
    """
    path = folder / CARD_FILE
    try:
        return ModelCard.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CardError(f"{path} is missing: run `fairlane export {folder.name}` first") from error
    except OSError as error:
        raise CardError(f"{path} is not a readable model card: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CardError(f"{path} is not a readable model card: not UTF-8: {error}") from error
    except ValidationError as error:
        raise CardError(f"{path} is not a readable model card: {faults(error)}") from error
