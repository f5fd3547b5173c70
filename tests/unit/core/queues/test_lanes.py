from scheduler.core.queues.lanes import Lanes
from scheduler.core.tenants.caps import Tenant
from tests.unit.core.build import BACKGROUND, INTERACTIVE, class_settings, make_ticket, tenant_settings

CLASSES = (INTERACTIVE, BACKGROUND)


def test_a_model_has_one_lane_and_more_for_its_sequences_those_without_a_backend_and_on_each():
    lanes = Lanes(CLASSES)
    plain, unbound, bound = lanes.of("m"), lanes.of("m", ""), lanes.of("m", "gpu0")
    assert (lanes.of("m"), lanes.of("m", ""), lanes.of("m", "gpu0")) == (plain, unbound, bound)
    assert (plain.backend, unbound.backend, bound.backend) == (None, "", "gpu0")
    assert [lane.model for lane in lanes] == ["m", "m", "m"]


def test_waking_a_model_wakes_the_lanes_of_its_sequences_too_and_no_others():
    lanes = Lanes(CLASSES)
    lanes.wake("m")
    assert list(lanes.runnable) == ["m"]
    bound = lanes.of("m", "gpu0")
    lanes.of("n", "gpu0")
    lanes.wake("m")
    assert list(lanes.runnable) == ["m", bound.name]
    lanes.wake("without sequences")
    assert list(lanes.runnable) == ["m", bound.name, "without sequences"]


def test_what_yields_is_looked_at_when_a_batch_has_ended():
    lanes = Lanes(CLASSES)
    lanes.yielding["m"] = None
    lanes.wake_yielding()
    assert list(lanes.runnable) == ["m"]


def test_what_is_held_is_looked_at_at_its_time_and_not_before():
    lanes = Lanes(CLASSES)
    lanes.held = {"m": 2.0, "n": 3.0}
    lanes.wake_held(now=1.999)
    assert not lanes.runnable
    lanes.wake_held(now=2.0)
    assert (lanes.runnable, lanes.held) == ({"m": None}, {"n": 3.0})


def test_a_lane_that_is_looked_at_is_not_kept_back_any_more():
    lanes = Lanes(CLASSES)
    lane = lanes.of("m")
    lanes.held["m"] = lanes.held["n"] = 2.0
    lanes.yielding["m"] = lanes.yielding["n"] = None
    assert lanes.look_at("m") is lane
    assert (list(lanes.held), list(lanes.yielding)) == (["n"], ["n"])
    assert lanes.look_at("unknown") is None


def test_new_settings_reach_every_lane_those_to_come_included():
    lanes = Lanes(CLASSES)
    lane = lanes.of("m")
    lanes.reconfigure((class_settings("interactive", 3), BACKGROUND))
    assert [each.classes[0].weight for each in (lane, lanes.of("n"))] == [3, 3]
    assert list(lanes.runnable) == ["m"]


def test_a_look_at_a_lane_where_nothing_is_kept_back_finds_it():
    lanes = Lanes(CLASSES)
    assert lanes.of("m") is lanes.look_at("m")


def test_lanes_of_backends_that_have_gone_are_forgotten_where_nobody_waits():
    lanes = Lanes(CLASSES)
    plain, unbound, stays, waits, gone = (lanes.of("m", name) for name in (None, "", "gpu0", "gpu1", "gpu2"))
    waits.push(make_ticket(), 0, Tenant("acme", tenant_settings()))
    for name in lanes.by_name:
        lanes.runnable[name] = lanes.yielding[name] = None
        lanes.held[name] = 1.0
    lanes.forget_gone({"gpu0"})
    left = [plain, unbound, stays, waits]
    assert list(lanes) == left
    names = [lane.name for lane in left]
    assert list(lanes.runnable) == list(lanes.yielding) == list(lanes.held) == names
    lanes.runnable.clear()
    lanes.wake("m")
    assert list(lanes.runnable) == names
    assert lanes.of("m", "gpu2") is not gone
