import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.load.loops import closed_loop, open_loop
from bench.recording.recording import Recorder


@dataclass
class FakeSender:
    """Answers after `service_s` without a server; `stall_s` blocks the loop in the first request."""

    service_s: float = 0.0
    stall_s: float = 0.0
    recorder: Recorder = field(default_factory=lambda: Recorder(1.0))
    begin_s: float = field(default_factory=time.monotonic)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    outstanding: int = 0
    most_outstanding: int = 0
    due_s: dict[int, float] = field(default_factory=dict)
    sent_s: dict[int, float] = field(default_factory=dict)
    departures: list[int] = field(default_factory=list)

    def now_s(self) -> float:
        return time.monotonic() - self.begin_s

    def fire(self, due_s: Sequence[float]) -> None:
        self.departures.append(len(due_s))
        for due in due_s:
            number = self.recorder.arrive(due)
            self.due_s[number] = due
            self.tasks.append(asyncio.create_task(self.request(number)))

    async def request(self, number: int) -> None:
        self.sent_s[number] = self.now_s()
        self.outstanding += 1
        self.most_outstanding = max(self.most_outstanding, self.outstanding)
        if self.stall_s and number == 1:
            time.sleep(self.stall_s)  # noqa: ASYNC251 - the generator's own stall is what this is about
        await asyncio.sleep(self.service_s)
        self.outstanding -= 1


async def test_open_loop_does_not_wait_for_answers() -> None:
    sender = FakeSender(service_s=30)
    await open_loop(sender, np.arange(20) * 0.005)
    await asyncio.sleep(0)
    assert sender.most_outstanding == 20
    for task in sender.tasks:
        task.cancel()
    await asyncio.gather(*sender.tasks, return_exceptions=True)


async def test_what_is_due_within_a_tick_leaves_together_at_its_end_and_keeps_its_due_times() -> None:
    sender = FakeSender()
    due_s = np.array([0.001, 0.002, 0.019, 0.021, 0.065])
    await open_loop(sender, due_s, tick_s=0.02)
    await asyncio.gather(*sender.tasks)
    assert sender.departures == [3, 1, 1]
    assert list(sender.due_s.values()) == due_s.tolist()
    assert all(sent_s >= (due_s[number - 1] // 0.02 + 1) * 0.02 for number, sent_s in sender.sent_s.items())


async def test_a_stalled_generator_skips_nothing_and_keeps_the_due_times() -> None:
    sender = FakeSender(stall_s=0.2)
    await open_loop(sender, np.arange(20) * 0.01)
    await asyncio.gather(*sender.tasks)
    assert list(sender.due_s.values()) == (np.arange(20) * 0.01).tolist()
    assert all(sender.sent_s[number] >= 0.2 for number in list(sender.sent_s)[1:])


async def test_nothing_is_sent_before_it_is_due() -> None:
    sender = FakeSender()
    await open_loop(sender, np.arange(10) * 0.02)
    await asyncio.gather(*sender.tasks)
    assert all(sender.sent_s[number] > due_s - 0.001 for number, due_s in sender.due_s.items())


async def test_closed_loop_keeps_its_number_outstanding() -> None:
    sender = FakeSender(service_s=0.005)
    await closed_loop(sender, 8, 0.1)
    assert sender.most_outstanding == 8
    assert sender.outstanding == 0
    assert len(sender.sent_s) >= 16
