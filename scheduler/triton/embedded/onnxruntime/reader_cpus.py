"""Whose CPUs an instance's thread that reads and answers batches keeps to: tritonserver's, or the models' own."""

import os
from collections.abc import Callable, Set
from typing import Final, NamedTuple

import triton_python_backend_utils as pb_utils

# A reader on the models' CPUs takes some half a millisecond of every batch (decision 37): below 2 % of longer ones.
SHORT_S: Final = 0.030  # of a run, on average
WINDOW: Final = 32  # batches that are judged together
LATE: Final = 0.1  # of the instance's time, spent waiting for its next batch
LEAST_REST_S: Final = 1.0
MOST_REST_S: Final = 64.0


class Load(NamedTuple):
    """What an instance did. Loads subtract.

    Attributes:
        batches: that ran.
        ran_s: they took.
        waited_s: for the next one to be read.
    """

    batches: int
    ran_s: float
    waited_s: float

    def since(self, earlier: "Load") -> "Load":
        """What came after."""
        return Load(self.batches - earlier.batches, self.ran_s - earlier.ran_s, self.waited_s - earlier.waited_s)

    @property
    def short(self) -> bool:
        """Whether its batches were short, on average."""
        return self.ran_s <= SHORT_S * self.batches

    @property
    def late(self) -> bool:
        """Whether the instance waited for much of its time."""
        return self.waited_s > LATE * (self.ran_s + self.waited_s)


def keep_to(cpus: Set[int]) -> None:
    """Give the calling thread these CPUs and no other."""
    os.sched_setaffinity(0, cpus)


class ReaderCpus:
    """Moves the thread that reads between the models' CPUs, where it starts, and tritonserver's.

    Among the models' it stops a run several times for every batch, which short batches feel. tritonserver's may have no
    time for it, as where a flood keeps the scheduler busy on them, and then the instance waits: so it stays there only
    while batches are short and read in time, and rests among the models' otherwise, twice as long after each time.

    Args:
        models: CPUs of this process, by number.
        server: CPUs of tritonserver.
        now: seconds of a monotonic clock.
        keep_to: gives the calling thread its CPUs.
    """

    def __init__(
        self,
        models: Set[int],
        server: Set[int],
        now: Callable[[], float],
        keep_to: Callable[[Set[int]], None] = keep_to,
    ) -> None:
        self._models = models
        self._server = server
        self._now = now
        self._keep_to = keep_to
        self._kept_to = models
        # Where it serves best while another thread runs the model, by the last window that was judged.
        self._beside = models
        self._load = Load(0, 0.0, 0.0)
        self._judged = self._load
        self._rest_s = LEAST_REST_S
        self._rested = now()

    @property
    def away(self) -> bool:
        """Whether it keeps off the models' CPUs."""
        return self._kept_to != self._models

    def ran(self, ran_s: float, waited_s: float) -> None:
        """Count a batch, which took this long and was waited for. For one thread, which need not be the one that moves.

        Args:
            ran_s: seconds it took.
            waited_s: seconds between the end of the one before and its begin that nothing was there to run.
        """
        load = self._load
        self._load = Load(load.batches + 1, load.ran_s + ran_s, load.waited_s + waited_s)

    def read_beside(self) -> None:
        """Move the calling thread to where it serves best: another one runs the model."""
        load = self._load.since(self._judged)
        if load.batches >= WINDOW:
            self._judged = self._load
            self._judge(load)
        self._move(self._beside)

    def _judge(self, load: Load) -> None:
        if self._beside == self._models:
            if load.short and self._now() >= self._rested:
                self._beside = self._server
        elif load.short and not load.late:
            self._rest_s = max(LEAST_REST_S, self._rest_s / 2)
        else:
            self._rested = self._now() + self._rest_s
            self._rest_s = min(MOST_REST_S, self._rest_s * 2)
            self._beside = self._models

    def run_itself(self) -> None:
        """Move the calling thread to the models' CPUs: it runs the model itself."""
        self._move(self._models)

    def _move(self, cpus: Set[int]) -> None:
        if cpus == self._kept_to:
            return
        try:
            self._keep_to(cpus)
        except OSError as error:
            # Whoever runs the host took CPUs away: no reason to fail a request, and none to try at each.
            pb_utils.Logger.log_error(f"stays on its CPUs: {sorted(cpus)} are not to be had: {error}")
            self._models = self._server = self._beside = self._kept_to
            return
        self._kept_to = cpus
