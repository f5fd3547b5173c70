"""Where the thread that reads batches keeps to: tritonserver's CPUs, while batches come in time from there."""

import sys

import pytest

MODELS, SERVER = {1}, {0}


class Clock:
    """Seconds that move when told."""

    def __init__(self):
        self.s = 0.0

    def __call__(self):
        return self.s


@pytest.fixture
def module(backend):
    return sys.modules["reader_cpus"]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def moves():
    return []


@pytest.fixture
def reader(module, clock, moves):
    return module.ReaderCpus(MODELS, SERVER, clock, moves.append)


@pytest.fixture
def windows(module, reader):
    """Batches of 2 ms under load, a window of them for each of these waits: windows(0.002, 0.0)."""

    def run(*waits_s, ran_s=0.002):
        for waited_s in waits_s:
            for _ in range(module.WINDOW):
                reader.ran(ran_s, waited_s)
                reader.read_beside()

    return run


IN_TIME, LATE = 0.0, 0.0003


def test_it_keeps_off_the_models_cpus_once_batches_are_known_to_be_short(module, reader, windows, moves):
    for _ in range(module.WINDOW - 1):
        reader.ran(0.002, IN_TIME)
        reader.read_beside()
    assert (moves, reader.away) == ([], False)
    reader.ran(0.002, IN_TIME)
    reader.read_beside()
    assert (moves, reader.away) == ([SERVER], True)
    windows(*[IN_TIME] * 5)
    assert moves == [SERVER]


def test_it_comes_back_to_run_a_batch_itself(reader, windows, moves):
    reader.run_itself()
    assert moves == []
    windows(IN_TIME)
    reader.run_itself()
    assert (moves, reader.away) == ([SERVER, MODELS], False)
    windows(IN_TIME)
    assert moves == [SERVER, MODELS, SERVER]


def test_where_it_was_well_away_it_is_away_from_the_next_load_on(reader, windows, moves):
    windows(IN_TIME)
    reader.run_itself()
    reader.read_beside()
    assert (moves, reader.away) == ([SERVER, MODELS, SERVER], True)


def test_where_it_rests_it_stays_from_the_next_load_on(reader, windows, moves):
    windows(IN_TIME, LATE)
    reader.run_itself()
    reader.read_beside()
    assert (moves, reader.away) == ([SERVER, MODELS], False)


def test_beside_long_batches_it_stays_among_the_models_cpus(windows, moves):
    windows(*[IN_TIME] * 5, ran_s=0.0301)
    assert moves == []
    windows(IN_TIME, ran_s=0.0299)
    assert moves == [SERVER]
    windows(IN_TIME, ran_s=0.0301)
    assert moves == [SERVER, MODELS]


def test_it_stays_away_while_a_tenth_of_the_time_is_waited_and_not_more(windows, moves):
    windows(IN_TIME, 0.00022, 0.00022)
    assert moves == [SERVER]
    windows(0.00023)
    assert moves == [SERVER, MODELS]


def test_each_window_is_judged_alone(windows, moves):
    windows(*[IN_TIME] * 20, LATE)
    assert moves == [SERVER, MODELS]


def test_it_rests_for_twice_as_long_after_each_window_that_was_late(windows, clock, moves):
    rests = []
    for _ in range(8):
        windows(*[IN_TIME] * (not rests), LATE)
        assert moves[-1] == MODELS
        left = clock.s
        while moves[-1] == MODELS:
            clock.s += 0.5
            windows(IN_TIME)
        rests.append(clock.s - left)
    assert rests == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0]


def test_a_window_in_time_halves_the_rest(windows, clock, moves):
    for rest_s in (1.0, 2.0, 4.0):
        windows(*[IN_TIME] * (rest_s == 1.0), LATE)
        clock.s += rest_s
        windows(IN_TIME)
    # The next rest would be of 8 seconds.
    windows(IN_TIME, IN_TIME, LATE)
    moves.clear()
    clock.s += 1.9
    windows(IN_TIME)
    assert moves == []
    clock.s += 0.1
    windows(IN_TIME)
    assert moves == [SERVER]


def test_what_was_waited_among_the_models_cpus_does_not_count_against_the_servers(windows, clock, moves):
    windows(LATE, LATE)
    moves.clear()
    windows(LATE)
    assert moves == []
    clock.s += 1.0
    windows(LATE)
    assert moves == [SERVER]
    windows(IN_TIME)
    assert moves == [SERVER]


def test_where_cpus_are_shared_it_never_moves(module, clock):
    reader = module.ReaderCpus({0, 1}, {0, 1}, clock, lambda cpus: pytest.fail(f"moved to {cpus}"))
    for _ in range(5 * module.WINDOW):
        reader.ran(0.002, LATE)
        reader.read_beside()
    reader.run_itself()
    assert not reader.away


def test_cpus_that_were_taken_away_are_told_of_once(module, clock, backend):
    def refused(cpus):
        raise OSError(22, "Invalid argument")

    reader = module.ReaderCpus(MODELS, SERVER, clock, refused)
    for _ in range(3 * module.WINDOW):
        reader.ran(0.002, IN_TIME)
        reader.read_beside()
    reader.run_itself()
    said = "stays on its CPUs: [0] are not to be had: [Errno 22] Invalid argument"
    assert backend.pb_utils.Logger.errors == [said]
    assert not reader.away
