"""All of telemetry, built from its settings: what app.py starts and the HTTP side shows."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

from scheduler.config import Config
from scheduler.core.settings import CoreSettings
from scheduler.core.snapshot import Snapshot
from scheduler.errors import StartError
from scheduler.telemetry.family import State
from scheduler.telemetry.journey import Journal
from scheduler.telemetry.live import Live
from scheduler.telemetry.logs import RequestLog
from scheduler.telemetry.measures import Measures
from scheduler.telemetry.metrics import Metrics
from scheduler.telemetry.process import ProcessWatch
from scheduler.telemetry.recorder import Recorder, Tracer
from scheduler.telemetry.tenants import TenantTable


class Observatory:
    """What listens (`recorder`), and what shows it (`metrics`, `live`). Make it within the event loop."""

    def __init__(
        self,
        config: Config,
        recorder: Recorder,
        snapshot: Callable[[], Snapshot],
        ready: Callable[[], bool],
        unserved: Callable[[], Mapping[str, str]],
    ) -> None:
        self._settings = config.core_settings()
        self.recorder = recorder
        self._process = ProcessWatch()
        self.metrics = Metrics(lambda: State(snapshot(), self._settings, recorder, self._process))
        self.live = Live(self._settings, recorder, self._process, snapshot, ready, unserved)

    def configure(self, settings: CoreSettings) -> None:
        """Show what the core was reconfigured with."""
        self._settings = settings
        self.live.configure(settings)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Measure the process and sample once a second, until the end of the block."""
        tasks = [asyncio.create_task(each) for each in (self._process.watch(), self.live.watch())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(self.recorder.close)


def recorder_of(config: Config) -> Recorder | None:
    """What listens, by the settings; None where telemetry is off.

    Raises:
        StartError: traces are wanted, and the extra for them is not installed.
    """
    about = config.telemetry
    if not about.enabled:
        return None
    now = asyncio.get_running_loop().time
    tracer = None if about.tracing.otlp is None else _tracer(about.tracing.otlp, about.tracing.sample, now)
    return Recorder(Measures(TenantTable(about.tenants, now())), Journal(about.requests), RequestLog(), tracer)


def _tracer(otlp: str, sample: float, now: Callable[[], float]) -> Tracer:
    try:
        from scheduler.telemetry.tracing import OtlpTracer  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise StartError(
            f"telemetry.tracing.otlp: needs OpenTelemetry: pip install 'fairlane-server[tracing]' ({error})"
        ) from None
    return OtlpTracer(otlp, sample, now)
