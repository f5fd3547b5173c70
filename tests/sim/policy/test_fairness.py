from dataclasses import replace
from itertools import combinations

import pytest

from simulate.reporting.max_min import max_min_shares
from simulate.scenario import class_settings, core_settings, tenant_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import ClosedLoop, Periodic, Poisson
from simulate.world.load import Load
from simulate.world.world import World
from tests.sim.oracle import jain, largest_batch_rows, sfq_lag_s

ONE_CLASS = (class_settings("interactive"),)
TWO_CLASSES = (class_settings("interactive", 16), class_settings("background", 1))
A, B = 0.004, 0.001
WARM_S = 5.0


def world(*, instances: int = 1, **settings: object) -> World:
    plan = BackendPlan("gpu0", {"m": Service(A, B, instances)})
    return World(core_settings(**{"classes": ONE_CLASS} | settings), [plan])


@pytest.mark.parametrize("sizes", [(1, 1), (1, 8), (8, 1), (3, 5)])
def test_tenants_of_weight_1_and_3_get_1_to_3_of_service_time_whatever_their_sizes(sizes):
    weights = {"light": 1.0, "heavy": 3.0}
    sim = world(tenants={name: tenant_settings(weight) for name, weight in weights.items()})
    for name, rows in zip(weights, sizes, strict=True):
        sim.add(ClosedLoop(load=Load(tenant=name, rows=rows, merge_key=None), outstanding=30))
    sim.run(60.0)
    costs_s = {name: A + B * rows for name, rows in zip(weights, sizes, strict=True)}
    # The theorem is about what was handed over; each may have the two batches in flight beyond that.
    bound_s = sfq_lag_s(costs_s, weights) + 2 * max(cost / weights[name] for name, cost in costs_s.items())
    for until in (6.0, 10.0, 20.0, 60.0):
        light_s, heavy_s = (sim.service_s(WARM_S, until, tenant=name) for name in weights)
        assert abs(light_s / 1 - heavy_s / 3) <= bound_s


def test_tenants_that_merge_share_rows_by_weight():
    weights = {"light": 1.0, "heavy": 3.0}
    sim = world(tenants={name: tenant_settings(weight) for name, weight in weights.items()})
    for name in weights:
        sim.add(ClosedLoop(load=Load(tenant=name), outstanding=40))
    sim.run(20.0)
    assert sim.rows(WARM_S, tenant="heavy") == pytest.approx(3 * sim.rows(WARM_S, tenant="light"), rel=0.01)


@pytest.mark.parametrize(("sizes", "full"), [((1, 8), 1), ((8, 1), 1), ((5, 1), 1), ((2, 7), 0.96), ((3, 5), 0.94)])
def test_tenants_of_one_key_get_1_to_3_whatever_their_sizes_and_keep_the_batches_as_full_as_they_can_be(sizes, full):
    """`full`: of all places, as far as these sizes can be put together."""
    weights = {"light": 1.0, "heavy": 3.0}
    sim = world(tenants={name: tenant_settings(weight) for name, weight in weights.items()})
    for name, rows in zip(weights, sizes, strict=True):
        sim.add(ClosedLoop(load=Load(tenant=name, rows=rows), outstanding=40))
    sim.run(25.0)
    assert sim.rows(WARM_S) / 20 == pytest.approx(full * Service(A, B).rows_per_s(), rel=0.01)
    light_s, heavy_s = (sim.service_s(WARM_S, tenant=name) for name in weights)
    assert heavy_s == pytest.approx(3 * light_s, rel=0.01)


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_tenants_with_merge_keys_of_their_own_share_by_weight_within_a_full_batch_each(weight):
    weights = {"light": 1.0, "heavy": weight}
    sim = world(tenants={name: tenant_settings(each) for name, each in weights.items()})
    for name in weights:
        sim.add(ClosedLoop(load=Load(tenant=name, merge_key=name), outstanding=40))
    sim.run(60.0)
    full_s = A + 8 * B
    # As in the theorem, a full batch being the ticket; each may have the two batches in flight beyond that.
    bound_s = sfq_lag_s(dict.fromkeys(weights, full_s), weights) + 2 * full_s
    for until in (6.0, 10.0, 20.0, 60.0):
        light_s, heavy_s = (sim.service_s(WARM_S, until, tenant=name) for name in weights)
        assert abs(light_s - heavy_s / weight) <= bound_s
    assert sim.rows(WARM_S) / 55 == pytest.approx(Service(A, B).rows_per_s(), rel=0.01)


