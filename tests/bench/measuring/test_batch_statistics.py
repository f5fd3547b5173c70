import pytest

from bench.measuring.batch_statistics import fetch_batch_statistics
from bench.targets.target import TargetError


async def test_a_server_that_tells_no_statistics_is_named() -> None:
    with pytest.raises(TargetError, match=r"127\.0\.0\.1:1 does not tell its statistics of digits: UNAVAILABLE"):
        await fetch_batch_statistics("127.0.0.1:1", ["digits"])
