"""What the snapshot tells of a model: the sum over its lanes and its stateful sequences."""

from collections import Counter
from collections.abc import Iterable
from collections.abc import Sequence as Listed

from scheduler.core.queues.lane import Lane
from scheduler.core.sequences.sequence import Sequence, Sequences
from scheduler.core.snapshot import ModelSnapshot
from scheduler.core.ticket import RETRYING, Ticket


def model_snapshots(
    lanes: Iterable[Lane], sequences: Sequences, held: Iterable[Ticket], classes: Listed[str]
) -> tuple[ModelSnapshot, ...]:
    """One for each model that has a lane; costs are told of the first of its lanes.

    Args:
        lanes: all of them; a model has one, and one more for each backend that has had sequences of it.
        sequences: all of them; their waiting steps but the current ones stand in no lane.
        held: the tickets at the backends.
        classes: their names, most important first.
    """
    of_model: dict[str, list[Lane]] = {}
    for lane in lanes:
        of_model.setdefault(lane.model, []).append(lane)
    in_flight = Counter((ticket.model, ticket.priority_class) for ticket in held)
    behind: Counter[tuple[str, str]] = Counter()
    bound: dict[str, list[Sequence]] = {}
    for sequence in sequences:
        behind.update((ticket.model, ticket.priority_class) for ticket in sequence.waiting)
        bound.setdefault(sequence.model, []).append(sequence)
    return tuple(
        _model_snapshot(model, mine, behind, in_flight, classes, bound.get(model, ()))
        for model, mine in of_model.items()
    )


def _model_snapshot(
    model: str,
    lanes: list[Lane],
    behind: Counter[tuple[str, str]],
    in_flight: Counter[tuple[str, str]],
    classes: Listed[str],
    bound: Listed[Sequence],
) -> ModelSnapshot:
    batch_s, row_s = lanes[0].estimator.line(None).coefficients()
    queues = [queue for lane in lanes for queue in lane.classes]
    return ModelSnapshot(
        name=model,
        queued={
            name: behind[model, name] + sum(lane.classes[rank].queued for lane in lanes)
            for rank, name in enumerate(classes)
        },
        in_flight={name: in_flight[model, name] for name in classes},
        retrying=sum(1 for queue in queues for ticket in queue.retries if ticket.state is RETRYING),
        batch_s=batch_s,
        row_s=row_s,
        sequences=dict(Counter(sequence.backend for sequence in bound if sequence.backend)),
    )
