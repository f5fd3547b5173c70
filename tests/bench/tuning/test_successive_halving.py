"""The search against servers in closed form: M/M/1, whose p99 is ln(100) / (mu - lambda)."""

import math
from collections import Counter
from collections.abc import Callable

from bench.tuning.setting import Setting, candidates
from bench.tuning.successive_halving import FINALISTS, Finalist, SettingSearch, Tuned
from bench.tuning.trial import Trial

DEFAULT = Setting(1, 1, 32)


class FakeServers:
    """Settings as M/M/1 queues of a service rate each; `noise` multiplies it, run by run."""

    def __init__(
        self, service_per_s: Callable[[Setting], float], noise: Callable[[int], float] = lambda _: 1.0
    ) -> None:
        self._service_per_s = service_per_s
        self._noise = noise
        self.seconds: Counter[Setting] = Counter()
        self.runs = 0

    async def measure(self, setting: Setting, rate_per_s: float, seconds: float) -> Trial:
        self.seconds[setting] += seconds  # type: ignore[assignment]
        self.runs += 1
        left = self._service_per_s(setting) * self._noise(self.runs) - rate_per_s
        p99_ms = math.log(100) / left * 1e3 if left > 0 else math.nan
        share = 1.0 if left > 0 else 0.5
        return Trial(
            rate_per_s=rate_per_s, offered_per_s=rate_per_s, p99_ms=p99_ms, ok_share=share, late_ms=0.0,
            others_cores=0.0, fault="",
        )  # fmt: skip


async def tuned(servers: FakeServers, settings: list[Setting], p99_ms: float = 100.0) -> Tuned:
    return await SettingSearch(servers.measure, p99_ms=p99_ms, closed_loop_per_s=100.0, seconds=4.0, rounds=3).run(
        settings
    )


def speed(setting: Setting) -> float:
    """Twice the instances are nearly twice as fast, threads gain less, small batches lose."""
    return 100.0 * setting.instances**0.9 * setting.threads**0.5 * (setting.max_batch_size / 32) ** 0.2


async def test_the_fastest_of_many_is_found_and_the_rest_is_dropped_early() -> None:
    servers = FakeServers(speed)
    settings = candidates(DEFAULT, cores=4, rows=1)
    found = await tuned(servers, settings)
    assert found.best.setting == max(settings, key=speed)
    assert found.finalists[0].setting == DEFAULT
    assert len(found.finalists) == FINALISTS + 1
    dropped = [rung for rung in found.rungs if rung.number == 0 and not rung.kept]
    assert len(dropped) >= len(settings) // 2 - 1
    assert all(servers.seconds[rung.setting] == 1.0 for rung in dropped)
    assert found.valid


async def test_a_default_that_nothing_beats_stays() -> None:
    found = await tuned(FakeServers(lambda setting: 100.0 if setting == DEFAULT else 60.0), candidates(DEFAULT, 4, 1))
    assert found.best is found.finalists[0]


async def test_what_is_as_good_as_the_default_does_not_replace_it() -> None:
    found = await tuned(FakeServers(lambda _: 100.0), candidates(DEFAULT, 4, 1))
    assert found.best.setting == DEFAULT


async def test_a_gain_within_the_noise_does_not_replace_the_default() -> None:
    # Fast and slow runs take turns: what a setting gains on average is less than what its rounds differ by.
    servers = FakeServers(
        lambda setting: 100.0 if setting == DEFAULT else 104.0, lambda run: 1.25 if run % 7 < 3 else 0.8
    )
    assert (await tuned(servers, [DEFAULT, Setting(2, 1, 32)])).best.setting == DEFAULT


async def test_an_objective_that_nothing_keeps_leaves_the_default() -> None:
    found = await tuned(FakeServers(speed), candidates(DEFAULT, 4, 1), p99_ms=0.001)
    assert found.best.setting == DEFAULT
    assert found.finalists[0].capacity_per_s == [0.0, 0.0, 0.0]
    assert found.typical_per_s == 70.0


async def test_a_model_with_one_candidate_is_the_default() -> None:
    found = await tuned(FakeServers(speed), [DEFAULT])
    assert (found.rungs, found.best.setting) == ([], DEFAULT)


def test_more_capacity_at_a_worse_typical_p99_does_not_win() -> None:
    default = Finalist(setting=DEFAULT, capacity_per_s=[100, 101], typical_p99_ms=[10, 12])
    other = Setting(2, 1, 32)
    assert Finalist(setting=other, capacity_per_s=[102, 103], typical_p99_ms=[10, 11]).beats(default)
    assert not Finalist(setting=other, capacity_per_s=[102, 103], typical_p99_ms=[11, 13]).beats(default)
    assert not Finalist(setting=other, capacity_per_s=[101, 150], typical_p99_ms=[5, 5]).beats(default)
    assert not Finalist(setting=other, capacity_per_s=[200, 200], typical_p99_ms=[math.nan, math.nan]).beats(default)