@pytest.mark.parametrize("others", [1, 20, 500])
@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_tenants_share_by_weight_though_one_may_ride_in_the_batches_of_many_others(weight, others):
    sim = world(tenants={"heavy": tenant_settings(weight)})
    sim.add(ClosedLoop(load=Load(tenant="light"), outstanding=40))
    sim.add(ClosedLoop(load=Load(tenant="heavy", merge_key="other"), outstanding=40))
    for number in range(others):
        sim.add(Poisson(load=Load(tenant=f"t{number}"), per_s=60 / others))
    sim.run(60.0)
    light_s, heavy_s = (sim.service_s(WARM_S, tenant=name) for name in ("light", "heavy"))
    assert heavy_s == pytest.approx(weight * light_s, rel=0.05)
    # Batches in which nobody may ride any more go as they are.
    assert sim.rows(WARM_S) / 55 >= 0.93 * Service(A, B).rows_per_s()


def test_classes_of_weight_16_and_1_get_16_to_1_within_a_batch():
    sim = world(classes=TWO_CLASSES)
    for name in ("interactive", "background"):
        sim.add(ClosedLoop(load=Load(name), outstanding=100))
    sim.run(30.0)
    for until in (6.0, 10.0, 30.0):
        interactive, background = (sim.rows(WARM_S, until, priority_class=c.name) for c in TWO_CLASSES)
        assert abs(interactive / 16 - background) <= 8 + 8 / 16


@pytest.mark.parametrize(("max_batch_size", "wait_s"), [(8, None), (32, 0.05)])
@pytest.mark.parametrize("keys", ["kkk", "kkl", "lkk"])
@pytest.mark.parametrize("weights", [(16, 4, 1), (4, 2, 1), (1, 1, 1)])
def test_each_of_three_classes_gets_its_weights_share_within_a_batch(weights, keys, max_batch_size, wait_s):
    names, service = "abc", Service(A, B, 1, max_batch_size)
    classes = [
        class_settings(name, weight, wait_s=wait_s if name == "a" else None)
        for name, weight in zip(names, weights, strict=True)
    ]
    sim = World(core_settings(tuple(classes)), [BackendPlan("gpu0", {"m": service})])
    for name, key in zip(names, keys, strict=True):
        sim.add(ClosedLoop(load=Load(name, merge_key=key), outstanding=200))
    sim.run(60.0)
    full_s = A + max_batch_size * B
    for until in (10.0, 30.0, 60.0):
        served_s = [
            sim.service_s(WARM_S, until, priority_class=name) / w for name, w in zip(names, weights, strict=True)
        ]
        # As in the theorem, a full batch being the ticket; each may have the two batches in flight beyond that.
        for one in range(3):
            for other in range(3):
                lag_s = sum(full_s / weights[each] for each in (one, other))
                bound_s = lag_s + 2 * full_s / min(weights[one], weights[other])
                assert abs(served_s[one] - served_s[other]) <= bound_s
    assert sim.rows(WARM_S) / 15 >= 0.98 * service.rows_per_s(31 if wait_s and max_batch_size == 32 else None)


@pytest.mark.parametrize("sizes", [(5, 1, 1), (3, 5, 3), (5, 3, 2), (7, 2, 5), (6, 6, 2), (6, 8, 4)])
@pytest.mark.parametrize("keys", ["kkk", "klk"])
@pytest.mark.parametrize("weights", [(16, 4, 1), (1, 1, 1), (1, 4, 16)])
def test_classes_get_their_weights_share_of_service_time_whatever_places_their_sizes_leave_empty(weights, keys, sizes):
    names, service = "abc", Service(A, B)
    classes = tuple(class_settings(name, weight) for name, weight in zip(names, weights, strict=True))
    sim = world(classes=classes)
    for name, key, rows in zip(names, keys, sizes, strict=True):
        sim.add(ClosedLoop(load=Load(name, merge_key=key, rows=rows), outstanding=100))
    sim.run(30.0)
    full_s = A + 8 * B
    for until in (10.0, 30.0):
        served_s = {
            name: sim.service_s(WARM_S, until, priority_class=name) / w for name, w in zip(names, weights, strict=True)
        }
        for (one, w), (other, v) in combinations(zip(names, weights, strict=True), 2):
            # As in the theorem, a full batch being the ticket; each may have the two batches in flight beyond that.
            bound_s = full_s / w + full_s / v + 2 * full_s / min(w, v)
            assert abs(served_s[one] - served_s[other]) <= bound_s
    # Places stay free rather than go to who has had his share: at most what they are of batches of five of eight.
    assert sim.rows(WARM_S) / 25 >= service.rows_per_s(5)


def beside_a_strict_class(keys: str) -> World:
    """`a` is strict and asks for half of what there is; `b` and `c` have a backlog, and weights of 4 and 1."""
    sim = world(classes=(replace(class_settings("a"), strict=True), class_settings("b", 4), class_settings("c", 1)))
    sim.add(Periodic(load=Load("a", rows=4, merge_key=keys[0]), per_s=0.125 * Service(A, B).rows_per_s()))
    for name, key in zip("bc", keys[1:], strict=True):
        sim.add(ClosedLoop(load=Load(name, merge_key=key), outstanding=100))
    sim.run(25.0)
    return sim


