"""A played scenario as a picture: each ticket's wait, and who had the service from second to second."""

from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulate.scenario import Scenario
from simulate.world.record import Record
from simulate.world.world import World

# Okabe and Ito's palette: told apart by colour-blind readers.
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
OTHERS: Final = "#999999"
# Of the time axis of the right-hand picture.
BINS: Final = 40
# What a wait of nothing is drawn as on a logarithmic axis.
LEAST_MS: Final = 0.1


def write_plot(world: World, scenario: Scenario, path: Path) -> None:
    """Draw the picture as PNG, 1650 x 780 pixels.

    Left, each ticket by its arrival: a dot at its wait, or a cross on the top edge where it was refused. Right,
    service seconds a second. The six with most tickets have colours, all others are grey.

    Args:
        world: after it was played.
        scenario: what was played in it.
        path: of the file.
    """
    mpl.use("Agg")  # no display needed
    series = _series(world)
    figure = Figure(figsize=(11, 5.2), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    for label, (colour, records) in series.items():
        _draw_waits(left, label, colour, records)
    _draw_service(right, scenario, series)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False, markerscale=3)
    figure.suptitle(f"{scenario.name}: {scenario.text}", fontsize=11)
    figure.savefig(path)


def _series(world: World) -> dict[str, tuple[str, list[Record]]]:
    by_who: dict[str, list[Record]] = {}
    for record in world.records:
        by_who.setdefault(f"{record.ticket.priority_class} {record.ticket.tenant}", []).append(record)
    order = sorted(by_who, key=lambda who: -len(by_who[who]))
    series = {who: (colour, by_who[who]) for who, colour in zip(order, COLOURS, strict=False)}
    others = order[len(COLOURS) :]
    if others:
        series[f"{len(others):,} others"] = (OTHERS, [record for who in others for record in by_who[who]])
    return series


def _draw_waits(axes: Axes, label: str, colour: str, records: list[Record]) -> None:
    served = [record for record in records if record.completed]
    refused = [record.arrived_at for record in records if not record.completed]
    waits_ms = [max(LEAST_MS, 1000 * record.wait_s) for record in served]
    axes.scatter(
        [r.arrived_at for r in served], waits_ms, s=2, color=colour, linewidths=0, label=label, rasterized=True
    )
    axes.plot(refused, [1.0] * len(refused), "x", color=colour, markersize=3, transform=axes.get_xaxis_transform())
    axes.set_yscale("log")
    axes.set_xlabel("arrival, virtual s (cross: refused)")
    axes.set_ylabel("wait until an instance took it, ms")
    axes.grid(visible=True, which="major", color="#eeeeee")
    axes.set_axisbelow(True)


def _draw_service(axes: Axes, scenario: Scenario, series: dict[str, tuple[str, list[Record]]]) -> None:
    width_s = scenario.seconds / BINS
    stacks = []
    for _, records in series.values():
        service_s = [0.0] * BINS
        for record in records:
            if record.completed and record.ended_at is not None and record.ended_at < scenario.seconds:
                service_s[min(BINS - 1, int(record.ended_at / width_s))] += record.service_s / width_s
        stacks.append(service_s)
    middles = [(number + 0.5) * width_s for number in range(BINS)]
    axes.stackplot(middles, stacks, colors=[colour for colour, _ in series.values()])
    axes.set_xlim(0, scenario.seconds)
    axes.set_xlabel("virtual s")
    axes.set_ylabel("service seconds a second")
