"""The report: one HTML file about the published models, with its plots inside, and each plot as PNG beside it."""

import base64
import itertools
from collections.abc import Callable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure
from pydantic import ValidationError

from export.card import CardError, ModelCard, Quantization
from export.definition.tensor import FloatArray
from export.errors import ExportError, about, faults
from export.inference.cosine import cosine
from export.inference.session import open_session
from export.repository.build_folder import built_folder
from export.repository.repository import Repository
from export.repository.version_content import FP32_FILE, MODEL_FILE
from quantize.judging.latency import speed_up
from quantize.reporting import plot
from quantize.searching.search import TRIALS, Trial, headline
from quantize.searching.sensitivity import sensitivities, tried_layers
from quantize.tasks.task import Runner, Task

STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .8rem; text-align: right }
th { border-bottom: 2px solid #ccc } td:first-child, th:first-child { text-align: left }
figure { display: inline-block; margin: .5rem 1rem .5rem 0; vertical-align: top }
figcaption { color: #555; font-size: .9em } img { max-width: 100% } .refused { color: #c53030 }
"""

Step = Callable[[str], None]


class ReportError(ExportError):
    """What the report is made of cannot be read."""


def search_file(build: Path, name: str) -> Path:
    """Where `fairlane quantize NAME --search` leaves its trials; a plot lies beside it."""
    return build / "quantize" / f"{name}-search.json"


def write_report(
    tasks: Mapping[str, Task], build: Path, repository: Repository, output: Path, step: Step, most: int
) -> tuple[Path, ...]:
    """Write the report, and its plots as `NAME-PLOT.png` beside it.

    Args:
        tasks: the models to report on, by name.
        build: where exports and searches lie.
        repository: where models are published.
        output: the HTML file.
        step: told what is being measured.
        most: layers of each to quantize alone, those with most weights.

    Returns:
        All files written, the report first.

    Raises:
        CardError: a model has not been quantized.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    sections, written = [], [output]
    for name, task in tasks.items():
        card = repository.card(name)
        if card is None or card.quantization is None:
            raise CardError(f"{name} has not been quantized: run `fairlane quantize {name}` first")
        with about(name):
            figures = {
                title: plot.png(figure)
                for title, figure in _figures(task, card, card.quantization, build, repository, step, most)
            }
        for title, image in figures.items():
            written.append(output.with_name(f"{name}-{title.replace(' ', '-')}.png"))
            written[-1].write_bytes(image)
        sections.append(section(card, card.quantization, figures))
    output.write_text(page(sections), encoding="utf-8")
    return tuple(written)


def _figures(
    task: Task, card: ModelCard, verdict: Quantization, build: Path, repository: Repository, step: Step, most: int
) -> Iterator[tuple[str, Figure]]:
    built = built_folder(build, card.name)
    yield "size", plot.sizes(verdict)
    yield "latency", plot.latencies(verdict)
    yield "accuracy", plot.accuracies(verdict)
    step(f"{card.name}: comparing answers")
    yield "cosines", plot.cosines(_closeness(task, built, repository.version_folder(card.name) / MODEL_FILE))
    if search_file(build, card.name).is_file():
        yield "search", plot.pareto(card.name, _trials(search_file(build, card.name)), headline(task))
    tried = len(tried_layers(task.recipe, built, most))
    count = itertools.count(1)
    found = sensitivities(
        task,
        task.recipe,
        built,
        lambda layer: step(f"{card.name}: layer {next(count)} of {tried} alone, {layer}"),
        most,
    )
    yield "layers", plot.layer_losses(found)


def _trials(path: Path) -> tuple[Trial, ...]:
    try:
        return TRIALS.validate_json(path.read_bytes())
    except ValidationError as error:
        raise ReportError(f"{path} is not what a search left: {faults(error)}; delete it or search again") from error


def _closeness(task: Task, built: Path, served: Path) -> dict[str, FloatArray]:
    models: dict[str, Runner] = {"served": open_session(served, threads=1), **task.peers()}
    reference = task.answers(open_session(built / FP32_FILE, threads=1), built, "judge")
    return {name: cosine(task.answers(model, built, "judge"), reference) for name, model in models.items()}


def page(sections: list[str]) -> str:
    """The HTML document: nothing in it is fetched from anywhere."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Quantization</title><style>{STYLE}</style>'
        f"</head><body><h1>INT8 against FP32</h1>{''.join(sections)}</body></html>\n"
    )


def section(card: ModelCard, verdict: Quantization, figures: Mapping[str, bytes]) -> str:
    """One model's part of the page."""
    served = "INT8 is served." if verdict.passed else "INT8 was refused; FP32 is served."
    lines = [
        f"<h2>{escape(card.name)}</h2>",
        f"<p>{escape(verdict.recipe)}. {served} {speed_up(verdict.fp32, verdict.int8):.2f} times as fast as FP32.</p>",
        f"<p>{escape(verdict.choice)}</p>" if verdict.choice else "",
        *(f"<p>{escape(one)}</p>" for one in _left(verdict)),
        *(f'<p class="refused">{escape(refusal)}</p>' for refusal in (*verdict.refusals, *verdict.warnings)),
        _table(verdict),
        *(_figure(title, image) for title, image in figures.items()),
    ]
    return "".join(lines)


def _left(verdict: Quantization) -> Iterator[str]:
    if verdict.left:
        yield verdict.left
    yield from (f"FP32: {one.what}: {one.why}" for one in verdict.stays_fp32 if one.why)


def _table(verdict: Quantization) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{score:.4f}</td><td>{verdict.int8.scores[name]:.4f}</td>"
        f"<td>{_span(verdict.int8.intervals.get(name))}</td><td>{_span(verdict.falls.get(name))}</td></tr>"
        for name, score in verdict.fp32.scores.items()
    )
    rows += "".join(
        f"<tr><td>error of {escape(name)}, worst channel</td><td>0</td><td>{error:.4f}</td><td></td><td></td></tr>"
        for name, error in verdict.errors.items()
    )
    head = "".join(f"<th>{one}</th>" for one in ("score", "FP32", "INT8", "INT8, 95 %", "lost, 95 %"))
    return f"<table><tr>{head}</tr>{rows}</table>"


def _span(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def _figure(title: str, image: bytes) -> str:
    data = base64.b64encode(image).decode("ascii")
    return (
        f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(title)}</figcaption></figure>"
    )
