"""What gRPC writes into header fields."""

import pytest

from scheduler.wire.fields import (
    fields_of,
    metadata_of,
    percent_decoded,
    percent_encoded,
    seconds_of,
    timeout_of,
)


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [("1H", 3600.0), ("2M", 120.0), ("30S", 30.0), ("250m", 0.25), ("7u", 7e-6), ("99999999n", 0.099999999)],
)
def test_a_timeout_in_each_unit(timeout: str, seconds: float) -> None:
    assert seconds_of(timeout) == pytest.approx(seconds)


@pytest.mark.parametrize("timeout", ["", "S", "1", "-1S", "1.5S", "123456789S", "1s", "1 S", "1sS"])
def test_what_is_no_timeout(timeout: str) -> None:
    assert seconds_of(timeout) is None


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.001, 0.5, 1.0, 99.0, 3600.0, 86400.0, 3e6, 1e9])
def test_a_timeout_is_written_as_finely_as_it_fits(seconds: float) -> None:
    written = timeout_of(seconds).decode()
    assert seconds_of(written) == pytest.approx(seconds, rel=1e-3)


def test_timeouts_beyond_either_end() -> None:
    assert timeout_of(-1.0) == b"0n"
    assert timeout_of(1e30) == b"99999999H"


def test_words_of_a_status() -> None:
    assert percent_encoded("50% of é\n~") == b"50%25 of %C3%A9%0A~"
    assert percent_decoded("50%25 of %C3%A9%0A~") == "50% of é\n~"
    assert percent_decoded("100%, %zz %") == "100%, %zz %"
    assert percent_decoded("%ff") == "\ufffd"


def test_metadata_both_ways() -> None:
    metadata = (("x-a", "1"), ("x-b-bin", b"\0\xff"), ("x-a", "2"), ("x-e-bin", b""))
    fields = fields_of(metadata)
    assert fields == [(b"x-a", b"1"), (b"x-b-bin", b"AP8"), (b"x-a", b"2"), (b"x-e-bin", b"")]
    assert metadata_of((name.decode(), value.decode()) for name, value in fields) == metadata


def test_metadata_leaves_out_what_is_the_protocols_own() -> None:
    fields = [(":path", "/s/m"), ("te", "trailers"), ("grpc-timeout", "1S"), ("content-type", "application/grpc")]
    assert metadata_of([*fields, ("grpc-previous-rpc-attempts", "1")]) == (("grpc-previous-rpc-attempts", "1"),)


def test_binary_values_with_padding_in_lists_or_broken() -> None:
    fields = [("x-bin", "AP8=, AQ"), ("x-bin", "!"), ("x-bin", "A")]
    assert metadata_of(fields) == (("x-bin", b"\0\xff"), ("x-bin", b"\1"))


@pytest.mark.parametrize(
    ("key", "value"), [("X-Upper", "v"), ("", "v"), ("a b", "v"), ("grpc-status", "0"), ("x", "a\nb"), ("x", "é")]
)
def test_what_no_header_can_carry(key: str, value: str) -> None:
    with pytest.raises(ValueError, match="metadata"):
        fields_of([(key, value)])
