from itertools import pairwise

import pytest

from scheduler.core.backends.parallelism import MOST, Parallelism


class Server:
    """Answers as many executions at a time as it has `slots`, each after `latency_s`; somebody always waits."""

    def __init__(self, slots: int, latency_s: float = 0.1, instances: int = 1) -> None:
        self.slots, self.latency_s = slots, latency_s
        self.learned = Parallelism(instances)
        self.now = 0.0

    def serve(self, until: float, *, wanted: bool = True, calm: bool = True) -> None:
        """One answer after the other, at the rate at which so many slots give them."""
        while self.now < until:
            out = self.learned.ways + 1
            self.now += self.latency_s / min(out, self.slots)
            latency_s = self.latency_s * max(1, out / self.slots)
            self.learned.ended(1, latency_s, out, wanted=wanted, calm=calm, now=self.now)


@pytest.mark.parametrize("latency_s", [0.01, 0.1, 1.0])
def test_a_server_of_many_slots_is_found_out(latency_s):
    server = Server(16, latency_s)
    server.serve(60.0)
    # Growth by a half: within a half of the slots, and one that lies ready.
    assert 15 <= server.learned.ways <= 24


@pytest.mark.parametrize(("slots", "instances"), [(1, 1), (2, 2), (3, 2)])
def test_a_server_that_does_as_configured_stays_as_it_is(slots, instances):
    server = Server(slots, instances=instances)
    server.serve(29.0)
    assert server.learned.ways == instances


def test_what_brings_nothing_is_tried_again_later_and_later():
    server, changes = Server(1), []
    while server.now < 300.0:
        before = server.learned.ways
        server.serve(server.now + 0.1)
        if server.learned.ways > before:
            changes.append(server.now)
    # The first at once, then 30, 60 and 120 s after the end of the one before.
    gaps = [round(later - sooner) for sooner, later in pairwise(changes)]
    assert len(gaps) == 3
    assert all(least <= gap <= least + 6 for least, gap in zip((30, 60, 120), gaps, strict=True))


def test_a_server_that_has_become_smaller_is_given_less_in_time():
    server = Server(16)
    server.serve(30.0)
    assert server.learned.ways >= 15
    server.slots = 2
    server.serve(3000.0)
    assert server.learned.ways <= 8


def test_where_nobody_waits_nothing_is_learned():
    server = Server(16)
    server.serve(60.0, wanted=False)
    assert server.learned.ways == 1


@pytest.mark.parametrize("spread_s", [0.0, 0.004, 0.007, 0.02, 0.1])
@pytest.mark.parametrize("latency_s", [0.1, 0.4, 1.0])
def test_answers_that_come_in_waves_tell_as_much_as_those_that_do_not(spread_s, latency_s):
    learned, began = Parallelism(1), 0.0
    for _ in range(round(40 / latency_s)):
        out = learned.ways + 1
        for place in range(out):  # somebody waits for the first place alone
            ended = began + latency_s + spread_s * place / out
            learned.ended(1, latency_s, out, wanted=place == 0 or spread_s > 0, calm=True, now=ended)
        began += latency_s
        if learned.ways >= 64:
            break
    assert learned.ways >= 64


def test_what_is_in_flight_is_bounded():
    server = Server(10 * MOST, latency_s=1.0)
    server.serve(400.0)
    assert server.learned.ways == MOST


def test_while_somebody_would_mind_nothing_more_is_tried_and_what_was_tried_is_taken_back():
    server = Server(16)
    while server.learned.ways == 1:
        server.serve(server.now + 0.05)
    server.serve(server.now + 0.05, calm=False)
    assert server.learned.ways == 1
    server.serve(server.now + 20.0, calm=False)
    assert server.learned.ways == 1
    server.serve(server.now + 60.0)
    assert server.learned.ways >= 12