@pytest.mark.parametrize("keys", ["kkk", "klm"])
def test_a_strict_class_has_all_it_asks_for_at_once(keys):
    sim = beside_a_strict_class(keys)
    assert sim.rows(WARM_S, priority_class="a") / 20 == pytest.approx(0.5 * Service(A, B).rows_per_s(), rel=0.01)
    # Two batches are in flight when it comes.
    assert sim.longest_wait_s(WARM_S, priority_class="a") <= 2 * (A + 8 * B)


def test_what_a_strict_class_leaves_the_others_share_by_weight():
    sim = beside_a_strict_class("klm")
    b_s, c_s = (sim.service_s(WARM_S, priority_class=name) for name in "bc")
    assert b_s == pytest.approx(4 * c_s, rel=0.03)


@pytest.mark.parametrize(("rows", "outstanding"), [(2, 2), (3, 3), (4, 4)])
@pytest.mark.parametrize("sizes", [(1, 1), (3, 2), (2, 5)])
def test_classes_share_by_weight_the_places_that_a_strict_class_leaves_in_its_batches(rows, outstanding, sizes):
    sim = world(classes=(replace(class_settings("a"), strict=True), class_settings("b", 4), class_settings("c", 1)))
    sim.add(ClosedLoop(load=Load("a", rows=rows), outstanding=outstanding))
    for name, size in zip("bc", sizes, strict=True):
        sim.add(ClosedLoop(load=Load(name, rows=size), outstanding=100))
    sim.run(40.0)
    b_s, c_s = (sim.service_s(WARM_S, priority_class=name) for name in "bc")
    assert b_s == pytest.approx(4 * c_s, rel=0.05)


@pytest.mark.parametrize("key", ["k", "other"])
def test_background_never_starves(key):
    sim = world(classes=TWO_CLASSES)
    sim.add(ClosedLoop(load=Load("interactive"), outstanding=200))
    sim.add(ClosedLoop(load=Load("background", merge_key=key), outstanding=5))
    sim.run(30.0)
    # A turn comes after at most 16 times what its last batch cost; eight rows of interactive go at a time.
    assert sim.longest_wait_s(WARM_S, priority_class="background") <= 3 * 17 * (A + 8 * B)


def test_background_that_cannot_ride_is_served_while_others_of_its_class_ride_without_end():
    sim = world(classes=TWO_CLASSES)
    sim.add(ClosedLoop(load=Load("interactive", tenant="rare"), outstanding=1))
    sim.add(ClosedLoop(load=Load("interactive", tenant="busy", merge_key="busy"), outstanding=50))
    sim.add(ClosedLoop(load=Load("background", tenant="rider"), outstanding=100))
    sim.add(ClosedLoop(load=Load("background", tenant="other", merge_key="other"), outstanding=10))
    sim.run(60.0)
    rounds_s = 16 * 2 * 8 * (A + 8 * B)
    assert sim.longest_wait_s(WARM_S, tenant="other") <= 2 * rounds_s


@pytest.mark.parametrize("what", ["tenant", "priority_class"])
def test_the_idle_get_no_credit(what):
    classes = (class_settings("early", 1), class_settings("late", 1))
    sim = world(classes=classes if what == "priority_class" else ONE_CLASS)
    loads = {name: Load(**{"merge_key": None, what: name}) for name in ("early", "late")}
    sim.add(ClosedLoop(load=loads["early"], outstanding=50))
    sim.add(ClosedLoop(load=loads["late"], outstanding=50, start_s=20.0))
    sim.run(30.0)
    for until in (20.5, 21.0, 25.0):
        early_s, late_s = (sim.service_s(20.1, until, **{what: name}) for name in loads)
        assert abs(early_s - late_s) <= 4 * (A + B)


def test_shares_are_weighted_max_min():
    weights, demands = {"a": 1.0, "b": 2.0, "c": 4.0}, {"a": 1e9, "b": 1e9, "c": 20.0}
    sim = world(tenants={name: tenant_settings(weight) for name, weight in weights.items()})
    for name in "ab":
        sim.add(ClosedLoop(load=Load(tenant=name, merge_key=None), outstanding=30))
    sim.add(Poisson(load=Load(tenant="c", merge_key=None), per_s=demands["c"]))
    sim.run(100.0)
    expected = max_min_shares(Service(A, B).rows_per_s(1), demands, weights)
    for name, per_s in expected.items():
        assert sim.rows(WARM_S, tenant=name) / 95 == pytest.approx(per_s, rel=0.05)


