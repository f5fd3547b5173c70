"""`fairlane infer`: one request to a running Fairlane, through the SDK, for the two models that have a demo input."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import click
import fairlane
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tokenizers import Tokenizer

DEFAULT_ADDRESS: Final = "127.0.0.1:9001"
DEFAULT_MODEL_REPOSITORY: Final = "model_repository"
# Someone is looking at the screen: long enough for a background request to get its turn, short enough to wait for.
DEFAULT_TIMEOUT_S: Final = 10.0


class Demo(Protocol):
    """A request made of what the user typed, and how its answer is shown."""

    output: str
    inputs: dict[str, npt.NDArray[Any]]

    def payload(self, output: npt.NDArray[Any]) -> dict[str, Any]:
        """Return the answer for a machine."""

    def table(self, output: npt.NDArray[Any]) -> Table:
        """Return the answer for a person."""


class Sentences:
    """minilm: how much sentences mean the same.

    `inputs` are `input_ids` and `attention_mask`, INT64 [sentences, longest]; the output is FP32 [sentences, 384].
    """

    output = "sentence_embedding"

    def __init__(self, sentences: Sequence[str], folder: Path) -> None:
        self._sentences = list(sentences)
        tokenizer = Tokenizer.from_file(str(_present(folder / "tokenizer.json")))
        tokenizer.enable_padding()
        encoded = tokenizer.encode_batch(self._sentences)
        self.inputs: dict[str, npt.NDArray[Any]] = {
            "input_ids": np.array([row.ids for row in encoded], np.int64),
            "attention_mask": np.array([row.attention_mask for row in encoded], np.int64),
        }

    def payload(self, output: npt.NDArray[Any]) -> dict[str, Any]:
        """Sentences and their cosine similarities, row by row."""
        return {"sentences": self._sentences, "similarity": _cosine(output).tolist()}

    def table(self, output: npt.NDArray[Any]) -> Table:
        """One row and one column per sentence."""
        table = Table("cosine similarity", show_lines=True)
        for sentence in self._sentences:
            table.add_column(Text(sentence), justify="right")
        for sentence, row in zip(self._sentences, _cosine(output), strict=True):
            table.add_row(Text(sentence), *(f"{value:.3f}" for value in row))
        return table


class Digits:
    """digits: which digit an 8 x 8 image shows.

    `inputs` is `image`, FP32 [samples, 1, 8, 8], values 0 to 1; the output is FP32 logits [samples, 10].
    """

    output = "logits"

    def __init__(self, samples: Sequence[int], folder: Path) -> None:
        with np.load(_present(folder / "samples.npz")) as held:
            images, labels = held["image"], held["label"]
        for sample in samples:
            if not 0 <= sample < len(images):
                raise click.UsageError(f"--sample: expected a number from 0 to {len(images) - 1}; got {sample}")
        self._samples = list(samples)
        self._labels = labels[self._samples].tolist()
        self.inputs: dict[str, npt.NDArray[Any]] = {"image": images[self._samples]}

    def payload(self, output: npt.NDArray[Any]) -> dict[str, Any]:
        """One record per sample; confidence is the softmax of the logits."""
        names = ("sample", "label", "predicted", "confidence")
        return {"samples": [dict(zip(names, row, strict=True)) for row in self._rows(output)]}

    def table(self, output: npt.NDArray[Any]) -> Table:
        """One row per sample."""
        table = Table("sample", "true digit", "predicted", "confidence")
        for sample, label, predicted, confidence in self._rows(output):
            style = "green" if label == predicted else "red"
            table.add_row(str(sample), str(label), Text(str(predicted), style), f"{confidence:.1%}")
        return table

    def _rows(self, logits: npt.NDArray[Any]) -> list[tuple[int, int, int, float]]:
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        predicted = shares.argmax(axis=1).tolist()
        return list(zip(self._samples, self._labels, predicted, shares.max(axis=1).tolist(), strict=True))


@click.command()
@click.argument("model")
@click.option("--text", "texts", multiple=True, help="minilm: a sentence; give it once for each.")
@click.option("--sample", "samples", multiple=True, type=int, help="digits: number of a test image; may be repeated.")
@click.option("--priority", help="Class of the request: interactive, background, ...  [default: the server's]")
@click.option("--tenant", help="Who is asking.  [default: the server's]")
@click.option("--api-key", envvar="FAIRLANE_API_KEY", show_envvar=True, help="Key of the tenant.")
@click.option("--address", envvar="FAIRLANE_ADDRESS", default=DEFAULT_ADDRESS, show_default=True, show_envvar=True)
@click.option("--timeout-s", type=click.FloatRange(min=0, min_open=True), default=DEFAULT_TIMEOUT_S, show_default=True)
@click.option(
    "--model-repository",
    type=click.Path(path_type=Path),
    default=DEFAULT_MODEL_REPOSITORY,
    show_default=True,
    help="Where the tokenizer of minilm and the samples of digits lie.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def infer(  # noqa: PLR0913, PLR0917 - one argument per option, as click passes them
    model: str,
    texts: tuple[str, ...],
    samples: tuple[int, ...],
    priority: str | None,
    tenant: str | None,
    api_key: str | None,
    address: str,
    timeout_s: float,
    model_repository: Path,
    as_json: bool,
) -> None:
    """Send one request to a running Fairlane and print the answer.

    MODEL is minilm (sentences by --text, printed as cosine similarities) or digits (test images by --sample, printed
    as the digit seen beside the true one).
    """
    demo = _demo(model, texts, samples, model_repository)
    with fairlane.Client(address, priority=priority, tenant=tenant, api_key=api_key, timeout_s=timeout_s) as client:
        try:
            result = client.infer(model, demo.inputs, outputs=[demo.output])
        except fairlane.FairlaneError as error:
            raise click.ClickException(" ".join(_explained(error, address).split())) from error
    output = result[demo.output]
    if as_json:
        about = {"model": result.model, "version": result.version, "attempts": result.attempts}
        click.echo(json.dumps(about | demo.payload(output)))
    else:
        Console().print(demo.table(output))


def _demo(model: str, texts: Sequence[str], samples: Sequence[int], repository: Path) -> Demo:
    match model:
        case "minilm":
            _only("minilm", "--text", texts, "--sample", samples)
            return Sentences(texts, _version_folder(repository / model))
        case "digits":
            _only("digits", "--sample", samples, "--text", texts)
            return Digits(samples, _version_folder(repository / model))
        case _:
            raise click.UsageError(f"MODEL: expected minilm or digits, which have a demo input; got {model!r}")


def _only(model: str, wanted: str, given: Sequence[Any], unwanted: str, others: Sequence[Any]) -> None:
    example = '--text "a cat on the sofa" --text "a kitten on the couch"' if wanted == "--text" else "--sample 7"
    if others:
        raise click.UsageError(f"{model}: expected {wanted}; got {unwanted}")
    if not given:
        raise click.UsageError(f"{model}: expected at least one {wanted}, for example {example}; got none")


def _version_folder(folder: Path) -> Path:
    versions = [path for path in folder.glob("*") if path.is_dir() and path.name.isdecimal()]
    if not versions:
        raise click.ClickException(f"{folder}: expected a version folder, such as {folder / '1'}; run `make models`")
    return max(versions, key=lambda path: int(path.name))


def _present(path: Path) -> Path:
    if not path.is_file():
        raise click.ClickException(f"{path}: expected this file; run `make models`")
    return path


def _explained(error: fairlane.FairlaneError, address: str) -> str:
    match error:
        case fairlane.Overloaded(retry_after_s=float(wait_s)):
            return f"{address} has no room: {error.message}; come back in {wait_s:g} s"
        case fairlane.Overloaded():
            return f"{address} has no room: {error.message}; it named no time to come back"
        case fairlane.Unavailable(never_sent=True):
            return f"nothing answers at {address}; start the server with `make serve` ({error.message})"
        case fairlane.Unavailable():
            return f"{address} can not serve now: {error.message}"
        case _:
            return f"{error.code}: {error.message}"


def _cosine(embeddings: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Cosines between all rows of [n, d], as [n, n]; the model's rows have length 1 or, INT8, nearly so."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(unit @ unit.T)
