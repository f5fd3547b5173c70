"""A self-contained HTML page per result, which can be sent and kept as one file, and a PNG for a README."""

import base64
import io
from pathlib import Path
from typing import Final

import jinja2
import yaml
from matplotlib.figure import Figure

from bench.reporting.plot import figures, write_png
from bench.reporting.table import rows_of
from bench.scenarios.result import Result

TEMPLATE: Final = Path(__file__).with_name("report.html.j2")


def write_report(result: Result, out: Path) -> None:
    """Write NAME.html and NAME.png into a folder."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(TEMPLATE.read_text()).render(
        result=result,
        cells=list(result.pools),
        rows=rows_of(result),
        pictures={caption: _svg(figure) for caption, figure in figures(result).items()},
        definition=yaml.safe_dump(result.scenario.model_dump(mode="json", by_alias=True), sort_keys=False),
    )
    (out / f"{result.name}.html").write_text(page)
    write_png(result, out / f"{result.name}.png")


def _svg(figure: Figure) -> str:
    """The figure as SVG in base64."""
    picture = io.BytesIO()
    figure.savefig(picture, format="svg")
    return base64.b64encode(picture.getvalue()).decode()