def test_a_noisy_neighbour_does_not_make_the_quiet_wait():
    sim = world()
    capacity = Service(A, B).rows_per_s()
    sim.add(Periodic(load=Load(tenant="quiet"), per_s=capacity * 0.4))
    sim.add(Poisson(load=Load(tenant="noisy"), per_s=capacity * 5))
    sim.run(20.0)
    # Two batches are in flight; then it opens the next or rides in it.
    assert sim.longest_wait_s(WARM_S, tenant="quiet") <= 3 * (A + 8 * B)
    assert sim.rows(WARM_S, tenant="quiet") / 15 == pytest.approx(capacity * 0.4, rel=0.01)
    assert sim.rows(WARM_S) / 15 == pytest.approx(capacity, rel=0.02)


class TestOwnWait:
    """A class with a `wait_s` of 20.1 ms: batches of 10 rows and 14 ms, where a full one is 32 rows and 36 ms."""

    WAIT_S = 0.0201
    SERVICE = Service(A, B, max_batch_size=32)

    def world(self, **tenants: float) -> World:
        settings = core_settings(
            (class_settings("interactive", wait_s=self.WAIT_S),),
            {name: tenant_settings(weight) for name, weight in tenants.items()},
        )
        return World(settings, [BackendPlan("gpu0", {"m": self.SERVICE})])

    @property
    def rows(self) -> int:
        return largest_batch_rows(A, B, self.WAIT_S, self.SERVICE.max_batch_size)

    @pytest.mark.parametrize("key", ["k", "of its own"])
    def test_a_quiet_tenant_waits_no_longer_than_wait_s_beside_a_noisy_one_of_its_class(self, key):
        sim = self.world()
        capacity = self.SERVICE.rows_per_s(self.rows)
        sim.add(Periodic(load=Load(tenant="quiet", merge_key=key), per_s=0.1 * capacity))
        sim.add(Poisson(load=Load(tenant="noisy"), per_s=5 * capacity))
        sim.run(20.0)
        # Where it cannot ride with the noisy one and has just had a turn, it waits for its own small batch as well.
        own_s = 0.0 if key == "k" else A + 2 * B
        assert sim.longest_wait_s(WARM_S, tenant="quiet") <= self.WAIT_S + own_s
        assert sim.rows(WARM_S, tenant="quiet") / 15 == pytest.approx(0.1 * capacity, rel=0.01)

    def test_the_bound_costs_no_more_than_the_smaller_batches_do(self):
        sim = self.world()
        sim.add(*(ClosedLoop(load=Load(tenant=name), outstanding=100) for name in ("one", "other")))
        sim.run(20.0)
        assert set(sim.backends["gpu0"].batch_rows["m"][100:]) == {self.rows}
        assert sim.rows(WARM_S) / 15 == pytest.approx(self.SERVICE.rows_per_s(self.rows), rel=0.01)

    def test_a_tenant_by_itself_pays_nothing_and_whoever_comes_waits_for_one_large_batch_once(self):
        sim = self.world()
        sim.add(ClosedLoop(load=Load(tenant="noisy"), outstanding=200))
        sim.add(Periodic(load=Load(tenant="quiet"), per_s=10, start_s=10.0))
        sim.run(20.0)
        full_s = A + 32 * B
        assert set(sim.backends["gpu0"].batch_rows["m"][50:100]) == {32}
        assert sim.longest_wait_s(10.0, tenant="quiet") <= 2 * full_s
        assert sim.longest_wait_s(10.2, tenant="quiet") <= self.WAIT_S

    @pytest.mark.parametrize("keys", ["kk", "kl"])
    @pytest.mark.parametrize("weight", [1.0, 3.0])
    def test_tenants_of_the_class_share_by_weight(self, keys, weight):
        sim = self.world(light=1.0, heavy=weight)
        for name, key in zip(("light", "heavy"), keys, strict=True):
            sim.add(ClosedLoop(load=Load(tenant=name, merge_key=key), outstanding=100))
        sim.run(20.0)
        light, heavy = (sim.service_s(WARM_S, tenant=name) for name in ("light", "heavy"))
        assert jain([light, heavy / weight]) >= 0.999


def test_a_capped_tenant_blocks_nobody():
    sim = world(instances=2, tenants={"capped": tenant_settings(max_in_flight=1)})
    sim.add(Poisson(load=Load(tenant="capped", merge_key=None), per_s=1000))
    sim.add(Periodic(load=Load(tenant="free", merge_key=None), per_s=150))
    sim.run(20.0)
    length_s = A + B
    assert sim.longest_wait_s(WARM_S, tenant="free") <= 2 * length_s
    # One ticket at a time, and the next one as soon as it ends: the other instance has room for the rest.
    assert sim.rows(WARM_S, tenant="capped") / 15 == pytest.approx(1 / length_s, rel=0.15)
