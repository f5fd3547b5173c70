"""Compressed messages."""

import gzip
import zlib

import pytest

from scheduler.wire.coding import CodingError, TooLarge, decompressed, known


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_message_up_to_the_bound(coding: str, compress: object) -> None:
    packed = compress(b"x" * 1000)  # type: ignore[operator]
    assert known(coding)
    assert decompressed(packed, coding, 1000) == b"x" * 1000
    with pytest.raises(TooLarge):
        decompressed(packed, coding, 999)
    with pytest.raises(CodingError, match="cut off"):
        decompressed(packed[:-3], coding, 1000)
    with pytest.raises(CodingError, match=coding):
        decompressed(b"garbage", coding, 1000)


def test_what_says_that_it_is_compressed_and_has_no_coding() -> None:
    assert known("identity")
    assert not known("snappy")
    with pytest.raises(CodingError, match="identity"):
        decompressed(b"x", "identity", 1000)
