"""Which CPUs are whose."""

from scheduler.cpus import Division, TritonCpus, divide


def test_one_cpu_is_the_schedulers_and_the_others_are_the_models() -> None:
    assert divide({7, 3, 5}) == Division(frozenset({3}), TritonCpus(frozenset({3, 5, 7}), frozenset({5, 7})))


def test_tritonserver_leaves_the_models_their_only_cpu() -> None:
    assert divide({0, 1}) == Division(frozenset({0}), TritonCpus(frozenset({0}), frozenset({1})))


def test_one_cpu_alone_is_shared() -> None:
    assert divide({4}) is None
