"""Why a request took as long as it did: its journey as a timeline, the largest part named.

What it waited behind is read from the ring: the batches of its model that left while it waited, and whose
requests rode in them.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from scheduler.core.backends.backend import Batch
from scheduler.core.outcome import Outcome
from scheduler.core.ticket import Ticket
from scheduler.telemetry.journey import Journal, Journey
from scheduler.telemetry.tenants import REFUSALS

# Below this a wait is the scheduler's own work and not worth a reason.
NOTHING_S: Final = 0.001


def summarize(journey: Journey) -> dict[str, Any]:
    """The journey in short: what it was, how it ended, and the parts of its time."""
    ticket = journey.ticket
    parts = _parts(journey)
    return {
        "id": journey.name,
        "class": ticket.priority_class,
        "tenant": ticket.tenant,
        "model": ticket.model,
        "rows": ticket.rows,
        "outcome": None if journey.outcome is None else journey.outcome.value,
        "total_s": journey.total_s,
        "parts": parts,
        "largest": max(parts, key=lambda part: parts[part]),
    }


def explain(journey: Journey, journal: Journal) -> dict[str, Any]:
    """The whole journey: its summary, its steps, its batch, and a sentence that says what the largest part was."""
    ticket = journey.ticket
    summary = summarize(journey)
    return summary | {
        "ticket": ticket.ticket_id,
        "queue_bytes": ticket.queue_bytes,
        "pushback_s": journey.pushback_s,
        "tries": journey.tries,
        "virtual": {"when_queued": ticket.queued_tag, "turn": ticket.start_tag},
        "why": _why(journey, summary["parts"], summary["largest"], journal),
        "timeline": _timeline(journey),
        "batch": None if journey.batch is None else _batch(journey.batch, ticket),
    }


def _batch(batch: Batch, ticket: Ticket) -> dict[str, Any]:
    mates = Counter((mate.priority_class, mate.tenant) for mate in batch.tickets if mate is not ticket)
    return {
        "id": batch.batch_id,
        "backend": batch.backend,
        "rows": batch.rows,
        "requests": len(batch.tickets),
        "mates": [
            {"class": name, "tenant": tenant, "requests": count} for (name, tenant), count in mates.most_common()
        ],
        "estimate_s": batch.estimate_s,
    }


def _parts(journey: Journey) -> dict[str, float]:
    """The total cut into named parts, in order; they add up to it."""
    end = journey.ended_at or journey.queued_at
    parts = {"checking": journey.queued_at - journey.arrived}
    batch = journey.batch
    if journey.dispatched_at is None or batch is None:
        return parts | {"queue": end - journey.queued_at}
    parts["queue"] = journey.dispatched_at - journey.queued_at
    if batch.dispatched_at > journey.dispatched_at:
        parts["failed try"] = batch.dispatched_at - journey.dispatched_at
    began = min(batch.began, end)
    parts["ready at the backend"] = began - batch.dispatched_at
    parts["backend"] = end - began
    return parts


def _timeline(journey: Journey) -> list[dict[str, Any]]:
    """What happened when, in seconds from the arrival."""
    ticket, batch = journey.ticket, journey.batch
    steps = [(journey.arrived, "arrived"), (journey.queued_at, f"checked, handed to the scheduler as {_who(journey)}")]
    if journey.dispatched_at is not None and batch is not None:
        if batch.dispatched_at > journey.dispatched_at:
            steps.append((journey.dispatched_at, "left in a batch that failed, and was queued to be tried alone"))
        steps.append((batch.dispatched_at, f"left for {batch.backend} in batch {batch.batch_id}: {_riders(journey)}"))
        if batch.started_at is not None and batch.started_at > batch.dispatched_at:
            steps.append((batch.started_at, "an instance became free for the batch"))
    if journey.first_response_at is not None:
        steps.append((journey.first_response_at, "its first response came"))
    if journey.ended_at is not None and journey.outcome is not None:
        told = "" if journey.pushback_s is None else f", told to come again after {journey.pushback_s:.1f} s"
        steps.append((journey.ended_at, journey.outcome.value.replace("_", " ") + told))
    if ticket.deadline is not None:
        steps.append((ticket.deadline, "its deadline"))
    return [{"after_s": at - journey.arrived, "what": what} for at, what in sorted(steps, key=lambda step: step[0])]


def _why(journey: Journey, parts: dict[str, float], largest: str, journal: Journal) -> str:
    if journey.outcome in REFUSALS and journey.dispatched_at is None and parts["queue"] < NOTHING_S:
        return f"Refused on arrival: {_words(journey.outcome)}."
    if journey.total_s < NOTHING_S:
        return "Nothing took long."
    reasons: dict[str, Callable[[], str]] = {
        "queue": lambda: f"were spent in the queue. {_waited_behind(journey, journal)}",
        "checking": lambda: "passed before it was queued: the model was looked up at the backends.",
        "failed try": lambda: "went to a batch that failed; the request was then tried alone.",
        "ready at the backend": lambda: "its batch lay ready at the backend, behind one that was still running.",
        "backend": lambda: f"were the backend's own. {_against_estimate(journey, parts['backend'])}",
    }
    return f"{_ms(parts[largest])} of {_ms(journey.total_s)} {reasons[largest]()}"


def _waited_behind(journey: Journey, journal: Journal) -> str:
    """Whose requests of the same model left while this one waited, as far back as the ring goes."""
    until = journey.dispatched_at if journey.dispatched_at is not None else journey.ended_at
    batches = {
        other.batch.batch_id: other.batch
        for other in journal
        if other.batch is not None
        and other.batch is not journey.batch
        and other.ticket.model == journey.ticket.model
        and until is not None
        and journey.queued_at <= other.batch.dispatched_at <= until
    }
    if not batches:
        return (
            "No batch of its model left meanwhile: every place at the backends was taken, its tenant was at its cap, "
            "or its batch was kept back beside a more important model (the live page shows that limit)."
        )
    riders = Counter((mate.priority_class, mate.tenant) for batch in batches.values() for mate in batch.tickets)
    who = ", ".join(f"{count} of {name}/{tenant}" for (name, tenant), count in riders.most_common(4))
    return f"Meanwhile {len(batches)} batches of its model left, with {riders.total()} requests: {who}."


def _against_estimate(journey: Journey, took_s: float) -> str:
    batch = journey.batch
    if batch is None:
        return ""
    return f"Expected were {_ms(batch.estimate_s)} for {_rows(batch.rows)}; it took {_ms(took_s)}."


def _who(journey: Journey) -> str:
    ticket = journey.ticket
    return f"{ticket.priority_class}, tenant {ticket.tenant}, {_rows(ticket.rows)} for {ticket.model}"


def _riders(journey: Journey) -> str:
    batch = journey.batch
    assert batch is not None
    others = len(batch.tickets) - 1
    company = f"with {others} other request{'s' if others > 1 else ''}" if others else "alone"
    return f"{company}, {_rows(batch.rows)}, expected to take {_ms(batch.estimate_s)}"


def _words(outcome: Outcome | None) -> str:
    return "" if outcome is None else outcome.value.replace("_", " ")


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms"
