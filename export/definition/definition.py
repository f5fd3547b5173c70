"""The definition of a model: all that exporting, serving and judging need and that differs from model to model.

A definition is data and a few functions, in one small Python file that ends in `DEFINITION = Definition(...)`:
a file of `export/models/`, or any path that is given to `fairlane export`.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic.dataclasses import dataclass

from export.card import Source
from export.definition.gate import BATCH_COSINE, COSINE, Gate, Scores, check_names, score_of
from export.definition.serving import Serving
from export.definition.tensor import BATCH, CHECKED, Array, Feed, Outcome, Tensor, beyond, check_array
from export.errors import DefinitionError, ExportError

# A loaded model, FP32 or INT8: a feed in, all outputs by name out.
Predict = Callable[[Feed], Mapping[str, Array]]

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def _no_scores(predict: Predict) -> Scores:
    del predict
    return {}


def _no_assets(folder: Path) -> None:
    del folder


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Definition:
    """One model. The comment at the top of its file becomes the comment at the top of its config.pbtxt.

    Args:
        name: the model's name in Triton, and of its folders.
        summary: one line about it.
        inputs: what a request carries.
        outputs: what it gets, in the order in which the module returns them.
        source: where the weights come from. Reads and verifies them; called before they are loaded.
        samples: real inputs: the shortest and the longest that are to be served, and some between. The exporter
            traces with the first in which every varying axis is longer than 1, compares with PyTorch on all of
            them, and makes batches of 1, 2, 7 and max_batch_size rows of the first.
        module: makes the PyTorch model in eval mode. Its forward takes the inputs in their order and returns the
            output, a sequence of them, or a mapping by name.
        onnx_file: in place of a module, an ONNX file that is there already.
        tolerance: the largest absolute difference to PyTorch that an export may show.
        serving: how Triton serves it.
        assets: writes files that callers need, such as a tokenizer, into the version's folder.
        calibration: inputs from which INT8 takes the ranges of activations; not those that `evaluate` uses.
        evaluate: the scores of a loaded model on its task, by name; higher is better. A score is a figure, or an array
            of what each sample came to: of that the mean is the score, and it has a confidence interval.
        gates: what INT8 must still reach; else FP32 stays.
        recipe: how to quantize, as the fields of a recipe of `quantize.recipe`: {"method": "static", "calibrate":
            "entropy"}. None: by what the graph is made of.
        from_graph: whether an ONNX file is all there is, of which nobody said that its first axis is a batch.
    """

    name: str
    summary: str = ""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    source: Callable[[], Source]
    samples: Callable[[], Iterable[Feed]]
    module: Callable[[], Any] | None = None
    onnx_file: Path | None = None
    tolerance: float = 1e-5
    serving: Serving = Serving()
    assets: Callable[[Path], None] = _no_assets
    calibration: Callable[[], Iterable[Feed]] | None = None
    evaluate: Callable[[Predict], Scores] | None = None
    gates: tuple[Gate, ...] = ()
    recipe: Mapping[str, Any] | None = None
    from_graph: bool = False

    def __post_init__(self) -> None:
        """Refuse what contradicts itself, before anything is loaded."""
        if not NAME.fullmatch(self.name):
            raise DefinitionError(f"name: expected letters, digits, '_', '-' and '.', got {self.name!r}")
        if (self.module is None) == (self.onnx_file is None):
            raise DefinitionError("expected either module or onnx_file, got " + ("both" if self.module else "neither"))
        names = [tensor.name for tensor in (*self.inputs, *self.outputs)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not self.inputs or not self.outputs:
            raise DefinitionError(f"expected inputs and outputs, each name once, got {names}")
        scalars = [tensor.name for tensor in (*self.inputs, *self.outputs) if not tensor.dims]
        if scalars:
            raise DefinitionError(
                f"{scalars}: dims: expected at least one axis, got none. Triton serves no scalars: declare (1,), and "
                "have the module take and give that shape. An onnx_file is changed to it by itself"
            )
        words = [tensor.name for tensor in (*self.inputs, *self.outputs) if tensor.datatype == "STRING"]
        if words and self.module is not None:
            raise DefinitionError(f"{words}: datatype: expected one that PyTorch has, got STRING; onnx_file takes it")
        if len(self.summary.splitlines()) > 1:
            raise DefinitionError(f"summary: expected one line, got {self.summary!r}")
        if any(gate.score == BATCH_COSINE for gate in self.gates):
            raise DefinitionError(
                f"gates: expected other scores than {BATCH_COSINE!r}, of which every model has a gate"
            )
        self._check_batch()
        self._check_labels()
        unknown = (self.serving.warm_up or {}).keys() - self.axes()
        if unknown:
            raise DefinitionError(f"serving.warm_up: {sorted(unknown)} are no axes; expected some of {self.axes()}")

    def _check_batch(self) -> None:
        tensors = (*self.inputs, *self.outputs)
        inner = [tensor.name for tensor in tensors if BATCH in tensor.dims[1:]]
        if inner:
            raise DefinitionError(
                f"dims: expected {BATCH!r} as a first axis alone, got it behind the first of {inner}. Give that axis "
                "another name, such as 'n'. Must it be as long as the first axis? Name both 'n': then it is no batch"
            )
        others = [tensor.name for tensor in tensors if tensor.dims[0] != BATCH]
        if others and len(others) < len(tensors):
            raise DefinitionError(
                f"dims: expected {BATCH!r} as the first axis of every input and output or of none, got another for "
                f"{others}. Does the model take one request at a time? Name the axis otherwise, such as 'n'"
            )

    def _check_labels(self) -> None:
        unknown = self.serving.labels.keys() - {tensor.name for tensor in self.outputs}
        if unknown:
            raise DefinitionError(f"serving.labels: {sorted(unknown)} are no outputs")
        for tensor in self.outputs:
            labels, inner = self.serving.labels.get(tensor.name), tensor.dims[1 if self.batched else 0 :]
            if labels is None:
                continue
            if any(len(label.splitlines()) != 1 for label in labels):
                raise DefinitionError(
                    f"serving.labels: {tensor.name!r}: expected one line each, got an empty or a longer one"
                )
            sizes = [size for size in inner if isinstance(size, int)]
            if len(sizes) == len(inner) and prod(sizes) != len(labels):
                raise DefinitionError(
                    f"serving.labels: {tensor.name!r}: expected one for each of its {prod(sizes)} classes, "
                    f"got {len(labels)}"
                )

    def evaluated(self, predict: Predict) -> dict[str, float | Outcome]:
        """What `evaluate` says of a loaded model: figures as they are, what samples came to as FP64 [samples].

        Raises:
            DefinitionError: a score is neither, or a gate is about a score that is not there. Names model and score.
        """
        scores = (self.evaluate or _no_scores)(self._watched(predict))
        if not isinstance(scores, Mapping):
            raise DefinitionError(f"{self.name}: evaluate: expected scores by name, got {type(scores).__name__}")
        unnamed = [name for name in scores if not isinstance(name, str)]
        if unnamed:
            raise DefinitionError(f"{self.name}: evaluate: expected scores by name, got {unnamed[0]!r} for a name")
        try:
            check_names(scores)
            found = {name: score_of(name, value) for name, value in scores.items()}
        except DefinitionError as error:
            raise DefinitionError(f"{self.name}: {error}") from error
        for gate in self.gates:
            if gate.score not in (*found, COSINE):
                raise DefinitionError(
                    f"{self.name}: gates: expected one of the scores {', '.join((*found, COSINE))}; got {gate.score!r}"
                )
        return found

    def _watched(self, predict: Predict) -> Predict:
        """A model that names the feed of `evaluate` that it cannot answer."""
        number = itertools.count()

        def watched(feed: Feed) -> Mapping[str, Array]:
            what = f"{self.name}: evaluate: feed {next(number)}"
            try:
                answer = predict(feed)
            except ExportError as error:
                raise DefinitionError(f"{what}: {error}") from error
            self.check_answer(feed, answer, what)
            return answer

        return watched

    @staticmethod
    def check_answer(feed: Feed, answer: Mapping[str, Array], what: str) -> None:
        """Refuse an answer with what is no number, where the feed has such, too, or a number too large.

        Raises:
            DefinitionError: naming the input, what was expected and what came.
        """
        floats = [value for value in answer.values() if value.dtype.kind == "f"]
        if not all(np.isfinite(value).all() for value in floats) and (said := beyond(feed)):
            raise DefinitionError(f"{what}: {said}")

    @property
    def batched(self) -> bool:
        """Whether the first axis of every input and output is the batch."""
        return all(tensor.dims[:1] == (BATCH,) for tensor in (*self.inputs, *self.outputs))

    @property
    def max_batch_size(self) -> int:
        """As in config.pbtxt: 0 for a model without a batch axis."""
        return self.serving.max_batch_size if self.batched else 0

    def axes(self) -> list[str]:
        """Names of the inputs' varying axes."""
        return sorted(
            {part for tensor in self.inputs for name in tensor.varying().values() for part in name.split("+")}
        )

    def checked(self, kind: str, feeds: Any) -> Iterator[Feed]:
        """What `samples` or `calibration` gave, each as soon as it was found to fit.

        Raises:
            DefinitionError: they are no feeds, there is none, or one does not fit the declared inputs.
        """
        number = -1
        if not isinstance(feeds, Iterable):
            raise DefinitionError(f"{self.name}: {kind}: expected feeds, got {type(feeds).__name__}")
        for number, feed in enumerate(feeds):
            self.check_feed(feed, f"{self.name}: {kind} {number}")
            yield feed
        if number < 0:
            raise DefinitionError(
                f"{self.name}: {kind}: expected a feed or more each time it is called, got none: "
                "is it one iterator, which is read only once?"
            )

    def check_feed(self, feed: Feed, what: str) -> None:
        """Refuse a feed that does not fit the declared inputs.

        Args:
            feed: the tensors.
            what: what to call the feed in the message.

        Raises:
            DefinitionError: a name, datatype, rank or size differs, an axis has two sizes in one feed, or no row.
        """
        if not isinstance(feed, Mapping):
            raise DefinitionError(f"{what}: expected arrays by input name, got {type(feed).__name__}")
        if set(feed) != {tensor.name for tensor in self.inputs}:
            expected = [tensor.name for tensor in self.inputs]
            raise DefinitionError(f"{what}: expected inputs {expected}, got {list(feed)}")
        sizes: dict[str, int] = {}
        # Sums last, when their parts are known.
        for tensor in sorted(self.inputs, key=lambda one: any("+" in name for name in one.varying().values())):
            check_array(tensor, feed[tensor.name], sizes, f"{what}: input")
        if self.batched and sizes[BATCH] == 0:
            raise DefinitionError(f"{what}: {BATCH}: expected a row or more, got none")
