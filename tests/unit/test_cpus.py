"""Which CPUs are whose."""

from scheduler.cpus import Division, divide


def test_one_cpu_is_the_schedulers_and_the_others_are_tritons() -> None:
    assert divide({0, 1}) == Division(frozenset({0}), frozenset({1}))
    assert divide({7, 3, 5}) == Division(frozenset({3}), frozenset({5, 7}))


def test_one_cpu_alone_is_shared() -> None:
    assert divide({4}) is None
