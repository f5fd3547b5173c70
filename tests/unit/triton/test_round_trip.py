from scheduler.triton.round_trip import PROBES, RoundTrip


def probed(*took_s: float) -> float:
    round_trip = RoundTrip()
    for each in took_s:
        round_trip.probed(each)
    return round_trip.seconds


def test_it_is_the_least_of_the_last_probes_in_whole_milliseconds():
    assert probed(0.5, 0.0304, 0.031, 0.2) == 0.030
    assert probed(*[0.011] * 4, *[0.030] * PROBES) == 0.030


def test_a_few_probes_tell_nothing():
    assert probed(0.03, 0.03, 0.03) == 0.0


def test_what_two_programs_on_one_host_take_is_no_network():
    assert probed(*[0.004] * PROBES) == 0.0
