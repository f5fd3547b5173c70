"""The live page's figures: what /events sends once a second, to the page and to `fairlane top`."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from scheduler.core.settings import CoreSettings
from scheduler.core.snapshot import Snapshot
from scheduler.telemetry.happenings import Happenings
from scheduler.telemetry.process import ProcessWatch
from scheduler.telemetry.recorder import Recorder
from scheduler.telemetry.tenants import AVERAGE_S, Traffic
from scheduler.telemetry.window import Window

log = logging.getLogger(__name__)

# Changes with the shape of what /debug/snapshot and /events give: a reader refuses what it does not know.
SCHEMA: Final = 2
INTERVAL_S: Final = 1.0
# Points of the plots: the last five minutes.
HISTORY: Final = 300
# Figures that are to be steady are of the last minute, those that are to be quick of the last seconds.
MINUTE_S: Final = 60
RECENT_S: Final = 5
TOP_TENANTS: Final = 25
# A tenant without this part of a second of service a second is not in the reckoning of shares.
LEAST_SHARE: Final = 1e-9


class Live:
    """Samples once a second, and tells those who listen.

    Args:
        settings: what the core is configured with.
        recorder: the counts.
        process: of this process.
        snapshot: the core's state.
        ready: whether requests are accepted.
        unserved: models that a backend could not load, by name, and why.
    """

    def __init__(
        self,
        settings: CoreSettings,
        recorder: Recorder,
        process: ProcessWatch,
        snapshot: Callable[[], Snapshot],
        ready: Callable[[], bool],
        unserved: Callable[[], Mapping[str, str]],
    ) -> None:
        self._settings = settings
        self._recorder = recorder
        self._process = process
        self._take_snapshot = snapshot
        self._ready = ready
        self._unserved = unserved
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._window = Window(recorder.measures, process, self._started)
        self._history: deque[dict[str, Any]] = deque(maxlen=HISTORY)
        self._happenings = Happenings()
        self._snapshot = snapshot()
        self._sampled = asyncio.Event()

    def configure(self, settings: CoreSettings) -> None:
        """Go on with what the core was reconfigured with."""
        self._settings = settings

    async def watch(self) -> None:
        """Sample until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                self.sample()
            except Exception:
                # One second without figures; the next one may have them.
                log.exception("the live page's figures could not be taken")

    def sample(self) -> None:
        """Take one sample, and wake those who listen."""
        now = self._loop.time()
        self._snapshot = self._take_snapshot()
        self._window.sample(now)
        self._recorder.measures.tenants.sample(now)
        self._history.append(self._point())
        self._happenings.look(self._snapshot, self._recorder.measures, self._unserved(), at=time.time())
        self._sampled.set()
        self._sampled = asyncio.Event()

    async def samples(self) -> AsyncIterator[None]:
        """Give a turn after each sample."""
        while True:
            await self._sampled.wait()
            yield

    def history(self) -> list[dict[str, Any]]:
        """The plots' points of the last five minutes, oldest first."""
        return list(self._history)

    def state(self, match: str = "", top: int = TOP_TENANTS) -> dict[str, Any]:
        """All figures, of the last sample.

        Args:
            match: tenants whose name contains this, whatever its case.
            top: tenants told of, at most.
        """
        snapshot = self._snapshot
        return {
            "schema": SCHEMA,
            "at": round(time.time(), 3),
            "uptime_s": round(self._loop.time() - self._started, 1),
            "ready": self._ready(),
            "queued": snapshot.queued,
            "queue_bytes": snapshot.queue_bytes,
            "queue_bytes_limit": self._settings.queue_bytes,
            "in_flight": snapshot.in_flight,
            "classes": self._classes(),
            "tenants": self._tenants(match.casefold(), top),
            "models": self._models(),
            "unserved": [{"name": name, "why": why} for name, why in self._unserved().items()],
            "backends": self._backends(),
            "process": _rounded(asdict(self._window.of_process(RECENT_S))),
            "happenings": self._happenings.latest(),
            "point": self._history[-1] if self._history else None,
        }

    def _point(self) -> dict[str, Any]:
        classes = {}
        for each in self._snapshot.classes:
            rates = self._window.of_class(each.name, RECENT_S)
            last = self._window.of_class(each.name, 1)
            classes[each.name] = {"queued": each.queued} | _rounded(
                {
                    "per_s": last.completed_per_s,
                    "refused_per_s": last.refused_per_s,
                    "p50_s": rates.p50_s,
                    "p99_s": rates.p99_s,
                }
            )
        limits = {each.name: round(each.concurrency.limit, 2) for each in self._snapshot.backends}
        return {"at": round(time.time(), 1), "classes": classes, "limits": limits}

    def _classes(self) -> list[dict[str, Any]]:
        settings = {each.name: each for each in self._settings.classes}
        told = []
        for each in self._snapshot.classes:
            about = settings[each.name]
            rates = self._window.of_class(each.name, MINUTE_S)
            recent = self._window.of_class(each.name, RECENT_S)
            told.append(
                asdict(each)
                | {
                    "weight": about.weight,
                    "wait_s": about.wait_s,
                    "max_queued": about.max_queued,
                    "in_flight": sum(model.in_flight[each.name] for model in self._snapshot.models),
                    "by_model": {model.name: model.queued.get(each.name, 0) for model in self._snapshot.models},
                }
                | _rounded(asdict(rates))
                | _rounded({"completed_per_s": recent.completed_per_s, "refused_per_s": recent.refused_per_s})
            )
        return told

    def _tenants(self, match: str, top: int) -> dict[str, Any]:
        busiest = self._recorder.measures.tenants.busiest()
        now_there = {tenant.name: tenant for tenant in self._snapshot.tenants}
        # Those that wait and have never been answered; tenants that share one place (caps.py) are there under its name.
        known = dict(busiest)
        busiest += [(name, Traffic()) for name in now_there if name not in known]
        active = [name for name, traffic in busiest if traffic.service_s > LEAST_SHARE or name in now_there]
        weights = sum(self._settings.for_tenant(name).weight for name in active)
        service_s = sum(traffic.service_s for _, traffic in busiest)
        matching = [each for each in busiest if match in each[0].casefold()]
        rows = []
        for name, traffic in matching[:top]:
            about = self._settings.for_tenant(name)
            there = now_there.get(name)
            rows.append(
                {
                    "name": name,
                    "weight": about.weight,
                    "queued": there.queued if there else 0,
                    "in_flight": there.in_flight if there else 0,
                    "max_in_flight": about.max_in_flight,
                    "max_queued": about.max_queued,
                }
                | _rounded(_shares(traffic, service_s, about.weight / weights if weights else 0.0))
            )
        return {"active": len(active), "known": len(busiest), "matching": len(matching), "rows": rows}

    def _models(self) -> list[dict[str, Any]]:
        queued = {model.name: model for model in self._snapshot.models}
        offered: dict[str, int] = {}
        for state in self._recorder.backends.values():
            for name, capacity in state.models.items():
                offered[name] = offered.get(name, 0) + capacity.instances
        in_flight: dict[str, int] = {}
        for backend in self._snapshot.backends:
            for name, count in backend.in_flight.items():
                in_flight[name] = in_flight.get(name, 0) + count
        return [
            {
                "name": name,
                "instances": offered.get(name, 0),
                "in_flight": in_flight.get(name, 0),
                "queued": sum(queued[name].queued.values()) if name in queued else 0,
                "estimate_batch_s": queued[name].batch_s if name in queued else None,
                "estimate_row_s": queued[name].row_s if name in queued else None,
            }
            | _rounded(asdict(self._window.of_model(name, RECENT_S)))
            for name in sorted({*queued, *offered})
        ]

    def _backends(self) -> list[dict[str, Any]]:
        """As in the snapshot; also how many models it offers, and how long ago its limit moved (None: never)."""
        now = self._loop.time()
        told = []
        for backend in self._snapshot.backends:
            limit = backend.concurrency
            about = self._recorder.backends.get(backend.name)
            told.append(
                asdict(backend)
                | {
                    "models": 0 if about is None else len(about.models),
                    "concurrency": asdict(limit)
                    | {"moved_ago_s": round(now - limit.moved_at, 1) if limit.moved_at else None},
                }
            )
        return told


def _shares(traffic: Traffic, service_s: float, due: float) -> dict[str, float | None]:
    """A tenant's part of the service, and the part that its weight gives it among the active ones."""
    return {
        "share": traffic.service_s / service_s if service_s else 0.0,
        "due": due,
        "requests_per_s": traffic.requests / AVERAGE_S,
        "refused_per_s": traffic.refused / AVERAGE_S,
    }


def _rounded(values: dict[str, float | None]) -> dict[str, float | None]:
    """Five digits are more than anyone reads, and half of what goes over the wire."""
    return {key: None if value is None else float(f"{value:.5g}") for key, value in values.items()}
