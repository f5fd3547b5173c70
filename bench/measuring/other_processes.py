"""How much of the machine others took while load ran: a busy machine makes figures that mean nothing."""

import os
import time
from contextlib import suppress

import psutil


class OtherProcesses:
    """Counts from its making on: CPU time of the machine, less that of this process and all below it."""

    def __init__(self) -> None:
        self._begin_s = time.monotonic()
        self._machine_s = machine_cpu_s()
        self._own_s = own_cpu_s()
        self._below_s = descendants_cpu_s()

    def cores(self) -> float:
        """Cores that others kept busy on average; what the hypervisor took away counts too."""
        below_s = descendants_cpu_s()
        # Processes that began since count in full; those that ended are in this process's account of its children.
        ours_s = own_cpu_s() - self._own_s + sum(cpu_s - self._below_s.get(pid, 0.0) for pid, cpu_s in below_s.items())
        others_s = machine_cpu_s() - self._machine_s - ours_s
        return max(0.0, others_s) / max(1e-3, time.monotonic() - self._begin_s)


def machine_cpu_s() -> float:
    """CPU seconds of all processes since boot, all cores."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def own_cpu_s() -> float:
    """CPU seconds of this process and of all its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def descendants_cpu_s() -> dict[int, float]:
    """CPU seconds of every living process below this one, with what their own ended children took, by process id."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found[process.pid] = float(times.user + times.system + times.children_user + times.children_system)
    return found
