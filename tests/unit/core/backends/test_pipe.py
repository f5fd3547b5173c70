import pytest

from scheduler.core.backends.pipe import LATEST, MOST_WAYS, Pipe


def test_before_the_first_answer_it_is_as_configured():
    assert Pipe().ways(2, 0.02) == 2


@pytest.mark.parametrize(
    ("service_s", "round_trip_s", "instances", "ways"),
    [(0.005, 0.020, 1, 5), (0.005, 0.020, 2, 10), (0.020, 0.020, 1, 2), (1.0, 0.020, 1, 2), (0.020, 0.030, 1, 3)],
)
def test_an_instance_needs_one_and_as_many_as_it_serves_in_a_round_trip(service_s, round_trip_s, instances, ways):
    pipe = Pipe()
    pipe.ended(service_s + round_trip_s, round_trip_s, 1, instances)
    assert pipe.ways(instances, round_trip_s) == ways


@pytest.mark.parametrize("under_way", [6, 10, 40])
def test_where_every_instance_is_busy_waits_in_the_backends_queue_are_no_service(under_way):
    pipe = Pipe()
    for _ in range(LATEST):
        pipe.ended(under_way * 0.005, 0.02, under_way, 1)
    assert pipe.ways(1, 0.02) == 5


def test_a_service_that_has_become_longer_is_learned_in_time():
    pipe = Pipe()
    pipe.ended(0.025, 0.02, 1, 1)
    for _ in range(LATEST):
        pipe.ended(0.12, 0.02, 1, 1)
    assert pipe.ways(1, 0.02) == 2


def test_what_is_under_way_is_bounded():
    pipe = Pipe()
    pipe.ended(0.001, 0.02, 1, 1)
    assert pipe.ways(1, 0.02) == MOST_WAYS
