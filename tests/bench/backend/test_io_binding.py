import numpy as np

from bench.backend.io_binding import WIDTH, call_variants, make_session


def test_all_ways_give_the_same_answer() -> None:
    for name, call in call_variants(make_session(), 3).items():
        np.testing.assert_array_equal(call(), np.zeros((3, WIDTH)), err_msg=name)
