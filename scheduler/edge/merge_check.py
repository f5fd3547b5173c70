"""Whether merged requests are answered as they are alone: asked again of live rows, once in a while.

A model's configuration says that it has a batch dimension, and perhaps that its answers do not depend on what else is
in the batch. Where either is wrong, requests that are merged get wrong answers, and nobody is told. So a rider of a
batch is asked again alone, at the least class, and the two answers are compared (compare.py). Where they differ it is
asked once more: a model that answers as it likes differs from itself, and nothing is said against merging it. After a
check that differed the next batches are all checked, until four in a row agree, or a second one differs: the model's
requests ride alone from then on, and the log, a metric and an alert say so.

A model's first merged batch is checked, and then ever fewer, while all agree: the batches and the seconds between two
checks double, up to 512 batches and 64 s.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from scheduler.config import Config
from scheduler.core.ticket import Ticket
from scheduler.driver import BatchError, Driver, Refused
from scheduler.telemetry.hooks import MergeCheck, Telemetry
from scheduler.triton.compare import Tolerance, difference
from scheduler.triton.merge import merge
from scheduler.triton.pool import Call
from scheduler.triton.spec import ModelSpec

log = logging.getLogger(__name__)

# 512 batches.
MOST_DOUBLINGS: Final = 9
MOST_S: Final = 64.0
# What differs from itself, or was not answered, says nothing now, and may another time; each try keeps others waiting.
MOST_UNDECIDED: Final = 5
# A model that was replaced in between, or answers by the clock, differs once.
STRIKES: Final = 2
CLEARED: Final = 4
# A check that is not answered by then told nothing.
PATIENCE_S: Final = 60.0
# Who asks; its requests count against nobody's quota and rate but those of the default tenant's settings.
TENANT: Final = "fairlane"
# INT8 whose range is that of the batch differs by up to a fifth of the spread, and says nothing of being invariant.
CLAIMED: Final = Tolerance(of_spread=0.05, of_choices=0.0)
UNCLAIMED: Final = Tolerance(of_spread=0.25, of_choices=0.5)


@dataclass(slots=True)
class _Model:
    """What is known of a model as it is loaded now.

    Attributes:
        spec: the very object; another one means that the model or its configuration has changed.
        tolerance: by what it says of itself.
        batches: that were merged since the last check.
        doublings: checks that agreed, as far as they count.
        next_at: no check before then, in the driver's seconds.
        checks: that were begun.
        strikes: checks that differed since it was last cleared.
        agreed: checks in a row that agreed since the last one that differed.
        checking: whether one is under way.
        stopped: why its requests ride alone; empty: they do not.
    """

    spec: ModelSpec
    tolerance: Tolerance
    batches: int = 0
    doublings: int = 0
    next_at: float = 0.0
    checks: int = 0
    strikes: int = 0
    agreed: int = 0
    checking: bool = False
    stopped: str = ""


class MergeChecks:
    """The checks of all models.

    Args:
        config: which models are checked, and which class is the least.
        driver: takes the requests that are asked again.
        telemetry: hears of each check.
    """

    def __init__(self, config: Config, driver: Driver[Call, Any], telemetry: Telemetry) -> None:
        self._driver = driver
        self._telemetry = telemetry
        self._models: dict[str, _Model] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Go on with these settings, and begin anew with every model."""
        self._config = config
        # A queue that is half full is needed by those who wait in it.
        self._most_queued = min(config.limits.max_queued, config.classes[-1].max_queued) // 2
        for name in list(self._models):
            self.forget(name)

    def forget(self, model: str) -> None:
        """The model was loaded anew, or is to be tried anew."""
        known = self._models.pop(model, None)
        if known is not None and known.stopped:
            self._telemetry.merging(model, stopped=False)

    async def close(self) -> None:
        """End the checks that are under way, and begin no more."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def merges(self, spec: ModelSpec, *, claimed: bool) -> bool:
        """Whether requests for the model may be merged, as far as checks have told.

        Args:
            spec: the model as it is loaded.
            claimed: whether it is said to be batch-invariant.
        """
        known = self._models.get(spec.name)
        if known is None or known.spec is not spec:
            self.forget(spec.name)
            known = self._models[spec.name] = _Model(spec, CLAIMED if claimed else UNCLAIMED)
        return not known.stopped

    def stopped(self, model: str) -> bool:
        """Whether what was let in as mergeable must ride alone after all."""
        known = self._models.get(model)
        return known is not None and bool(known.stopped)

    def joined_by_triton(self, model: str) -> bool:
        """Whether they must, and Triton itself would run those together that it has at a time."""
        known = self._models.get(model)
        return known is not None and bool(known.stopped) and known.spec.joins

    def unsplit(self, model: str, why: str) -> None:
        """Merge no more what cannot be told apart again: each such batch would be computed twice."""
        known = self._models.get(model)
        if known is not None and not known.stopped:
            self._stop(known, why)

    def merged(self, calls: Sequence[Call], answers: Sequence[Any]) -> None:
        """Hear of a merged batch and its answers, and check one of them where a check is due."""
        known = self._models.get(calls[0].ticket.model)
        if known is None or known.checking or known.stopped or not self._config.checks_merging(known.spec.name):
            return
        known.batches += 1
        due = 1 if known.strikes else 1 << known.doublings
        if known.batches < due or self._driver.now() < known.next_at:
            return
        if self._closed or self._driver.queued > self._most_queued:
            return
        place = known.checks % len(calls)
        known.checks += 1
        known.batches, known.checking = 0, True
        task = asyncio.get_running_loop().create_task(self._check(known, calls[place], answers, place))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _check(self, known: _Model, call: Call, answers: Sequence[Any], place: int) -> None:
        model = known.spec.name
        try:
            async with asyncio.timeout(PATIENCE_S):
                result, words = await self._compare(known, call, answers, place)
        except (Refused, BatchError, TimeoutError, ValueError):  # the last: what came is not as long as it says
            result, words = MergeCheck.UNANSWERED, ""
        finally:
            known.checking = False
        if self._models.get(model) is not known:
            return  # loaded anew meanwhile: it told of another one
        self._telemetry.merge_checked(model, result)
        if result is MergeCheck.DIFFERED:
            known.strikes += 1
            known.agreed = 0
            if known.strikes >= STRIKES:
                self._stop(known, words)
            return
        most = MOST_UNDECIDED
        if result is MergeCheck.AGREED:
            known.agreed += 1
            if known.agreed < CLEARED and known.strikes:
                return
            known.strikes = 0
            most = MOST_DOUBLINGS
        known.doublings = max(known.doublings, min(known.doublings + 1, most))
        known.next_at = self._driver.now() + min(2.0**known.doublings, MOST_S)

    async def _compare(self, known: _Model, call: Call, answers: Sequence[Any], place: int) -> tuple[MergeCheck, str]:
        """How the check went, and how the answers differ."""
        answer, beside, tolerance = answers[place], [*answers[:place], *answers[place + 1 :]], known.tolerance
        alone = await self._ask(known, call)
        if alone.model_version != answer.model_version:
            return MergeCheck.UNDECIDED, ""
        words = await asyncio.to_thread(difference, answer, alone, beside, tolerance)
        if words is None:
            return MergeCheck.AGREED, ""
        again = await self._ask(known, call)
        if await asyncio.to_thread(difference, again, alone, beside, tolerance) is not None:
            return MergeCheck.UNDECIDED, words
        return MergeCheck.DIFFERED, words

    async def _ask(self, known: _Model, call: Call) -> Any:
        """The answer to the request alone."""
        asked = call.ticket
        ticket = Ticket(
            ticket_id=self._driver.next_ticket_id(),
            priority_class=self._config.classes[-1].name,
            tenant=TENANT,
            model=asked.model,
            rows=asked.rows,
            queue_bytes=asked.queue_bytes,
        )
        request = merge([call.request], [asked.rows])
        again = Call(request, ticket, self._driver.now(), headers=call.headers)
        again.alone = known.spec.joins
        return await self._driver.submit(ticket, again)

    def _stop(self, known: _Model, words: str) -> None:
        model = known.spec.name
        known.stopped = words
        says = " though it is said to be batch_invariant" if known.tolerance is CLAIMED else ""
        log.error(
            "model %s: a merged request was answered otherwise than alone%s: %s. Its requests ride alone from now on, "
            "until it is loaded anew or the configuration is read again. Its first axis may be no batch "
            "(max_batch_size: 0), or its answers depend on the batch (batch_invariant: false); models.%s.merge: false "
            "keeps its requests alone, models.%s.check_merging: false merges them unchecked",
            model,
            says,
            words,
            model,
            model,
        )
        self._telemetry.merging(model, stopped=True)
